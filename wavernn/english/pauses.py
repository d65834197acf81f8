"""The pauses of speech, and the marks that stand for them in a text."""

from __future__ import annotations

import re

# what may follow a word in place of a space
PAUSES = (",", ";", ":", "—", ".", "?", "!", "…")
SENTENCE_ENDS = (".", "?", "!")
# a space, which is no pause, and the pauses from the shortest to the longest
STRENGTH = {mark: rank for rank, mark in enumerate((" ", ",", ";", ":", "—", "…", ".", "!", "?"))}
# a hyphen is a dash between spaces or if there are several
MARK = re.compile(r"\.{2,}|…|[-–—]{2,}|\s[-–—]\s|[–—]|[.,;:?!]+|[()\[\]{}|]|\s/\s")


def stronger(one: str, other: str) -> str:
    """Returns the mark that makes the longer pause; a space makes none."""
    return max(one, other, key=STRENGTH.__getitem__)


def pause(marks: str) -> str:
    """Returns the pause of a run of marks that MARK matched: brackets are commas."""
    first = marks.strip()[:2]
    if first in ("..", "…"):
        return "…"
    if first[0] in "-–—":
        return "—"
    if first[0] in "()[]{}|/":
        return ","
    return max(marks, key=STRENGTH.__getitem__)
