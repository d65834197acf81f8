"""Numbers in English words, American style: no "and", no hyphens."""

from __future__ import annotations


def _list(text: str) -> list[str]:
    return text.split()


ONES = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = ["", "", *_list("twenty thirty forty fifty sixty seventy eighty ninety")]
SCALES = [
    "",
    *_list("thousand million billion trillion quadrillion quintillion sextillion septillion"),
    *_list("octillion nonillion decillion"),
]
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}
# a whole number with more digits, with commas or without, is read digit by digit
MOST_DIGITS = 3 * len(SCALES)
MOST_PLAIN_DIGITS = 15


def cardinal(number: int) -> list[str]:
    """Name a whole number below 10^36: 1234 is one thousand two hundred thirty four."""
    if number < 0:
        return ["minus", *cardinal(-number)]
    if number < 20:
        return [ONES[number]]
    if number < 100:
        return [TENS[number // 10], *_unless_zero(number % 10)]
    if number < 1000:
        return [ONES[number // 100], "hundred", *_unless_zero(number % 100)]
    power = (len(str(number)) - 1) // 3
    high, low = divmod(number, 1000**power)
    return [*cardinal(high), SCALES[power], *_unless_zero(low)]


def _unless_zero(number: int) -> list[str]:
    return cardinal(number) if number else []


def digits(text: str) -> list[str]:
    """Read digit by digit; whatever isn't a digit is left out."""
    return [ONES[int(character)] for character in text if "0" <= character <= "9"]


def whole(text: str) -> list[str]:
    """Read the digits of a whole number; with a leading zero, or far too long, one by one."""
    most = MOST_DIGITS if "," in text else MOST_PLAIN_DIGITS
    text = text.replace(",", "")
    if len(text) > most or (text[0] == "0" and len(text) > 1):
        return digits(text)
    return cardinal(int(text))


def decimal(text: str) -> list[str]:
    """Read a number with thousands' commas or a decimal point: 1,000.50, .5, 42."""
    before, point, after = text.partition(".")
    if not point:
        return whole(before)
    return [*(whole(before) if before else ["zero"]), "point", *digits(after)]


def ordinal(number: int) -> list[str]:
    """Name a place in an order: 21 is twenty first."""
    *words, last = cardinal(number)
    return [*words, _ordinal_word(last)]


def _ordinal_word(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    return word[:-1] + "ieth" if word.endswith("y") else word + "th"


def plural(word: str) -> str:
    """Make more of a noun or a number's word: six, sixes; twenty, twenties; foot, feet."""
    if word in ("foot", "inch"):
        return {"foot": "feet", "inch": "inches"}[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("x", "ch", "sh", "s")) else "s")


def year(number: int) -> list[str]:
    """Name a year: 1984, nineteen eighty four; 1905, nineteen oh five; 2005, two thousand five."""
    century, rest = divmod(number, 100)
    if not 1000 < number < 10_000 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return [*cardinal(century), "hundred"]
    return [*cardinal(century), *(["oh"] if rest < 10 else []), *cardinal(rest)]


def decade(text: str) -> list[str]:
    """Name a decade or century from its digits: 1980 or 80, eighties; 1900, nineteen hundreds."""
    number = int(text)
    words = year(number) if len(text) == 4 else cardinal(number)
    return [*words[:-1], plural(words[-1])]


def fraction(top: int, bottom: int) -> list[str]:
    """Name a fraction: 3/4, three quarters; 5/128, five over one hundred twenty eight."""
    if bottom in (0, 1) or (bottom > 20 and bottom % 10) or bottom > 1000:
        return [*cardinal(top), "over", *cardinal(bottom)]
    names = {2: ["half"], 4: ["quarter"]}.get(bottom) or ordinal(bottom)
    if top != 1:
        names = [*names[:-1], "halves" if bottom == 2 else plural(names[-1])]
    return [*cardinal(top), *names]


def roman(text: str) -> int | None:
    """Read a Roman numeral in its one proper spelling; None where it isn't one."""
    values = [ROMAN.get(letter, 0) for letter in text.lower()]
    after = [*values[1:], 0]
    number = sum(-v if v < w else v for v, w in zip(values, after, strict=True))
    return number if 0 < number < 4000 and to_roman(number) == text.lower() else None


def to_roman(number: int) -> str:
    """Write a Roman numeral in lower case."""
    table = zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        _list("m cm d cd c xc l xl x ix v iv i"),
        strict=True,
    )
    text = ""
    for value, letters in table:
        count, number = divmod(number, value)
        text += letters * count
    return text
