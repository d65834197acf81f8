"""Figures in English words: amounts with money and units, ranges, fractions, phone numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from wavernn.english.abbreviations import MONEY, SAME_IN_PLURAL, SCALES, UNITS
from wavernn.english.numerals import (
    ONES,
    cardinal,
    decade,
    decimal,
    digits,
    fraction,
    ordinal,
    plural,
    whole,
    year,
)

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], list[str] | None]]


def longest_first(names: Iterable[str]) -> str:
    """An alternation that tries longer names before those they begin with."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
AMOUNT = re.compile(
    rf"(?P<minus>[-−]\s?)?(?P<sign>{longest_first(MONEY)})?\s?(?P<low>{NUMBER})"
    rf"(?:(?P<dash>\s?[-–—]\s?)(?P<sign2>{longest_first(MONEY)})?(?P<high>{NUMBER}))?"
    rf"(?:\s?(?P<scale>{longest_first(SCALES)})(?![A-Za-z0-9^/]))?"
    rf"(?:(?P<gap>[\s-]?)(?P<unit>{longest_first(UNITS)})(?![A-Za-z0-9^])(?:\.(?= [a-z]))?)?"
)
# pounds, shillings and pence
OLD_MONEY = re.compile(r"£(\d+),? (\d+)s\.?(?:,? (\d+)d\.?)?(?!\w)|(\d+)s\. (\d+)d\.(?!\w)")
PHONE = re.compile(
    r"(?:\+?\d{1,3}[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\d-])"
    r"|\+\d{1,3}(?:[ .-]\(?\d{1,5}\)?){2,6}(?![\d-])|\d{3}-\d{4}(?![\d-])"
    r"|0\d{2,4} \d{3,4} \d{3,4}(?![\d-])|\+\d{6,15}(?!\d)"
)
GROUPS = re.compile(r"\d+(?:-\d+){2,}(?![\d.])")
DOTS = re.compile(r"\d+(?:\.\d+){2,}(?!\d)")
FRACTION = re.compile(r"(?:(?P<whole>\d+)[ -]+)?(?P<top>\d{1,4})/(?P<bottom>\d{1,4})(?![\d/])")
ORDINAL = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th|ST|ND|RD|TH)(?![^\W_])")
DECADE = re.compile(r"'?(\d{1,3}0|[2-9]0)'?s(?![^\W_])(?P<to>[-–](?='?\d))?")
SHORT_YEAR = re.compile(r"'(\d\d)(?![\d'])")
SCIENTIFIC = re.compile(r"(\d+(?:\.\d+)?)[eE]([-+]?)(\d{1,4})(?![\w.])")
TIMES = re.compile(r"(\d+(?:\.\d+)?) ?[x×](?= ?\d)")
RATIO = re.compile(r"(\d+):(\d+)(?!\d)")
FEET = re.compile(r"(\d{1,2})' ?(\d{1,2})(?:\"|'')")
POWER = re.compile(r"\^(-?)(\d+)")
# said as they're written
BY_HALVES = ("24/7", "9/11", "50/50", "20/20")


def _amount(match: re.Match[str]) -> list[str] | None:
    low, high, sign = match["low"], match["high"], match["sign"] or match["sign2"]
    before = match.string[match.start() - 1] if match.start() else " "
    if match["minus"] and (before.isalnum() or before in ".)"):
        return None
    if before.isalpha():
        # A100-80, x86: no amount
        return None
    scale, unit = match["scale"], match["unit"]
    if scale == "K" and low in ("4", "8"):
        # a screen's
        return [*cardinal(int(low)), "k"]
    if scale and len(scale) < 3 and not sign and scale not in ("k", "K", "M", "bn"):
        # 5m are meters
        if scale not in UNITS:
            return None
        unit, scale = scale, None
    if unit and not _is_unit(match, unit):
        return None
    words = ["minus"] if match["minus"] else []
    if sign and not scale and not high:
        return [*words, *_money(low, sign)]
    plain = not (sign or scale or unit or match["minus"])
    if high:
        words += _range(low, high, match["dash"], plain)
    else:
        words += _years(low) if plain else decimal(low)
    if scale:
        words.append(SCALES[scale])
    name = MONEY[sign][0] if sign else UNITS[unit] if unit else ""
    if not name:
        return words
    one = high is None and scale is None and low == "1"
    return [*words, *_counted(name, one or (match["gap"] == "-"))]


def _is_unit(match: re.Match[str], unit: str) -> bool:
    """Tell short units from words and letters: 5 m, but "5 t" only joined, "5-s" not at all."""
    gap = match["gap"]
    if gap == "-":
        return len(unit) > 1 and unit[0] != "°"
    if unit == "p":
        # 50p, but not 1080p
        return not gap and len(match["high"] or match["low"]) < 3
    if unit in ("in", "t", "K", "N", "J", "$", "£"):
        return not gap
    return unit not in ("ac", "ha", "gal", "sec") or bool(gap)


def _years(text: str) -> list[str]:
    """Four digits alone are mostly a year."""
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", text):
        return year(int(text))
    return decimal(text)


def _range(low: str, high: str, dash: str, plain: bool) -> list[str]:
    is_year = plain and re.fullmatch(r"1[1-9]\d\d|20\d\d", low) is not None
    if is_year and len(high) == 2 and int(high) > int(low[2:]):
        return [*year(int(low)), "to", *cardinal(int(high))]
    read = _years if plain else decimal
    first, second = read(low), read(high)
    if dash.strip() == "-" and dash != "-":
        return [*first, "minus", *second]
    falls = float(low.replace(",", "")) >= float(high.replace(",", ""))
    # 747-400 is no range, but 3-2 is a score
    return [*first, *([] if falls and len(low) > 2 else ["to"]), *second]


def _money(number: str, sign: str) -> list[str]:
    unit, part = MONEY[sign]
    before, _, after = number.partition(".")
    if len(after) != 2 or not part:
        return [*decimal(number), *_counted(unit, number == "1")]
    cents = [*whole(after.lstrip("0") or "0"), *_counted(part, after == "01")]
    if after == "00":
        return [*decimal(before), *_counted(unit, before == "1")]
    if not before.strip("0"):
        return cents
    return [*decimal(before), *_counted(unit, before == "1"), "and", *cents]


def _counted(name: str, one: bool) -> list[str]:
    words = name.split()
    if one or name in SAME_IN_PLURAL or name == "per mille":
        return words
    if name in ("penny", "won", "yen"):
        return ["pence" if name == "penny" else name]
    # degrees celsius, miles per hour, but square meters
    place = 0 if words[0] in ("degree",) or "per" in words else -1
    if "per" in words:
        place = words.index("per") - 1
    words[place] = plural(words[place])
    return words


def _phone(match: re.Match[str]) -> list[str]:
    words = ["plus"] if match[0].startswith("+") else []
    for group in re.findall(r"\d+", match[0]):
        words += [*digits(group), ","]
    return words[:-1]


def _groups(match: re.Match[str]) -> list[str]:
    return [word for group in match[0].split("-") for word in [*digits(group), ","]][:-1]


def _old_money(match: re.Match[str]) -> list[str]:
    pounds, shillings, pence = match[1], match[2] or match[4], match[3] or match[5]
    words = _money(pounds, "£") if pounds else []
    words += [*whole(shillings), *_counted("shilling", shillings == "1")]
    return words + ([*whole(pence), *_counted("penny", pence == "1")] if pence else [])


def _dots(match: re.Match[str]) -> list[str]:
    parts = match[0].split(".")
    joint = "dot" if len(parts) > 3 else "point"
    return [word for part in parts for word in [joint, *whole(part)]][1:]


def _fraction(match: re.Match[str]) -> list[str]:
    if match[0] in BY_HALVES:
        return [*whole(match["top"]), *whole(match["bottom"])]
    if len(match["top"]) == 4:
        return [*_years(match["top"]), *_years(match["bottom"])]
    words = fraction(int(match["top"]), int(match["bottom"]))
    return [*whole(match["whole"]), "and", *words] if match["whole"] else words


def _ordinal(match: re.Match[str]) -> list[str] | None:
    text = match[1].replace(",", "")
    return ordinal(int(text)) if len(text) < 16 else None


def _decade(match: re.Match[str]) -> list[str] | None:
    text = match[1]
    if (len(text) == 4 and text[0] in "12") or (len(text) == 2 and text[0] != "1"):
        return [*decade(text), *(["to"] if match["to"] else [])]
    return None


def _short_year(match: re.Match[str]) -> list[str]:
    return ["oh", ONES[int(match[1])]] if match[1][0] == "0" else cardinal(int(match[1]))


def _scientific(match: re.Match[str]) -> list[str]:
    sign = ["minus"] if match[2] == "-" else []
    return [*decimal(match[1]), "times", "ten", "to", "the", *sign, *whole(match[3])]


def _power(match: re.Match[str]) -> list[str]:
    if not match[1] and match[2] in ("2", "3"):
        return ["squared" if match[2] == "2" else "cubed"]
    return ["to", "the", *(["minus"] if match[1] else []), *whole(match[2])]


def _times(match: re.Match[str]) -> list[str]:
    return [*decimal(match[1]), "times" if "×" in match[0] else "by"]


# tried in this order at a figure, or a sign before one
FIGURES: tuple[Rule, ...] = (
    (PHONE, _phone),
    (OLD_MONEY, _old_money),
    (GROUPS, _groups),
    (DOTS, _dots),
    (FEET, lambda match: [*whole(match[1]), "foot", *whole(match[2])]),
    (RATIO, lambda match: [*whole(match[1]), "to", *whole(match[2])]),
    (FRACTION, _fraction),
    (ORDINAL, _ordinal),
    (DECADE, _decade),
    (SHORT_YEAR, _short_year),
    (SCIENTIFIC, _scientific),
    (TIMES, _times),
    (POWER, _power),
    (AMOUNT, _amount),
    (re.compile(NUMBER), lambda match: _years(match[0])),
)
