"""How good a voice is on recordings: bits per sample, and copy synthesis beside the original.

Other voices, Griffin-Lim and WORLD may be judged by the same clips in the same run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import DataError
from wavernn.train import baselines as other_vocoders
from wavernn.train import page as pages
from wavernn.train.copysynthesis import Speaker, copy_synthesis
from wavernn.train.features import build, find_recordings
from wavernn.train.intelligibility import Aligner, Texts, missing_aligner
from wavernn.train.metrics import missing_metrics
from wavernn.train.transcripts import find_transcripts
from wavernn.train.validate import bits_per_sample, flac_bits, make_slices
from wavernn.vocoder import Vocoder

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


def spread(count: int, of: int) -> list[int]:
    """Indices of at most `count` items spread over `of`."""
    count = min(count, of)
    return [int((i + 0.5) * of / count) for i in range(count)]


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
    baselines: bool = False,
    others: Mapping[str, Checkpoint] | None = None,
    html: Path | None = None,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Judges a voice: the keys of `wavernn eval --json`, None where a metric can't be had.

    Bits per sample are taken over all chosen recordings (at most `seconds_per_clip` of each),
    copy synthesis over `clips` of them, spread evenly; `keep` receives what was synthesised, and
    `html` a page to look and listen at it. With `baselines` or `others` the result has the same
    keys for other vocoders under "baselines", and for other voices, by name, under "compare".
    `temperature` is that of copy synthesis; bits per sample are those at 1.
    """
    if clips < 1:
        raise DataError(f"clips must be at least 1, got {clips}")
    # what can't run or be written is to be known before the long work
    voices = _voices(voice, others or {})
    vocoders = {name: Vocoder(v, backend, format, threads) for name, v in voices.items()}
    recordings = choose(voice, data, every_clip)
    texts = _texts(recordings)
    if html is not None:
        pages.check_target(html)
    if keep is not None:
        make_folder(keep)
    for sentence in (*missing_metrics(), *(other_vocoders.missing() if baselines else ())):
        log.warning("%s", sentence)
    bits = {
        name: _bits(v, recordings, cache, seconds_per_clip, progress, name if others else "")
        for name, v in voices.items()
    }
    features = build(recordings, cache, voice.config)
    speakers = {name: _speaker(vocoder, seed, temperature) for name, vocoder in vocoders.items()}
    more = other_vocoders.speakers(voice.config.mel, seed) if baselines else {}
    page = pages.Page(voice.config.mel) if html is not None else None
    judged = copy_synthesis(
        speakers | more,
        recordings,
        features,
        voice.config.mel,
        spread(clips, len(features.names)),
        texts,
        keep,
        page.add if page is not None else None,
        progress,
    )
    result, *rest = (bits[name] | judged[name] for name in voices)
    if more:
        result["baselines"] = {name: judged[name] for name in more}
    if rest:
        result["compare"] = dict(zip(list(voices)[1:], rest, strict=True))
    if page is not None and html is not None:
        page.write(html, voices, result)
    return result


def _voices(voice: Checkpoint, others: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """All voices by name; checks that they take the same mels and can be told apart."""
    own = voice.config.name
    for name, other in others.items():
        if other.config.mel != voice.config.mel:
            raise DataError(f"{name} takes another mel than {own}; compare voices of one mel")
        if name == own:
            raise DataError(f"two voices are called {name}; give one file another name")
    for name in (own, *others):
        if name in other_vocoders.NAMES:
            raise DataError(f"a voice can't be called {name}, as another vocoder is; rename it")
    return {own: voice, **others}


def _texts(recordings: Mapping[str, Path]) -> Texts | None:
    transcripts = find_transcripts(recordings)
    if not transcripts:
        log.info("no transcripts lie beside the recordings, so nothing is aligned with them")
        return None
    if sentence := missing_aligner():
        log.warning("%s", sentence)
        return None
    return Texts(Aligner(), transcripts)


def _bits(
    voice: Checkpoint,
    recordings: dict[str, Path],
    cache: Path,
    seconds_per_clip: float,
    progress: Progress,
    name: str,
) -> dict[str, Any]:
    """Bits per sample of a voice over all recordings, beside FLAC's."""
    of = f" of {name}" if name else ""
    features = build(recordings, cache, voice.config, lambda i, n: progress(f"features{of}", i, n))
    model = voice.model()
    everything = np.arange(len(features.names))
    bits = bits_per_sample(
        model,
        features,
        make_slices(features, model, torch.device("cpu")),
        everything,
        seconds_per_clip,
        lambda i, n: progress(f"bits per sample{of}", i, n),
    )
    result: dict[str, Any] = {"bits_silence": None, "bits_voiced": None} | bits
    result["flac_bits"] = flac_bits(features, everything)
    return result | {"bits_below_flac": result["flac_bits"] - result["bits_per_sample"]}


def _speaker(vocoder: Vocoder, seed: int, temperature: float) -> Speaker:
    return lambda mel_NM, samples_T: vocoder.synthesize(mel_NM, seed, temperature)


def make_folder(folder: Path) -> None:
    """Makes a folder for what is to be kept; raises DataError where it can't."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"can't make the folder {folder}: {error.strerror or error}") from None
