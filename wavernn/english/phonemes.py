"""Words to phones, by gruut's English data or by espeak-ng.

Phones are IPA as gruut's en-us lexicon writes them; the mark of stress stands before a vowel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wavernn.errors import TextError

VOWELS = ("ɑ", "æ", "ʌ", "ə", "ɔ", "aʊ", "aɪ", "ɛ", "ɚ", "eɪ", "ɪ", "i", "oʊ", "ɔɪ", "ʊ", "u")
CONSONANTS = (
    *("b", "t͡ʃ", "d", "ð", "f", "ɡ", "h", "d͡ʒ", "k", "l", "m", "n", "ŋ", "p", "ɹ", "s", "ʃ"),
    *("t", "θ", "v", "w", "j", "z", "ʒ"),
)
# every phone of American English that can come, without marks of stress
ENGLISH = VOWELS + CONSONANTS
STRESS = ("ˈ", "ˌ")
SIBILANTS = ("s", "z", "ʃ", "ʒ", "t͡ʃ", "d͡ʒ")
VOICELESS = ("p", "t", "k", "f", "θ")


class Phonemizer(Protocol):
    """Says how words sound."""

    name: str

    def phones(self, words: Sequence[str]) -> list[list[str]]:
        """Give the phones of each word of a sentence, none where a word can't be spoken.

        Words are in lower case. A pause mark may stand among them as context; it has no phones.
        """
        ...

    def knows(self, word: str) -> bool:
        """Tell whether a word in lower case is read as a word, and not letter by letter."""
        ...


def load(name: str) -> Phonemizer:
    """Load a phonemizer by name, gruut or espeak; raises TextError where it can't run."""
    if name == "gruut":
        from wavernn.english.gruut import Gruut

        return Gruut()
    if name == "espeak":
        from wavernn.english.espeak import Espeak

        return Espeak()
    raise TextError(f"no phonemizer is called {name!r}; there are gruut and espeak")


def is_letter(words: Sequence[str], index: int) -> bool:
    """Tell an "a" that is spelled, in "b a" or "u s a", from the article."""
    near = [words[i] for i in (index - 1, index + 1) if 0 <= i < len(words)]
    return words[index] == "a" and any(len(w) == 1 and w.isalpha() and w != "a" for w in near)
