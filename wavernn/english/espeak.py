"""Phones of American English from espeak-ng, in the notation of gruut's lexicon.

espeak-ng is under the GPL, so it's loaded only where it's asked for by name: as the library that
`espeakng-loader` brings, or else as the program `espeak-ng`.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from itertools import groupby

from wavernn.english.phonemes import ENGLISH, STRESS, VOWELS, is_letter
from wavernn.errors import TextError

VOICE = "en-us"
# `espeak_Initialize`: sound goes nowhere, and a failure doesn't end the process
SYNCHRONOUS, DONT_EXIT = 2, 0x8000
UTF8, IPA, SEPARATOR = 1, 0x02, ord("_") << 8
PROGRAM_S = 10.0
# what English phones it writes otherwise, and the nearest of those it takes from other languages
PHONES = {
    "tʃ": ["t͡ʃ"], "dʒ": ["d͡ʒ"], "ɜ": ["ɚ"], "ɐ": ["ə"], "ᵻ": ["ɪ"], "ɾ": ["t"], "ʔ": ["t"],
    "n̩": ["ə", "n"], "m̩": ["ə", "m"], "l̩": ["ə", "l"], "ɫ": ["l"], "ɬ": ["l"], "r": ["ɹ"],
    "g": ["ɡ"], "x": ["k"], "ç": ["h"], "ɲ": ["n", "j"], "o": ["oʊ"], "e": ["eɪ"], "a": ["ɑ"],
    "ɒ": ["ɑ"], "ɑ̃": ["ɑ", "n"], "ɔ̃": ["ɔ", "n"], "ɛ̃": ["æ", "n"], "y": ["u"], "ø": ["ɚ"],
    "œ": ["ɚ"], "ʍ": ["w"], "ʲ": ["j"], "β": ["v"], "ɣ": ["ɡ"],
} | {phone: [phone] for phone in ENGLISH}  # fmt: skip
# marks of length, and whatever else, are passed over
PHONE = re.compile("|".join(sorted(PHONES, key=len, reverse=True)))
# the library has one state for the whole process
_LOCK = threading.Lock()


class Espeak:
    """The phonemizer espeak-ng, by its library or its program; raises TextError without either."""

    name = "espeak"

    def __init__(self) -> None:
        self._say = _library() or _program()

    def knows(self, word: str) -> bool:
        """Guess whether a word is read as such: its dictionary can't be asked."""
        return len(word) > 3 and any(letter in "aeiouy" for letter in word)

    def phones(self, words: Sequence[str]) -> list[list[str]]:
        """Give the phones of each word; see `Phonemizer`."""
        found: list[list[str]] = []
        for spoken, run in groupby(words, lambda word: any(map(str.isalpha, word))):
            group = list(run)
            found += self._phrase(group) if spoken else [[] for _ in group]
        letter = [is_letter(words, index) for index in range(len(words))]
        return [["ˈeɪ"] if a else phones for a, phones in zip(letter, found, strict=True)]

    def _phrase(self, words: list[str]) -> list[list[str]]:
        """Words between two pauses; where some come out as one, "of the", each half by itself."""
        with _LOCK:
            said = self._say(" ".join(words)).split()
        if len(words) == 1:
            return [[phone for word in said for phone in notation(word)]]
        if len(said) == len(words):
            return [notation(word) for word in said]
        middle = len(words) // 2
        return [*self._phrase(words[:middle]), *self._phrase(words[middle:])]


def notation(word: str) -> list[str]:
    """Rewrite phones that espeak-ng joined by "_" as gruut would: tʃ_ˈɜː_tʃ as t͡ʃ ˈɚ t͡ʃ."""
    phones: list[str] = []
    for part in word.split("_"):
        stress = part[:1] if part[:1] in STRESS else ""
        for piece in PHONE.findall(part):
            for phone in PHONES[piece]:
                if phone in VOWELS and stress:
                    phone, stress = stress + phone, ""
                phones.append(phone)
    return phones


def _library() -> Callable[[str], str] | None:
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
    except (ImportError, OSError, RuntimeError):
        return None
    with _LOCK:
        if library.espeak_Initialize(SYNCHRONOUS, 0, data, DONT_EXIT) < 0:
            return None
        if library.espeak_SetVoiceByName(VOICE.encode()) != 0:
            return None
    translate = library.espeak_TextToPhonemes
    translate.restype = ctypes.c_char_p
    translate.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]

    def say(text: str) -> str:
        rest = ctypes.c_char_p(text.encode())
        said = []
        # it moves the pointer on by a clause, and to null after the last
        while rest.value is not None:
            said.append(translate(ctypes.byref(rest), UTF8, IPA | SEPARATOR) or b"")
        return b" ".join(said).decode()

    return say


def _program() -> Callable[[str], str]:
    path = shutil.which("espeak-ng")
    if path is None:
        raise TextError(
            "the phonemizer espeak needs espeak-ng; install it with pip install espeakng-loader, "
            "or put the program espeak-ng on PATH, or take the phonemizer gruut"
        )
    command = [path, "-q", "--ipa", "--sep=_", "-v", VOICE, "--stdin"]

    def say(text: str) -> str:
        try:
            done = subprocess.run(
                command, input=text.encode(), capture_output=True, timeout=PROGRAM_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise TextError(f"the program espeak-ng failed: {error}") from None
        return done.stdout.decode()

    return say
