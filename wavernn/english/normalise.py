"""English text to words in lower case and pause marks, read once from left to right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from wavernn.english import dates
from wavernn.english.abbreviations import (
    BARE,
    CHAPTERS,
    COUNTED,
    DAYS,
    DOTTED,
    LATIN,
    PAIRS,
    RANKED,
    SLASHES,
    STARTERS,
    SYMBOLS,
    TITLES,
    WORDS_TOO,
)
from wavernn.english.cleaning import clean
from wavernn.english.figures import FIGURES, longest_first
from wavernn.english.numerals import cardinal, ordinal, roman
from wavernn.english.pauses import MARK, STRENGTH, pause, stronger
from wavernn.english.spelling import Known, Spelling

# a word with more letters is spoken in pieces
WORD_LETTERS = 40

LETTERS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
ADDRESS = re.compile(
    r"(?:https?://|ftp://|www\.)[^\s\"]+|[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}"
    r"|(?:[\w-]{1,63}\.){1,8}(?:com|org|net|edu|gov|io|ai|dev|app|info|co|uk|de|eu|fr|ca|au|me"
    r"|tv|us|py|js|html|txt|pdf|png|jpg|zip|exe|docx?|mp4|md|json|csv|wav|mp3)\b(?![^\W\d_])"
    r"(?:[/?#][^\s\"]*)?"
)
INITIALS = re.compile(r"(?:[^\W\d_]\.)+(?:[^\W\d_]\.|[^\W\d_](?![\w'.]))(?:'s)?")
INITIAL = re.compile(r"[A-Z]\.(?= ?[A-Z])")
DOTTED_WORD = re.compile(r"([A-Za-z]+)\.")
NUMBERED = re.compile(r"(No|Nos|no|nos|p|pp|P|Pp|v|vol|Vol|ch|Ch|fig|Fig)\. ?(?=\d)")
DOCTORATE = re.compile(r"Ph\. ?D\b\.?")
FOREIGN_MONEY = re.compile(r"(?:US|NZ|HK|AU|CA|A|C)\$ ?\d")
SLASHED = re.compile(rf"(?:{longest_first(SLASHES)})(?!\w)", re.I)
PAIR = re.compile(rf"(?:{longest_first(PAIRS)})(?![-=<>!])")
# a dash between figures that aren't read together, $100K–$200K
RANGE = re.compile(r"(?<=[\w%])(?:[-–](?=[$£€¥]\d)|–(?=\d))")
# after an "I" that's no numeral
PRONOUN = re.compile(r"'|,? [a-z](?!f )")
TEXT_END = re.compile(r"[ \"')]*$")
GRADE = re.compile(r"(?<![^\W_])[A-D]-(?![^\W_])")
CAPITALS = re.compile(r"[A-Z]{2,}(?:'?s)?(?![^\W_])")
IS_A_NUMBER = {"no": "number", "nos": "numbers", "p": "page", "pp": "pages", "v": "volume"}
IS_A_NUMBER |= {"vol": "volume", "ch": "chapter", "fig": "figure"}


def normalise(text: str, known: Known) -> Iterator[str]:
    """Yields the words of a text and, after some, one of PAUSES; nothing if it holds no words.

    `known` says whether a word in lower case is read as such rather than by letters. Words hold
    Latin letters and apostrophes between them, no more than WORD_LETTERS.
    """
    mark = " "
    spoken = False
    for token in _Reader(clean(text), known).tokens():
        if token in STRENGTH:
            mark = stronger(mark, token)
            continue
        if spoken and mark != " ":
            yield mark
        mark, spoken = " ", True
        yield token
    if spoken and mark != " ":
        yield mark


class _Reader:
    """A text being read; what is at a place often depends on what stood before it."""

    def __init__(self, text: str, known: Known) -> None:
        self.text = text
        self.spelling = Spelling(known)
        self.last = ""
        small = sum(map(str.islower, text))
        # "STOP THAT" isn't to be spelled
        self.shouted = sum(map(str.isupper, text)) > small and " " in text
        self.letter_rules: tuple[tuple[re.Pattern[str], Callable[..., list[str] | None]], ...] = (
            (ADDRESS, self._address),
            (dates.MONTH_DAY, dates.month_day),
            (dates.MONTH_YEAR, dates.month_year),
            (NUMBERED, lambda match: [IS_A_NUMBER[match[1].lower()]]),
            (DOCTORATE, lambda match: ["p", "h", "d", *self._ends_sentence(match.end())]),
            (SLASHED, lambda match: SLASHES[match[0].lower()].split()),
            (INITIALS, self._initials),
            (INITIAL, self._initial),
            (DOTTED_WORD, self._dotted),
            (CAPITALS, self._capitals),
            (LETTERS, self._word),
        )
        self.figure_rules = (
            (ADDRESS, self._address),
            (dates.ISO, dates.in_figures),
            (dates.SLASHES, dates.in_figures),
            (dates.DOTS, dates.in_figures),
            (dates.DAY_MONTH, lambda match: dates.day_month(match, self.last)),
            (dates.HOURS, lambda match: [*cardinal(int(match["hour"])), "to"]),
            (dates.TIME, self._time),
            (dates.HOUR, self._time),
            *FIGURES,
        )

    def tokens(self) -> Iterator[str]:
        """Words and pause marks, in which nothing is left out or joined yet."""
        place = 0
        while place < len(self.text):
            words, place = self._read(place)
            for word in words:
                if word not in STRENGTH:
                    self.last = word
                yield from _bounded(word)

    def _read(self, place: int) -> tuple[list[str], int]:
        character = self.text[place]
        if character.isalpha() and not FOREIGN_MONEY.match(self.text, place):
            rules = self.letter_rules
        elif character == " " and self.text[place + 1 : place + 2] not in tuple("-–—/"):
            return [], place + 1
        else:
            rules = self.figure_rules if self._at_figure(place) else ()
        inside = self.text[place - 1 : place].isalnum()
        for pattern, say in rules:
            if inside and pattern is ADDRESS:
                continue
            match = pattern.match(self.text, place)
            if match and (words := say(match)) is not None:
                return words, match.end()
        match = MARK.match(self.text, place)
        pair = PAIR.match(self.text, place)
        if pair and self.text[place - 1 : place] != character:
            return PAIRS[pair[0]].split(), pair.end()
        if RANGE.match(self.text, place):
            return ["to"], place + 1
        if match:
            # a closing bracket is no pause of its own where all ends
            last = match[0] in ")]}" and match.end() == len(self.text)
            return [" " if last else pause(match[0])], match.end()
        return self._symbol(place), place + 1

    def _at_figure(self, place: int) -> bool:
        """Whether digits come at once, or after a sign or two."""
        following = self.text[place : place + 6]
        return re.match(r"[-−+('^.]?(?:[A-Z]{0,2}[$£€¥₹₽₩₿₺₪] ?)?[-.]?\d", following) is not None

    def _symbol(self, place: int) -> list[str]:
        text = self.text
        character = text[place]
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        # a line of them is drawn, not said; but C++
        if character != "+" and character in (before, after):
            return []
        if character in "#@":
            if after.isalpha():
                return ["hashtag" if character == "#" else "at"]
            if character == "#" and (after.isdigit() or before in tuple("ABCDEFG")):
                return ["number" if after.isdigit() else "sharp"]
        if character == "/":
            return ["per"] if before.isdigit() and after.isalpha() else ["slash"]
        if character == "*":
            return ["times"] if after.isdigit() or text[place + 2 : place + 3].isdigit() else []
        if character == "~":
            return ["about"] if after.isdigit() else []
        if character == "-":
            return ["minus"] if GRADE.match(text, place - 1) else []
        return SYMBOLS.get(character, "").split()

    # ---- words ----

    def _word(self, match: re.Match[str]) -> list[str]:
        number = self._numeral(match)
        return self.spelling.word(match[0]) if number is None else number

    def _capitals(self, match: re.Match[str]) -> list[str] | None:
        if (number := self._numeral(match)) is not None:
            return number
        start, end = match.span()
        # AT&T
        if "&" in (self.text[start - 1 : start], self.text[end : end + 1]):
            return list(match[0].lower())
        return self.spelling.capitals(match[0], self.shouted)

    def _address(self, match: re.Match[str]) -> list[str]:
        kept = match[0].rstrip(".,;:!?)'")
        marks = match[0][len(kept) :]
        return self.spelling.address(kept) + [pause(mark) for mark in marks if mark in STRENGTH]

    def _numeral(self, match: re.Match[str]) -> list[str] | None:
        """A Roman numeral, as far as the word before it says that it's one."""
        raw = match[0].removesuffix("'s")
        if raw != match[0]:
            said = self._numeral_words(raw, match)
            return said and [*said[:-1], said[-1] + "'s"]
        return self._numeral_words(raw, match)

    def _numeral_words(self, raw: str, match: re.Match[str]) -> list[str] | None:
        if len(raw) > 8 or (number := roman(raw)) is None:
            return None
        before = re.search(
            r"([^\W\d_]+)\.? ?$", self.text[max(match.start() - 20, 0) : match.start()]
        )
        name = before[1] if before else ""
        capital = raw.isupper()
        # "when I told Henry I was", "the part I like", "No. I won't"
        if raw == "I" and PRONOUN.match(self.text, match.end()) and name.lower() not in CHAPTERS:
            return None
        if name.lower() in COUNTED and (capital or len(raw) > 1):
            return cardinal(number)
        if name.lower() in RANKED and name[0].isupper() and capital:
            return ["the", *ordinal(number)]
        return cardinal(number) if capital and len(raw) > 1 and not raw.strip("IVX") else None

    # ---- abbreviations ----

    def _ends_sentence(self, end: int) -> list[str]:
        """A full stop after an abbreviation, if a sentence seems to end with it."""
        match = re.match(r"[\"')\]]* +([^\W\d_]+)", self.text[end : end + 20])
        if match is None:
            return ["."] if TEXT_END.match(self.text, end) else []
        word = match[1]
        return ["."] if word[0].isupper() and word.lower() in STARTERS else []

    def _initials(self, match: re.Match[str]) -> list[str]:
        raw = match[0].lower()
        ending = "'s" if raw.endswith("'s") else ""
        stem = raw.removesuffix("'s").rstrip(".")
        if stem in LATIN:
            return LATIN[stem].split()
        words = stem.split(".")
        words[-1] += ending
        return words + ([] if ending else self._ends_sentence(match.end()))

    def _initial(self, match: re.Match[str]) -> list[str]:
        letter = match[0][0].lower()
        before = self.text[max(match.start() - 20, 0) : match.start()]
        # "the letter A. Others"
        if letter == "a" and re.search(r"\b[a-z]+ $", before):
            return [letter, "."]
        return [letter, *self._ends_sentence(match.end())]

    def _dotted(self, match: re.Match[str]) -> list[str] | None:
        word = match[1].lower()
        following = self.text[match.end() : match.end() + 2].lstrip(" ")
        if word in ("st", "dr"):
            return self._title_or_street(match, word)
        if word in DAYS:
            short = match[1][0].isupper() and (following[:1] == "," or following[:1].isalnum())
            return [DAYS[word], *self._ends_sentence(match.end())] if short else None
        said = BARE.get(word) or DOTTED.get(word)
        if said is None:
            return None
        next_is_word = match[1][0].isupper() and following[:1].isalnum()
        if word in WORDS_TOO and not (next_is_word or following[:1].isdigit()):
            return None
        stops = word not in TITLES or not following.strip()
        return said.split() + (self._ends_sentence(match.end()) if stops else [])

    def _title_or_street(self, match: re.Match[str], word: str) -> list[str]:
        title, street = {"st": ("saint", "street"), "dr": ("doctor", "drive")}[word]
        before = re.search(r"([^\W_]+) $", self.text[max(match.start() - 20, 0) : match.start()])
        name = before[1] if before else ""
        named = (name[:1].isupper() and name.lower() not in STARTERS) or name[:1].isdigit()
        follows = re.match(r" ?[A-Z]", self.text[match.end() : match.end() + 2])
        if (follows or word == "dr") and not (named and (word == "st" or not follows)):
            return [title]
        return [street, *self._ends_sentence(match.end())]

    def _time(self, match: re.Match[str]) -> list[str]:
        stop = self._ends_sentence(match.end()) if match[0].endswith(".") else []
        return dates.time(match) + stop


def _bounded(word: str) -> Iterator[str]:
    for start in range(0, len(word), WORD_LETTERS):
        if piece := word[start : start + WORD_LETTERS].strip("'"):
            yield piece
