"""From a file that a user names to speech: reading, refusing what doesn't fit, writing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from wavernn.audio import read_audio, write_audio
from wavernn.checkpoint import Checkpoint
from wavernn.dialect import recognise
from wavernn.errors import AudioError, MelError
from wavernn.mel import LogMel
from wavernn.melfile import SUFFIXES, read_mel
from wavernn.recording import doctor_recording
from wavernn.specification import declared_mismatch
from wavernn.vocoder import Vocoder


def _statistics(voice: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    mean_M, deviation_M = (
        voice.tensors[f"conditioner.{name}"].numpy() for name in ("mean_M", "deviation_M")
    )
    return mean_M, deviation_M


def input_mel(source: Path, voice: Checkpoint) -> np.ndarray:
    """Reads a mel [N, M] for a voice from a mel file, or makes it from a recording.

    Raises MelError where the mel's declared or evident specification isn't the voice's, AudioError
    where the recording can't be used.
    """
    if source.suffix.lower() in SUFFIXES:
        array, declared = read_mel(source)
        return fitted_mel(array, declared, voice, str(source))
    return recording_mel(read_audio(source, voice.config.mel.rate_hz), voice)


def fitted_mel(
    array: np.ndarray, declared: Mapping[str, object], voice: Checkpoint, name: str
) -> np.ndarray:
    """Arranges an array as a mel [N, M] for a voice; errors call it `name`.

    Raises MelError where its declared or evident specification isn't the voice's.
    """
    config = voice.config.mel
    problems = declared_mismatch(declared, config)
    if problems:
        raise MelError(f"{name} doesn't fit this voice: {' '.join(problems)}")
    finding = recognise(array, config, _statistics(voice))
    if not finding.fits or finding.convert is None:
        raise MelError(f"{name} doesn't fit this voice: {finding.sentence}")
    return finding.convert(array)


def recording_mel(audio_T: np.ndarray, voice: Checkpoint) -> np.ndarray:
    """Makes the mel [N, M] that a voice takes from samples at its rate."""
    config = voice.config.mel
    with torch.no_grad():
        mel_NM: np.ndarray = LogMel(config)(torch.from_numpy(audio_T)[None])[0].numpy()
    return mel_NM


def examine(source: Path, voice: Checkpoint) -> tuple[bool, list[str]]:
    """Says whether a file fits a voice, and every finding in a sentence; for `wavernn doctor`."""
    import soundfile

    config = voice.config.mel
    if source.suffix.lower() in SUFFIXES:
        array, declared = read_mel(source)
        problems = declared_mismatch(declared, config)
        finding = recognise(array, config, _statistics(voice))
        return finding.fits and not problems, [*problems, finding.sentence]
    # the voice's own rate first: its errors name what is wrong with the file
    read_audio(source, config.rate_hz)
    rate_hz = soundfile.info(source).samplerate
    sentences = doctor_recording(read_audio(source, rate_hz), rate_hz, config, _statistics(voice))
    return True, sentences or ["The recording fits this voice."]


def to_file(
    vocoder: Vocoder,
    mels: Iterable[np.ndarray],
    out: Path,
    seed: int,
    temperature: float,
    progress: Callable[[int], None] = lambda done: None,
) -> str:
    """Speaks mels into an audio file, which appears whole; returns a sentence on the speed.

    `progress` is told how many samples there are.
    """
    check_target(out)
    started, parts, done = time.perf_counter(), [], 0
    for samples_T in vocoder.stream(mels, seed, temperature):
        parts.append(samples_T)
        done += len(samples_T)
        progress(done)
    spent_s = time.perf_counter() - started
    write_audio(out, np.concatenate(parts), vocoder.rate_hz)
    seconds = done / vocoder.rate_hz
    return (
        f"{out}: {seconds:.2f} s of speech in {spent_s:.2f} s, "
        f"real-time factor {seconds / spent_s:.3g}"
    )


def check_target(out: Path) -> None:
    """Raises AudioError for a place that `write_audio` would refuse, before the work is done."""
    from wavernn.audio import FORMATS

    if out.suffix.removeprefix(".").lower() not in FORMATS:
        raise AudioError(
            f"unknown audio format {out.suffix!r} of {out}; known: {', '.join(FORMATS)}"
        )
    if not out.parent.is_dir():
        raise AudioError(f"the folder {out.parent} doesn't exist; make it first")
    if out.is_dir():
        raise AudioError(f"{out} is a folder; give the path of the file to write")


def to_stdout(stream: Iterable[np.ndarray]) -> None:
    """Writes signed 16-bit little-endian samples to stdout as they are made."""
    for samples_T in stream:
        # rounded as in a file, and within 16 bit already
        sys.stdout.buffer.write(np.rint(samples_T * 32768).astype("<i2").tobytes())
        sys.stdout.buffer.flush()
