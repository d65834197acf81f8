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


def choose(voice: Checkpoint, data: Path, every_clip: bool) -> list[Path]:
    """The recordings to judge by: those held out when the voice was trained, where there are any.

    A folder that holds none of them is taken whole, since it's then of other recordings; with
    `every_clip` any folder is. Raises DataError for a file or an empty folder.
    """
    found = find_recordings(data)
    held_out = set(voice.provenance.get("held_out", ()))
    unseen = [path for path in found if path.stem in held_out]
    if every_clip or not unseen:
        log.info("judging by all %d recordings in %s", len(found), data)
        return found
    log.info("judging by %d recordings that were held out from training", len(unseen))
    return unseen


def _spread(count: int, of: int) -> list[int]:
    """Indices of `count` items spread over `of`."""
    return (
        [int((i + 0.5) * of / count) for i in range(min(count, of))] if count < of else [*range(of)]
    )


def copy_synthesis(
    voice: Checkpoint,
    paths: list[Path],
    features: Features,
    vocoder: Vocoder,
    seed: int,
    keep: Path | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Speaks clips from their own mels and compares: means of `metrics.compare`, and the speed."""
    mel_config = voice.config.mel
    rows: list[dict[str, float | None]] = []
    made_s, spent_s = 0.0, 0.0
    by_stem = {path.stem: path for path in paths}
    for done, name in enumerate(features.names):
        progress(done, len(features.names))
        first, frames = int(features.first[done]), int(features.frames[done])
        started = time.perf_counter()
        test_T = vocoder.synthesize(np.array(features.mel_NM[first : first + frames]), seed)
        spent_s += time.perf_counter() - started
        made_s += len(test_T) / mel_config.rate_hz
        reference_T = read_audio(by_stem[name], mel_config.rate_hz)
        rows.append(compare(reference_T, test_T[: len(reference_T)], mel_config))
        if keep is not None:
            write_audio(keep / f"{name}.flac", test_T[: len(reference_T)], mel_config.rate_hz)
    progress(len(features.names), len(features.names))
    result: dict[str, Any] = {}
    for key in rows[0]:
        known = [row[key] for row in rows if row[key] is not None]
        result[key] = float(np.mean(known)) if known else None  # type: ignore[arg-type]
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
    progress: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> dict[str, Any]:
    """Judges a voice: the keys of `wavernn eval --json`, None where a metric can't be had.

    Bits per sample are taken over all chosen recordings (at most `seconds_per_clip` of each),
    copy synthesis over `clips` of them, spread evenly; `keep` receives what was synthesised.
    """
    if clips < 1:
        raise DataError(f"clips must be at least 1, got {clips}")
    paths = choose(voice, data, every_clip)
    features = build(paths, cache, voice.config, lambda i, n: progress("features", i, n))
    model = voice.model()
    slices = make_slices(features, model, torch.device("cpu"))
    everything = np.arange(len(features.names))
    progress("bits per sample", 0, 1)
    result: dict[str, Any] = bits_per_sample(model, features, slices, everything, seconds_per_clip)
    result["flac_bits"] = flac_bits(features, everything)
    progress("bits per sample", 1, 1)
    for sentence in missing_metrics():
        log.warning("%s", sentence)
    by_stem = {path.stem: path for path in paths}
    some = [by_stem[features.names[i]] for i in _spread(clips, len(features.names))]
    few = build(some, cache, voice.config)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    vocoder = Vocoder(voice, backend)
    return result | copy_synthesis(
        voice, some, few, vocoder, seed, keep, lambda i, n: progress("copy synthesis", i, n)
    )
