"""Phones of American English from gruut's lexicon, tagger and letter-to-sound model.

Only its data package is read, `gruut_lang_en`: gruut's own pipeline is much slower. The
features of both models are those they were trained on (gruut 2.4, `pos.py` and `g2p.py`).
"""

from __future__ import annotations

import base64
import sqlite3
import string
import threading
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from wavernn.english.phonemes import ENGLISH, SIBILANTS, VOICELESS, VOWELS, is_letter
from wavernn.errors import TextError

# letters that fall into no base letter and a mark
PLAIN = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d"})
PLAIN |= str.maketrans({"þ": "th", "ı": "i", "ħ": "h", "ŋ": "ng", "ĸ": "k", "ŧ": "t", "ſ": "s"})
# roles of these would only add mistakes of the tagger's
ONE_SOUND = frozenset(("an", "de", "do", "does", "me", "re", "were", "thou"))
# before a vowel, and at the end of a phrase; elsewhere the lexicon's first, which is the weak form
BEFORE_VOWEL = {"the": "ð i", "to": "t u"}
AT_END = {"to": "t ˈu", "of": "ˈʌ v", "for": "f ˈɔ ɹ", "was": "w ˈɑ z", "can": "k ˈæ n"}
AT_END |= {"than": "ð ˈæ n", "were": "w ˈɚ", "a": "ˈeɪ", "an": "ˈæ n", "the": "ð ˈi"}
# its roles for these are wrong or missing
MENDED = {
    "tear": [("NN", "t ˈɪ ɹ"), ("VB", "t ˈɛ ɹ")],
    "tears": [("NN", "t ˈɪ ɹ z"), ("VB", "t ˈɛ ɹ z")],
    "lead": [("VB", "l ˈi d"), ("VBD", "l ˈɛ d")],
    "used": [("", "j ˈu z d")],
}
# what a word that isn't in the lexicon may begin or end with, beside one that is
BEGINNINGS = {"un": "ʌ n", "non": "n ˌɑ n", "mis": "m ɪ s"}
ENDINGS = {
    "ness": "n ə s", "less": "l ə s", "ly": "l i", "ful": "f ə l", "like": "l ˌaɪ k", "ing": "ɪ ŋ",
    "er": "ɚ", "est": "ɪ s t", "ship": "ʃ ˌɪ p", "able": "ə b ə l",
}  # fmt: skip
# of two words written as one, each has as many letters
PART_LETTERS = 4
USED_TO = "j ˈu s t"
GUESSES = 10_000
# what the lexicon lacks and the model gets wrong
ADDED = {
    "miz": "m ˈɪ z", "gif": "ɡ ˈɪ f", "uefa": "j u ˈeɪ f ə", "gigahertz": "ɡ ˈɪ ɡ ə h ˌɚ t s",
    "gigabit": "ɡ ˈɪ ɡ ə b ɪ t", "gigawatt": "ɡ ˈɪ ɡ ə w ˌɑ t", "kilobit": "k ˈɪ l ə b ɪ t",
    "kilohertz": "k ˈɪ l ə h ˌɚ t s", "kilojoule": "k ˈɪ l ə d͡ʒ ˌu l", "paisa": "p ˈaɪ s ə",
    "kilovolt": "k ˈɪ l ə v ˌoʊ l t", "kilopascal": "k ˈɪ l ə p æ s k ˌæ l",
    "hectopascal": "h ˈɛ k t ə p æ s k ˌæ l", "millivolt": "m ˈɪ l ɪ v ˌoʊ l t",
    "milliamp": "m ˈɪ l i ˌæ m p", "fahrenheit": "f ˈɛ ɹ ə n h ˌaɪ t", "won": "w ˈʌ n",
    "emoji": "ɪ m ˈoʊ d͡ʒ i", "omicron": "ˈoʊ m ɪ k ɹ ˌɑ n", "captcha": "k ˈæ p t͡ʃ ə",
    "hmm": "h m", "mm": "m", "shh": "ʃ", "psst": "p s t", "brr": "b ɚ", "grr": "ɡ ˈɚ",
    "pfft": "p f t", "zz": "z", "tsk": "t ˈɪ s k", "nth": "ˈɛ n θ", "meh": "m ˈɛ",
    "kinda": "k ˈaɪ n d ə", "vlog": "v l ˈɔ ɡ", "numpy": "n ˈʌ m p ˌaɪ",
    "pytorch": "p ˈaɪ t ˌɔ ɹ t͡ʃ", "chatgpt": "t͡ʃ ˈæ t d͡ʒ ˌi p ˌi t ˈi",
    "wavernn": "w ˈeɪ v ˌɑ ɹ ˌɛ n ˈɛ n",
}  # fmt: skip

Role = tuple[str, list[str]]


class Gruut:
    """The default phonemizer, without network; may be called from several threads."""

    name = "gruut"

    def __init__(self) -> None:
        try:
            import gruut_lang_en
            import pycrfsuite
        except ImportError as error:
            raise TextError(
                f"speaking text needs gruut's English data ({error}); "
                "install it with pip install gruut-lang-en python-crfsuite"
            ) from None
        folder = Path(gruut_lang_en.get_lang_dir())
        self._lexicon = _lexicon(folder / "lexicon.db")
        self._lexicon |= MENDED | {word: [("", phones)] for word, phones in ADDED.items()}
        self._tagger: Any = pycrfsuite.Tagger()
        self._tagger.open(str(folder / "pos" / "model.crf"))
        self._letters: Any = pycrfsuite.Tagger()
        self._letters.open(str(folder / "g2p" / "model.crf"))
        # a model holds the sentence it works on
        self._lock = threading.Lock()
        self._guess = lru_cache(GUESSES)(self._guessed)

    def knows(self, word: str) -> bool:
        """Tell whether a word stands in the lexicon."""
        return word in self._lexicon

    def phones(self, words: Sequence[str]) -> list[list[str]]:
        """Give the phones of each word; see `Phonemizer`."""
        entries = [self._entries(word) for word in words]
        tags: list[str] = []
        if any(len(roles) > 1 and roles[0][0] for roles in entries):
            with self._lock:
                tags = self._tagger.tag(sentence_features(words))
        found: list[list[str]] = []
        # from the end, since how a word sounds may depend on how the next one begins
        begin = ""
        for index in reversed(range(len(words))):
            word, roles = words[index], entries[index]
            if not roles:
                phones = []
            elif word in AT_END and not begin:
                phones = AT_END[word].split()
            elif word in BEFORE_VOWEL and begin in VOWELS:
                phones = BEFORE_VOWEL[word].split()
            elif word == "used" and words[index + 1 : index + 2] == ["to"]:
                phones = USED_TO.split()
            elif word == "a":
                phones = ["ˈeɪ" if is_letter(words, index) else "ə"]
            else:
                phones = _choose(roles, tags[index] if tags else "")
            found.append(phones)
            begin = phones[0].lstrip("ˈˌ") if phones else ""
        return found[::-1]

    def _entries(self, word: str) -> list[Role]:
        """The sounds of a word with their roles, the most likely first; none for a mark."""
        if not any(character.isalpha() for character in word):
            return []
        for spelling in (word, plain(word)):
            if spelling in self._lexicon:
                roles = self._lexicon[spelling]
                kept = roles[:1] if word in ONE_SOUND else roles
                return [(role, phones.split()) for role, phones in kept]
        return [("", list(self._guess(plain(word))))]

    def _guessed(self, word: str) -> tuple[str, ...]:
        """The phones of a word that isn't in the lexicon."""
        if parts := self._parts(word):
            return tuple(parts)
        letters = [letter for letter in word if "a" <= letter <= "z"]
        if not letters:
            return ()
        with self._lock:
            coded: list[str] = self._letters.tag(letter_features(letters))
        parts = [base64.b64decode(code).decode() for code in coded]
        phones = [phone for part in parts for phone in part.split("|")]
        return tuple(phone for phone in phones if phone.lstrip("ˈˌ") in ENGLISH)

    def _parts(self, word: str) -> list[str]:
        """The phones of a word that is made of known ones; none if it isn't."""
        stem = word.removesuffix("s").removesuffix("'")
        if stem and (
            word == stem + "'s" or (word == stem + "s" and stem[-1] != "s" and self._is_stem(stem))
        ):
            phones = self._first(stem)
            return [*phones, *_s_after(phones)]
        for ending, after in ENDINGS.items():
            if not word.endswith(ending):
                continue
            stem = word.removesuffix(ending)
            # shapeliness
            stem = stem[:-1] + "y" if stem.endswith("i") else stem
            if self._is_stem(stem):
                return [*self._first(stem), *after.split()]
        for beginning, before in BEGINNINGS.items():
            if word.startswith(beginning) and self._is_stem(stem := word.removeprefix(beginning)):
                return [*before.split(), *self._first(stem)]
        for end in range(len(word) - PART_LETTERS, PART_LETTERS - 1, -1):
            if word[:end] in self._lexicon and word[end:] in self._lexicon:
                second = [phone.replace("ˈ", "ˌ") for phone in self._first(word[end:])]
                return [*self._first(word[:end]), *second]
        return []

    def _is_stem(self, word: str) -> bool:
        return len(word) >= PART_LETTERS - 1 and word in self._lexicon

    def _first(self, word: str) -> list[str]:
        entries = self._entries(word)
        return entries[0][1] if entries else []


def plain(word: str) -> str:
    """Strip the accents of Latin letters: café becomes cafe."""
    spread = unicodedata.normalize("NFD", word.translate(PLAIN))
    return "".join(c for c in spread if not unicodedata.combining(c))


def _lexicon(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Word to roles and phones, in order of likelihood; the table has no index to ask it by."""
    lexicon: dict[str, list[tuple[str, str]]] = {}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        query = "SELECT word, role, phonemes FROM word_phonemes ORDER BY id"
        for word, role, phones in connection.execute(query):
            lexicon.setdefault(word, []).append((role.removeprefix("gruut:"), phones))
    return lexicon


def _choose(roles: Sequence[Role], tag: str) -> list[str]:
    """Take the sound for a tag of the Penn Treebank, such as VBN, or the first one."""
    wanted = ("VBD", "VB") if tag in ("VBD", "VBN") else (tag[:2],)
    for role in (*wanted, ""):
        for name, phones in roles:
            if name == role:
                return phones
    return roles[0][1]


def _s_after(phones: Sequence[str]) -> list[str]:
    last = phones[-1] if phones else ""
    if last in SIBILANTS:
        return ["ɪ", "z"]
    return ["s" if last in VOICELESS else "z"]


def _code(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def letter_features(letters: Sequence[str]) -> list[dict[str, object]]:
    """What the letter-to-sound model looks at: each letter with three on either side."""
    coded = [_code(letter) for letter in letters]
    found = []
    for i, code in enumerate(coded):
        features: dict[str, object] = {"bias": 1.0, "grapheme": code}
        for j in range(1, 4):
            if i >= j:
                features[f"grapheme-{j}"] = coded[i - j]
            if i + j < len(coded):
                features[f"grapheme+{j}"] = coded[i + j]
        if i == 0:
            features["begin"] = True
        if i == len(coded) - 1:
            features["end"] = True
        found.append(features)
    return found


def sentence_features(words: Sequence[str]) -> list[dict[str, object]]:
    """What the tagger looks at: each word with two on either side."""
    # it was trained on text as people write it
    words = ["I" if word == "i" else word for word in words]
    found = []
    for i in range(len(words)):
        features = _word_features(words[i], "")
        if i == 0:
            features["BOS"] = True
        if i == len(words) - 1:
            features["EOS"] = True
        for j in (-2, -1, 1, 2):
            if 0 <= i + j < len(words):
                features |= _word_features(words[i + j], f"{j:+d}:")
        found.append(features)
    return found


def _word_features(word: str, prefix: str) -> dict[str, object]:
    return {
        f"{prefix}bias": 1.0,
        f"{prefix}word": _code(word),
        f"{prefix}len(word)": len(word),
        f"{prefix}word.ispunctuation": word in string.punctuation,
        f"{prefix}word.isdigit()": word.isdigit(),
        f"{prefix}word[:2]": word[:2],
        f"{prefix}word[:3]": word[:3],
        f"{prefix}word[-2:]": word[-2:],
        f"{prefix}word[-3:]": word[-3:],
    }
