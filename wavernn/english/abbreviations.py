"""What English writes short: titles, months, units, money, symbols, and how they're said."""

from __future__ import annotations


def _list(text: str) -> list[str]:
    return text.split()


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


MONTHS = _list(
    "january february march april may june july august september october november december"
)

# these need their full stop, those of the next group may do without
DOTTED = {
    "prof": "professor", "rev": "reverend", "hon": "honorable", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "maj": "major",
    "cpl": "corporal", "gov": "governor", "sen": "senator", "rep": "representative",
    "pres": "president", "supt": "superintendent", "insp": "inspector", "messrs": "messrs",
    "mt": "mount", "ft": "fort", "ave": "avenue", "blvd": "boulevard", "rd": "road",
    "dept": "department", "inc": "incorporated", "ltd": "limited", "co": "company",
    "corp": "corporation", "bros": "brothers", "esq": "esquire", "al": "al", "cf": "compare",
    "ca": "circa", "approx": "approximately", "est": "established", "fig": "figure",
    "figs": "figures", "vol": "volume", "vols": "volumes", "ch": "chapter", "sec": "section",
    "pp": "pages", "ed": "edition", "eds": "editors", "viz": "namely", "apt": "apartment",
    "univ": "university", "assn": "association", "intl": "international", "govt": "government",
    "min": "minutes", "max": "maximum", "avg": "average", "misc": "miscellaneous",
    "tsp": "teaspoon", "tbsp": "tablespoon", "tel": "telephone", "ext": "extension",
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june",
    "jul": "july", "aug": "august", "sept": "september", "sep": "september", "oct": "october",
    "nov": "november", "dec": "december",
}  # fmt: skip
BARE = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "feb": "february", "apr": "april",
    "aug": "august", "sept": "september", "oct": "october", "nov": "november",
}  # fmt: skip
# no abbreviations, but the lexicon or the rules would say them otherwise
RESPELLED = {"ok": "okay", "phd": "p h d", "tv": "t v", "jpeg": "j peg", "sql": "sequel"}
DAYS = {
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday",
    "thur": "thursday", "thurs": "thursday", "fri": "friday", "sat": "saturday", "sun": "sunday",
}  # fmt: skip
# these are words too: with a full stop they're short only before a figure or a capital letter
WORDS_TOO = _set("ms mar gen hon rep sen rev fig al co ca est ed max min sec dec")
# these stand before a name, so that their full stop never ends a sentence
TITLES = _set(
    "mr mrs ms dr prof rev hon gen col capt lt sgt maj cpl gov sen rep pres supt insp messrs mt "
    "ft st fig figs vol vols ch pp no nos"
)
LATIN = {"e.g": "for example", "i.e": "that is", "a.k.a": "also known as"}

# in capitals: words that are then read by letters, and words the lexicon may lack
BY_LETTERS = _set(
    "us it who un am ai id hr pc pr ip ny la ma pa va cd ad ed os ir ui er ra ic io iq ac dc ph "
    "ms mr dr st ad bc ce op mac md mi nh ph est il"
)
AS_WORDS = _set(
    "nasa nato fifa uefa gif covid sars opec unesco unicef nasdaq lidar radar scuba aids asap "
    "captcha ascii laser sim ram rom pin zip"
)

# unit: one, many
UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer",
    "μm": "micrometer", "nm": "nanometer", "mi": "mile", "yd": "yard", "ft": "foot",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "tsp": "teaspoon", "tbsp": "tablespoon",
    "in": "inch", "t": "ton", "l": "liter", "L": "liter", "ml": "milliliter",
    "mL": "milliliter", "gal": "gallon",
    "ms": "millisecond", "s": "second", "sec": "second", "secs": "second", "min": "minute",
    "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "yr": "year", "yrs": "year",
    "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "TB": "terabyte", "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte",
    "kbps": "kilobit per second", "Mbps": "megabit per second", "Gbps": "gigabit per second",
    "kbit": "kilobit", "Mbit": "megabit", "Gbit": "gigabit",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour",
    "V": "volt", "mV": "millivolt", "kV": "kilovolt", "mA": "milliamp", "mAh": "milliamp hour",
    "Ω": "ohm", "J": "joule", "kJ": "kilojoule", "kcal": "kilocalorie", "N": "newton",
    "Pa": "pascal", "kPa": "kilopascal", "hPa": "hectopascal", "dB": "decibel", "px": "pixel",
    "°C": "degree celsius", "° C": "degree celsius", "°F": "degree fahrenheit",
    "° F": "degree fahrenheit", "°": "degree", "K": "kelvin",
    "%": "percent", "‰": "per mille", "mph": "mile per hour", "km/h": "kilometer per hour",
    "kph": "kilometer per hour", "m/s": "meter per second", "rpm": "revolution per minute",
    "bpm": "beat per minute", "fps": "frame per second", "dpi": "dot per inch",
    "ha": "hectare", "ac": "acre", "sq ft": "square foot", "sq mi": "square mile",
    "km^2": "square kilometer", "km2": "square kilometer", "m^2": "square meter",
    "m2": "square meter", "cm^2": "square centimeter", "m^3": "cubic meter",
    "m3": "cubic meter", "cm^3": "cubic centimeter", "ft^2": "square foot",
    "¢": "cent", "p": "penny", "USD": "u s dollar", "EUR": "euro", "GBP": "pound",
    "JPY": "yen", "CHF": "swiss franc", "CAD": "canadian dollar", "AUD": "australian dollar",
    "€": "euro", "£": "pound", "$": "dollar",
}  # fmt: skip
SAME_IN_PLURAL = frozenset(("percent", "hertz", "kilohertz", "megahertz", "gigahertz", "yen"))
# clear without a figure too
LONE_UNITS = _set("km cm mm kg mg lbs mph kph kHz MHz GHz kWh rpm kbps Mbps Gbps")

# sign: one, its hundredth, if it has any
MONEY = {
    "$": ("dollar", "cent"), "US$": ("u s dollar", "cent"), "£": ("pound", "penny"),
    "€": ("euro", "cent"), "¥": ("yen", ""), "₹": ("rupee", "paisa"), "₽": ("ruble", "kopek"),
    "₩": ("won", ""), "₿": ("bitcoin", ""), "₺": ("lira", ""), "₪": ("shekel", ""),
    "A$": ("australian dollar", "cent"), "C$": ("canadian dollar", "cent"),
    "AU$": ("australian dollar", "cent"), "CA$": ("canadian dollar", "cent"),
    "NZ$": ("new zealand dollar", "cent"), "HK$": ("hong kong dollar", "cent"),
}  # fmt: skip
SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million",
    "bn": "billion", "b": "billion", "B": "billion", "tn": "trillion", "T": "trillion",
    "thousand": "thousand", "million": "million", "billion": "billion", "trillion": "trillion",
}  # fmt: skip

SYMBOLS = {
    "&": "and", "@": "at", "+": "plus", "=": "equals", "%": "percent", "×": "times",
    "÷": "divided by", "±": "plus or minus", "≈": "about", "≠": "is not equal to",
    "≤": "at most", "≥": "at least", "<": "less than", ">": "greater than", "°": "degrees",
    "§": "section", "−": "minus", "$": "dollars", "£": "pounds", "€": "euros", "¥": "yen",
    "¢": "cents", "√": "square root of", "∞": "infinity", "#": "hash", "‰": "per mille",
    "→": "to",
}  # fmt: skip
PAIRS = {
    ">=": "at least", "<=": "at most", "!=": "is not equal to", "==": "equals", "->": "to",
    "=>": "to", "<-": "from",
}  # fmt: skip
SLASHES = {
    "w/o": "without", "w/": "with", "b/c": "because", "c/o": "care of", "n/a": "n a",
    "and/or": "and or", "km/h": "kilometers per hour", "m/s": "meters per second",
}  # fmt: skip
IN_ADDRESS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", ":": "colon",
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", "%": "percent", "+": "plus",
    "~": "tilde",
}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        _list(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi "
            "rho sigma tau upsilon phi chi psi omega"
        ),
        strict=True,
    )
)

# a sentence often begins with these, and a name seldom does
STARTERS = _set(
    "the a an it he she they we i you in on at and but so then this that these those there here "
    "when what why how if for after before as his her its my our your their not no yes please "
    "do did is are was were with from by all some most one two"
)
# a Roman numeral after these counts: "Chapter IV"; after these names it ranks: "Henry VIII"
COUNTED = _set(
    "chapter act scene part book volume section article appendix phase type title war class bowl "
    "mark stage round level figure table canto psalm vol ch no number page division grade "
    "version episode season lesson unit exhibit schedule category tier apollo rocky plate"
)
# a lone "I" after these is a numeral whatever follows
CHAPTERS = _set("chapter act scene volume war article appendix vol ch")
RANKED = _set(
    "henry george edward charles james william richard louis philip elizabeth mary napoleon pius "
    "paul leo benedict gregory innocent alexander nicholas peter catherine ivan frederick wilhelm "
    "ferdinand francis umberto haakon ptolemy ramses malcolm robert david stephen christian "
    "gustav carl karl maximilian otto rudolf leopold albert boniface clement urban sixtus julius "
    "john constantine ramesses thutmose harald olaf margaret juan felipe carlos alfonso"
)
