"""Dates and times of day in English words."""

from __future__ import annotations

import re

from wavernn.english.abbreviations import MONTHS
from wavernn.english.numerals import cardinal, ordinal, year

_NAMES = "|".join(f"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in MONTHS)
MONTH = rf"(?P<month>(?:{_NAMES}|sept)\b\.?)"
YEAR = r"(?:(?P<comma>,)? ?(?P<year>[12]\d\d\d)(?![\d,]\d|\d))?"
SUFFIX = r"(?P<suffix>st|nd|rd|th)?"
MONTH_DAY = re.compile(rf"{MONTH} (?P<day>\d{{1,2}}){SUFFIX}(?![\d:/]|\.\d|[^\W\d]){YEAR}", re.I)
MONTH_YEAR = re.compile(rf"{MONTH},? (?P<year>[12]\d\d\d)(?!\d|[,.]\d)", re.I)
DAY_MONTH = re.compile(rf"(?P<day>\d{{1,2}}){SUFFIX} (?P<of>of )?{MONTH}(?!['-]?\w){YEAR}", re.I)
ISO = re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?!\d|-)T?")
SLASHES = re.compile(r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4}|\d\d)(?![\d/])")
DOTS = re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})(?![\d.]\d|\d)")
NOON = r"(?P<noon> ?(?:[AaPp]\.?[Mm]\b\.?))"
TO = r"(?P<to> ?[-–—] ?(?=(?:1\d|2[0-4]|0?\d)(?::[0-5]\d| ?[AaPp]\.?[Mm]\b)))?"
TIME = re.compile(
    r"(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d+)?)?"
    rf"(?![\d:]){NOON}?{TO}"
)
HOUR = re.compile(rf"(?P<hour>1[0-2]|[1-9]){NOON}{TO}")
HOURS = re.compile(rf"(?P<hour>1[0-2]|[1-9]) ?[-–—] ?(?=(?:1[0-2]|[1-9])(?::[0-5]\d)?{NOON})")


def _month(match: re.Match[str]) -> str | None:
    """The month's whole name; None for a verb in lower case, as in "march 5 miles"."""
    text = match["month"]
    if text[0].islower():
        return None
    return next(name for name in MONTHS if name.startswith(text[:3].lower()))


def month_day(match: re.Match[str]) -> list[str] | None:
    """Reads Jan. 5th, 1984."""
    month = _month(match)
    if month is None or not 1 <= int(match["day"]) <= 31:
        return None
    return [month, *ordinal(int(match["day"])), *_year(match)]


def day_month(match: re.Match[str], last: str) -> list[str] | None:
    """Reads 5 January 1984 and the 5th of January; `last` is the word before."""
    month = _month(match)
    if month is None or not 1 <= int(match["day"]) <= 31:
        return None
    the = [] if match["suffix"] or last == "the" else ["the"]
    of = [] if match["suffix"] and not match["of"] else ["of"]
    return [*the, *ordinal(int(match["day"])), *of, month, *_year(match)]


def month_year(match: re.Match[str]) -> list[str] | None:
    """Reads January 1984."""
    month = _month(match)
    return [month, *year(int(match["year"]))] if month else None


def in_figures(match: re.Match[str]) -> list[str] | None:
    """Reads 2024-03-05, 3/5/2024 (the month first) and 5.3.2024 (the day first)."""
    month, day, in_year = int(match["month"]), int(match["day"]), match["year"]
    if month > 12 and day <= 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    number = int(in_year)
    if len(in_year) == 2:
        number += 2000 if number < 50 else 1900
    return [MONTHS[month - 1], *ordinal(day), ",", *year(number)]


def _year(match: re.Match[str]) -> list[str]:
    if not match["year"]:
        return []
    return [*([","] if match["comma"] else []), *year(int(match["year"]))]


def time(match: re.Match[str]) -> list[str]:
    """Reads 10:30, 14:05, 10 p.m."""
    groups = match.groupdict()
    hour, minute = int(match["hour"]), int(groups.get("minute") or 0)
    noon = [letter for letter in (match["noon"] or "").lower() if letter.isalpha()]
    words = cardinal(hour)
    if minute:
        words += [*(["oh"] if minute < 10 else []), *cardinal(minute)]
    elif not noon and not groups.get("second"):
        words += ["o'clock"] if 0 < hour < 13 else ["hundred"]
    if groups.get("second"):
        second = int(groups["second"])
        words += ["and", *cardinal(second), "second" if second == 1 else "seconds"]
    return [*words, *noon, *(["to"] if match["to"] else [])]
