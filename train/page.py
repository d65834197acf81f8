"""A page to look and listen at an evaluation: one HTML file that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from wavernn.audio import pack_audio
from wavernn.checkpoint import Checkpoint
from wavernn.config import MelConfig
from wavernn.errors import DataError
from wavernn.files import write_atomic
from wavernn.train import scoreboard
from wavernn.train.copysynthesis import Said
from wavernn.train.figures import missing_figures, picture

# of each clip; the rest would make the file too large to open
SECONDS = 30
# the scores below a player
SHOWN = ("mel_l1", "mr_stft", "pesq", "align")
ARROWS = {"less": "↓", "more": "↑", "": ""}
TITLES = {"griffin_lim": "Griffin-Lim", "world": "WORLD"}
TEMPLATE = Path(__file__).with_name("page.html")


def check_target(path: Path) -> None:
    """Raises DataError where a page couldn't be made, before the work is done."""
    if sentence := missing_figures():
        raise DataError(sentence)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the path of the page to write")
    if not path.parent.is_dir():
        raise DataError(f"the folder {path.parent} doesn't exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"can't write to the folder {path.parent}; choose another for the page")


class Page:
    """Collects clips as they are judged, then writes them below the table of results."""

    def __init__(self, mel: MelConfig) -> None:
        self._mel = mel
        self._clips: list[str] = []

    def add(self, name: str, reference_T: np.ndarray, said: Mapping[str, Said]) -> None:
        """Takes a clip: its recording [T], and what each speaker made of it."""
        reference_T = reference_T[: SECONDS * self._mel.rate_hz]
        players = [self._player(name, "recording", reference_T, reference_T, "")]
        for speaker, one in said.items():
            scores = ", ".join(
                f"{label} {scoreboard.short(one.scores.get(key))}"
                for key, label, _ in scoreboard.ROWS
                if key in SHOWN
            )
            samples_T = one.samples_T[: len(reference_T)]
            players.append(self._player(name, title(speaker), samples_T, reference_T, scores))
        number = len(self._clips) + 1
        self._clips.append(
            f'<section class="clip" aria-labelledby="clip{number}">\n'
            f'<h2 id="clip{number}">{escape(name)}</h2>\n'
            f'<div class="players">\n{"".join(players)}</div>\n</section>\n'
        )

    def _player(
        self, clip: str, who: str, samples_T: np.ndarray, reference_T: np.ndarray, scores: str
    ) -> str:
        sound = _data("audio/flac", pack_audio(samples_T, self._mel.rate_hz, "flac"))
        image = _data("image/webp", picture(samples_T, reference_T, self._mel))
        clip, who = escape(clip), escape(who)
        return (
            f"<figure>\n<figcaption><b>{who}</b> {escape(scores)}</figcaption>\n"
            f'<audio controls preload="none" aria-label="{clip}, {who}" src="{sound}"></audio>\n'
            f'<img loading="lazy" width="720" height="360" '
            f'alt="Spectrogram and pitch of {clip}, {who}" src="{image}">\n</figure>\n'
        )

    def write(
        self, path: Path, voices: Mapping[str, Checkpoint], result: Mapping[str, Any]
    ) -> None:
        """Writes the page of an evaluation's voices, the judged one first, and its result."""
        html = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
            title=escape(f"{next(iter(voices))} on {len(self._clips)} clips"),
            table=_table(voices, result),
            clips="".join(self._clips),
            seconds=SECONDS,
        )
        try:
            write_atomic(path, html.encode())
        except OSError as error:
            raise DataError(f"{path} can't be written: {error.strerror or error}") from None


def title(speaker: str) -> str:
    """What a speaker is called on the page."""
    return TITLES.get(speaker, speaker)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _table(voices: Mapping[str, Checkpoint], result: Mapping[str, Any]) -> str:
    table = scoreboard.columns(next(iter(voices)), result)
    head = "".join(f'<th scope="col">{escape(title(name))}</th>' for name in table)
    kept = [_kept(voices[name]) if name in voices else scoreboard.NONE for name in table]
    rows = [_row("weights in the sample loop", kept)]
    for key, label, better in scoreboard.ROWS:
        rows.append(_row(f"{label} {ARROWS[better]}".strip(), scoreboard.cells(key, table)))
    return f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>"


def _row(label: str, values: list[str]) -> str:
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>\n'


def _kept(voice: Checkpoint) -> str:
    matrices = voice.model().matrices().values()
    kept = sum(int(weight.count_nonzero()) for weight in matrices)
    share = kept / sum(weight.numel() for weight in matrices)
    return f"{kept / 1000:.0f} k, {share:.1%}"
