"""Recordings with their texts, phone by phone: what an acoustic model is trained on.

Made once and kept in the run's folder, as it takes a while to align.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavernn.acoustic_config import AcousticConfig
from wavernn.audio import read_audio
from wavernn.config import Config
from wavernn.errors import DataError, TextError
from wavernn.files import write_atomic
from wavernn.symbols import START, Alphabet, split
from wavernn.text import PAUSES, WORD_BREAK, Clause, FrontEnd
from wavernn.train import features
from wavernn.train.alignment import PHONE_STATES, Text, align, cepstra
from wavernn.train.features import SILENCE, Features
from wavernn.train.pitch import pitch
from wavernn.train.transcripts import find_transcripts

log = logging.getLogger(__name__)

# raise it when the same recordings and texts give other arrays
FORMAT = 1


@dataclass(frozen=True)
class Utterance:
    """A recording and its text. Letters: `J` tokens, with START as the first; `N` frames."""

    name: str
    tokens: tuple[str, ...]
    # symbol and stress
    ids_J2: np.ndarray
    speaker: int
    # first row of the features' mel, and how many frames each token lasts
    first: int
    duration_J: np.ndarray
    # natural log of the fundamental in Hz over the token's voiced frames; NaN if there are none
    pitch_J: np.ndarray
    # mean log-mel; NaN for a token without frames
    energy_J: np.ndarray

    @property
    def frames(self) -> int:
        """N, length of the mel."""
        return int(self.duration_J.sum())


@dataclass(frozen=True)
class Corpus:
    """All utterances, in order of name."""

    features: Features
    alphabet: Alphabet
    speakers: tuple[str, ...]
    utterances: list[Utterance]
    # of the texts as tokens
    text_sha256: str

    def mel(self, utterance: Utterance) -> np.ndarray:
        """The recording's mel [N, M]."""
        return self.features.mel_NM[utterance.first : utterance.first + utterance.frames]


Progress = Callable[[str, int, int], None]


def build(
    data: Path, cache: Path, config: AcousticConfig, progress: Progress = lambda *_: None
) -> Corpus:
    """Reads a folder of recordings with transcripts, aligns them, or opens what was kept.

    A first folder level names speakers where there are several. Recordings without a text, or too
    short for it, are named in the log and left out. Raises DataError if fewer than two remain, and
    TextError where the front end can't run.
    """
    recordings = features.find_recordings(data)
    texts = find_transcripts(recordings)
    if not texts:
        raise DataError(
            f"{data} holds no transcripts; expected NAME.txt beside each recording or a "
            "metadata.csv of lines NAME|TEXT"
        )
    for name in recordings.keys() - texts.keys():
        log.warning("left out: %s has no transcript", name)
    recordings = {name: path for name, path in recordings.items() if name in texts}
    arrays = features.build(
        recordings, cache, Config(mel=config.mel), lambda done, all: progress("features", done, all)
    )
    clauses = _clauses(texts, config.phonemizer, progress)
    names = [name for name in arrays.names if name in clauses]
    if len(names) < 2:
        raise DataError(f"expected at least 2 recordings with a text, got {len(names)} in {data}")
    alphabet = Alphabet.of(t for clause in clauses.values() for t in clause.tokens)
    digest = hashlib.sha256(json.dumps([(n, clauses[n].tokens) for n in names]).encode())
    made_of = FORMAT, arrays.data_sha256, digest.hexdigest(), config.mel, config.train.align_rounds
    place = cache / f"alignment-{hashlib.sha256(str(made_of).encode()).hexdigest()[:16]}.npz"
    if not place.exists():
        kept = _align(arrays, names, clauses, alphabet, config, progress)
        pitches = _pitch(arrays, recordings, list(kept), progress)
        buffer = io.BytesIO()
        lengths = np.array([len(kept[name]) for name in kept])
        np.savez(
            buffer,
            names=np.array(list(kept)),
            lengths=lengths,
            durations=np.concatenate(list(kept.values())),
            pitches=np.concatenate(pitches),
        )
        write_atomic(place, buffer.getvalue())
    with np.load(place, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    speakers = sorted({_speaker(name, config) for name in found["names"].tolist()})
    cuts = np.cumsum(found["lengths"])[:-1]
    utterances = []
    log_hz_N = found["pitches"]
    begin = 0
    for name, duration_J in zip(
        found["names"].tolist(), np.split(found["durations"], cuts), strict=True
    ):
        N = int(duration_J.sum())
        first = int(arrays.first[arrays.names.index(name)])
        tokens = (START, *clauses[name].tokens)
        utterances.append(
            Utterance(
                name=name,
                tokens=tokens,
                ids_J2=alphabet.encode(clauses[name].tokens),
                speaker=speakers.index(_speaker(name, config)),
                first=first,
                duration_J=duration_J,
                pitch_J=_token_means(log_hz_N[begin : begin + N], duration_J),
                energy_J=_token_means(arrays.mel_NM[first : first + N].mean(1), duration_J),
            )
        )
        begin += N
    return Corpus(arrays, alphabet, tuple(speakers), utterances, digest.hexdigest())


def _speaker(name: str, config: AcousticConfig) -> str:
    folder, slash, _ = name.partition("/")
    return folder if slash else config.name


def _clauses(texts: dict[str, str], phonemizer: str, progress: Progress) -> dict[str, Clause]:
    front = FrontEnd(phonemizer)
    clauses = {}
    for done, (name, text) in enumerate(texts.items()):
        progress("phones", done, len(texts))
        try:
            clauses[name] = front.clause(text)
        except TextError as error:
            log.warning("left out: %s: %s", name, error)
    progress("phones", len(texts), len(texts))
    return clauses


def _align(
    arrays: Features,
    names: list[str],
    clauses: dict[str, Clause],
    alphabet: Alphabet,
    config: AcousticConfig,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Durations of the tokens of each recording that is long enough for its text."""
    number = {symbol: k for k, symbol in enumerate(alphabet.symbols)}
    frames: dict[str, np.ndarray] = {}
    silent: list[np.ndarray] = []
    texts: list[Text] = []
    for name in names:
        clip = arrays.names.index(name)
        first, N = int(arrays.first[clip]), int(arrays.frames[clip])
        symbols = [split(token)[0] for token in (START, *clauses[name].tokens)]
        kinds = [1 if s == WORD_BREAK else 2 if s == START or s in PAUSES else 0 for s in symbols]
        if PHONE_STATES * kinds.count(0) > N:
            log.warning("left out: %s is too short for its text", name)
            continue
        frames[name] = cepstra(arrays.mel_NM[first : first + N])
        silent.append(arrays.label_N[first : first + N] == SILENCE)
        texts.append(Text(np.array([number[s] for s in symbols]), np.array(kinds)))
    durations = align(
        list(frames.values()),
        silent,
        texts,
        len(number),
        config.train.align_rounds,
        lambda done, all: progress("alignment", done, all),
    )
    return dict(zip(frames, durations, strict=True))


def _pitch(
    arrays: Features, recordings: dict[str, Path], names: list[str], progress: Progress
) -> list[np.ndarray]:
    """Natural log of the fundamental of each recording's frames, NaN where there's none."""
    rows = []
    for done, name in enumerate(names):
        progress("pitch", done, len(names))
        samples_T = read_audio(recordings[name], arrays.rate_hz)
        hz_N, voiced_N = pitch(samples_T, arrays.rate_hz, arrays.hop_samples)
        N = int(arrays.frames[arrays.names.index(name)])
        log_hz_N = np.where(voiced_N, np.log(np.where(voiced_N, hz_N, 1.0)), np.nan)[:N]
        rows.append(np.pad(log_hz_N, (0, N - len(log_hz_N)), constant_values=np.nan))
    progress("pitch", len(names), len(names))
    return rows


def _token_means(x_N: np.ndarray, duration_J: np.ndarray) -> np.ndarray:
    """Means over each token's frames that aren't NaN; NaN where there are none."""
    token_N = np.repeat(np.arange(len(duration_J)), duration_J)
    good_N = np.isfinite(x_N)
    count_J = np.bincount(token_N[good_N], minlength=len(duration_J))
    sum_J = np.bincount(token_N[good_N], x_N[good_N], minlength=len(duration_J))
    return np.where(count_J > 0, sum_J / np.maximum(count_J, 1), np.nan)
