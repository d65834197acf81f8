"""What is said in recordings, as text that lies beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from wavernn.errors import DataError

log = logging.getLogger(__name__)

# of LJ Speech and its many followers: name|text|text with numbers and abbreviations spelt out|...
TABLE = "metadata.csv"


def find_transcripts(recordings: Mapping[str, Path]) -> dict[str, str]:
    """Returns the text of the recordings, given as name -> path, that have one.

    It's NAME.txt beside NAME.flac, or NAME's row of a metadata.csv there or a folder above, as in
    LJ Speech. Raises DataError for one that can't be read.
    """
    table = cache(_table)
    found = {}
    for name, path in recordings.items():
        own = path.with_suffix(".txt")
        folders = (path.parent, path.parent.parent)
        text = _read(own) if own.is_file() else ""
        for folder in folders:
            text = text.strip() or table(folder / TABLE).get(path.stem, "").strip()
        if text:
            found[name] = text
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} isn't text in UTF-8; convert it, or take it away") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None


def _table(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = [line.split("|") for line in _read(path).splitlines()]
    found = {row[0]: row[2] if row[2:] and row[2].strip() else row[1] for row in rows if row[1:]}
    if not found:
        log.warning("%s holds no transcripts; expected lines as NAME|TEXT", path)
    return found
