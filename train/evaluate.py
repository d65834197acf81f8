"""How good a voice is on recordings: bits per sample, and copy synthesis beside the original."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn.audio import read_audio, write_audio
from wavernn.checkpoint import Checkpoint
from wavernn.engine import Vocoder
from wavernn.errors import DataError
from wavernn.train.features import Features, build, find_recordings
from wavernn.train.metrics import compare, missing_metrics
from wavernn.train.validate import bits_per_sample, flac_bits, make_slices

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


def choose(voice: Checkpoint, data: Path, every_clip: bool) -> dict[str, Path]:
    """The recordings to judge by: those held out when the voice was trained, where there are any.

    A folder that holds none of them is taken whole, since it's then of other recordings; with
    `every_clip` any folder is. Raises DataError for a file or an empty folder.
    """
    found = find_recordings(data)
    held_out = [str(name) for name in voice.provenance.get("held_out", ())]
    unseen = {name: path for name, path in found.items() if _names_one_of(name, held_out)}
    if every_clip or not unseen:
        log.info("judging by all %d recordings in %s", len(found), data)
        return found
    log.info("judging by %d recordings that were held out from training", len(unseen))
    return unseen


def _names_one_of(name: str, others: list[str]) -> bool:
    """Whether a name is among others, which may begin in a folder above or below."""
    path = f"/{name}"
    return any(path.endswith(f"/{other}") or f"/{other}".endswith(path) for other in others)


def _spread(count: int, of: int) -> list[int]:
    """Indices of at most `count` items spread over `of`."""
    count = min(count, of)
    return [int((i + 0.5) * of / count) for i in range(count)]


def copy_synthesis(
    vocoder: Vocoder,
    recordings: dict[str, Path],
    features: Features,
    clips: list[int],
    seed: int,
    keep: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Speaks clips from their own mels and compares: means of `metrics.compare`, and the speed."""
    mel_config = vocoder.voice.config.mel
    rows: list[dict[str, float | None]] = []
    made_s, spent_s = 0.0, 0.0
    for done, clip in enumerate(clips):
        progress("copy synthesis", done, len(clips))
        name = features.names[clip]
        first, frames = int(features.first[clip]), int(features.frames[clip])
        mel_NM = np.array(features.mel_NM[first : first + frames])
        started = time.perf_counter()
        test_T = vocoder.synthesize(mel_NM, seed)
        spent_s += time.perf_counter() - started
        made_s += len(test_T) / mel_config.rate_hz
        reference_T = read_audio(recordings[name], mel_config.rate_hz)
        test_T = test_T[: len(reference_T)]
        rows.append(compare(reference_T, test_T, mel_config))
        if keep is not None:
            write_audio(keep / f"{name.replace('/', '_')}.flac", test_T, mel_config.rate_hz)
    progress("copy synthesis", len(clips), len(clips))
    result: dict[str, Any] = {}
    for key in rows[0]:
        known = [value for row in rows if (value := row[key]) is not None]
        result[key] = float(np.mean(known)) if known else None
    return result | {"realtime_factor": made_s / spent_s, "clips": len(rows)}


def evaluate(
    voice: Checkpoint,
    data: Path,
    cache: Path,
    clips: int = 4,
    backend: str = "auto",
    seed: int = 0,
    every_clip: bool = False,
    seconds_per_clip: float = math.inf,
    keep: Path | None = None,
    progress: Progress = lambda label, done, total: None,
    format: str | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Judges a voice: the keys of `wavernn eval --json`, None where a metric can't be had.

    Bits per sample are taken over all chosen recordings (at most `seconds_per_clip` of each),
    copy synthesis over `clips` of them, spread evenly; `keep` receives what was synthesised.
    """
    if clips < 1:
        raise DataError(f"clips must be at least 1, got {clips}")
    # what can't run or be written is to be known before the long work
    vocoder = Vocoder(voice, backend, format, threads)
    recordings = choose(voice, data, every_clip)
    if keep is not None:
        _make_folder(keep)
    for sentence in missing_metrics():
        log.warning("%s", sentence)
    features = build(recordings, cache, voice.config, lambda i, n: progress("features", i, n))
    model = voice.model()
    slices = make_slices(features, model, torch.device("cpu"))
    everything = np.arange(len(features.names))
    bits = bits_per_sample(
        model,
        features,
        slices,
        everything,
        seconds_per_clip,
        lambda i, n: progress("bits per sample", i, n),
    )
    result: dict[str, Any] = {"bits_silence": None, "bits_voiced": None} | bits
    result["flac_bits"] = flac_bits(features, everything)
    some = _spread(clips, len(features.names))
    return result | copy_synthesis(vocoder, recordings, features, some, seed, keep, progress)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"can't make the folder {folder}: {error.strerror or error}") from None
