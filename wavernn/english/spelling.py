"""Which words are read as words, and which letter by letter."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from wavernn.english.abbreviations import (
    AS_WORDS,
    BARE,
    BY_LETTERS,
    GREEK,
    IN_ADDRESS,
    LONE_UNITS,
    RESPELLED,
    UNITS,
)
from wavernn.english.numerals import plural, whole

CASES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+?(?=[A-Z])|[^\W\d_]+")

# a letter three times or more
DRAWN = re.compile(r"(.)\1{2,}")
# more capitals without a meaning of their own are tried as a word
MOST_LETTERS = 5
# whether a word in lower case is read as such
Known = Callable[[str], bool]


class Spelling:
    """Makes words in lower case of one as it was written; a letter is a word too."""

    def __init__(self, known: Known) -> None:
        self.known = known

    def word(self, raw: str) -> list[str]:
        """Reads any run of letters; those of other scripts are left out."""
        lower = raw.lower()
        word = _latin(lower)
        if not word:
            return [GREEK[lower]] if lower in GREEK else []
        if raw in LONE_UNITS:
            *names, last = UNITS[raw].split()
            return [*names, plural(last)]
        if word in RESPELLED:
            return RESPELLED[word].split()
        if word in BARE and (raw[0].isupper() or word in ("vs", "etc")):
            return BARE[word].split()
        stem = word.removesuffix("'s")
        if self.known(word) or self.known(stem):
            return [word]
        if (drawn := self._shortened(word)) != word:
            return [drawn]
        raw = raw.removesuffix("'s")
        words = [word]
        if "'" not in raw and raw[1:] not in (raw[1:].lower(), raw[1:].upper()):
            # names in mixed case
            words = [spoken for part in CASES.findall(raw) for spoken in self._part(part)]
            words[-1:] = [last + word[len(stem) :] for last in words[-1:]]
        elif not _pronounceable(word):
            words = list(word.replace("'", ""))
        return words

    def capitals(self, raw: str, shouted: bool) -> list[str] | None:
        """Reads BBC, MP's and DVDs by letters; None if it's a word."""
        stem = raw.rstrip("s").rstrip("'")
        word = stem.lower()
        if word in AS_WORDS or word in RESPELLED or len(word) > MOST_LETTERS:
            return None
        if self.known(word) and _pronounceable(word) and (shouted or word not in BY_LETTERS):
            return None
        return [*word[:-1], word[-1] + ("" if stem == raw else "'s")]

    def address(self, raw: str) -> list[str]:
        """Reads an address of the web or of mail, or a file's name."""
        words: list[str] = []
        for part in re.findall(r"[^\W\d_]+|\d+|[^\w\s]|_", re.sub(r"^\w+://", "", raw)):
            if part.isdigit():
                words += whole(part)
            elif not part.isalpha():
                words += IN_ADDRESS.get(part, "").split()
            elif self.known(part.lower()):
                words.append(part.lower())
            else:
                words += [word for piece in CASES.findall(part) for word in self._part(piece)]
        return words

    def _shortened(self, word: str) -> str:
        """A known word that is written long, sooo or hmmm; else the word itself."""
        if not DRAWN.search(word):
            return word
        shorter = (DRAWN.sub(kept, word) for kept in (r"\1", r"\1\1"))
        return next(filter(self.known, shorter), word)

    def _part(self, text: str) -> list[str]:
        """A piece of a name in mixed case, or of an address."""
        word = _latin(text.lower())
        if not word or self.known(word):
            return [word] if word else []
        by_letters = text.isupper() or len(word) < 3 or not _pronounceable(word)
        return list(word.replace("'", "")) if by_letters else [word]


def _pronounceable(word: str) -> bool:
    return any(letter in "aeiouyæœøı" for letter in unicodedata.normalize("NFD", word))


def _latin(word: str) -> str:
    return "".join(filter(_is_latin, word)).strip("'")


@lru_cache(maxsize=2048)
def _is_latin(letter: str) -> bool:
    return letter == "'" or unicodedata.name(letter, "").startswith("LATIN SMALL LETTER")
