"""Text that comes as it is written, given back sentence by sentence."""

from __future__ import annotations

import re

# of text without an end of a sentence, beyond which it's cut: about 20 s of speech
LONGEST_CHARACTERS = 320

# A mark, what may close behind it, and a space, by which it's known that the word is over; or an
# empty line. The marks of Chinese and Japanese need no space.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”]*|\n\s*\n")
_PAUSE = re.compile(r"[,;:—–、，](?=\s)|[、，]")
# A word before a point that ends no sentence: one of these, or initials and the like of U.S. and
# e.g. "No." is more often an answer than a number.
_ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|rev|hon|[sj]r|[sfm]t|gen|col|sgt|capt|lt|cmdr|sen|rep|gov|pres|"
    r"vs|etc|approx|fig|vol|inc|ltd|corp?|dept|(.*\.)?[^\W\d_]",
    re.IGNORECASE,
)


class Sentences:
    """Gathers the text of one utterance.

    What `push` and `rest` return is the text that was given, in order, but for the spaces around
    each part; none is empty.
    """

    def __init__(self) -> None:
        self._text = ""
        # where the search for an end goes on
        self._seen = 0

    def push(self, text: str) -> list[str]:
        """Takes more text; returns the sentences that are known to be whole."""
        self._text += text
        found = []
        while (end := self._end()) is not None:
            found.append(self._text[:end].strip())
            self._text, self._seen = self._text[end:].lstrip(), 0
        return [sentence for sentence in found if sentence]

    def rest(self) -> str | None:
        """Returns what is left, at the end of the text; None if nothing is."""
        text, self._text, self._seen = self._text.strip(), "", 0
        return text or None

    def _end(self) -> int | None:
        for mark in _END.finditer(self._text, self._seen):
            if self._speaks(self._text[: mark.end()]) and not self._abbreviated(mark):
                return mark.end()
        if len(self._text) <= LONGEST_CHARACTERS:
            # marks and empty lines may go on in the next piece
            self._seen = max(0, len(self._text) - LONGEST_CHARACTERS // 8)
            return None
        start = self._text[:LONGEST_CHARACTERS]
        pauses = [pause.end() for pause in _PAUSE.finditer(start)]
        # one near the beginning would leave hardly anything to speak
        if pauses and pauses[-1] > LONGEST_CHARACTERS // 4:
            return pauses[-1]
        space = start.rfind(" ")
        return space if space > 0 else LONGEST_CHARACTERS

    def _abbreviated(self, mark: re.Match[str]) -> bool:
        if mark.group() != ".":
            return False
        word = re.split(r"[\s(\[\"'“‘]", self._text[: mark.start()])[-1]
        return _ABBREVIATION.fullmatch(word) is not None

    @staticmethod
    def _speaks(text: str) -> bool:
        """True unless there are only marks, as those before a list's first word."""
        return any(character.isalnum() for character in text)
