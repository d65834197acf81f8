"""Copy synthesis: clips said again from their own mels, each compared with its recording."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wavernn.audio import read_audio, write_audio
from wavernn.config import MelConfig
from wavernn.train import metrics
from wavernn.train.features import Features
from wavernn.train.intelligibility import Texts, summary

# a mel [N, M] and the recording that it's of, float32 [T], to samples [T] or a little more
Speaker = Callable[[np.ndarray, np.ndarray], np.ndarray]
# a clip's name, its recording, and what each speaker made of it with its scores
Show = Callable[[str, np.ndarray, dict[str, "Said"]], None]


@dataclass(frozen=True)
class Said:
    """A clip as a speaker said it, cut to the length of its recording."""

    samples_T: np.ndarray
    # values of `metrics.compare`, and `align` where the clip could be aligned
    scores: dict[str, float | None]


@dataclass
class _Tally:
    """What is known of a speaker so far."""

    rows: list[dict[str, float | None]] = field(default_factory=list)
    # scores of the alignment, of the speaker and of the recording
    aligned: list[tuple[float, float]] = field(default_factory=list)
    made_s: float = 0.0
    spent_s: float = 0.0

    def result(self) -> dict[str, Any]:
        means: dict[str, Any] = {}
        for key in self.rows[0]:
            known = [value for row in self.rows if (value := row[key]) is not None]
            means[key] = float(np.mean(known)) if known else None
        own, reference = means.get("silence_db"), means.get("silence_reference_db")
        above = None if own is None or reference is None else own - reference
        means |= {"silence_above_db": above} | summary(self.aligned)
        return means | {"realtime_factor": self.made_s / self.spent_s, "clips": len(self.rows)}


def copy_synthesis(
    speakers: Mapping[str, Speaker],
    recordings: Mapping[str, Path],
    features: Features,
    mel: MelConfig,
    clips: Sequence[int],
    texts: Texts | None,
    keep: Path | None,
    show: Show | None,
    progress: Callable[[str, int, int], None],
) -> dict[str, dict[str, Any]]:
    """Lets every speaker say the clips and returns, for each, means of `metrics.compare`.

    Beside them: `silence_above_db`, silence_db less the recording's; those of
    `intelligibility.summary`; the speed. `keep` receives a file a clip, those of all speakers but
    the first with the speaker's name.
    """
    tallies = {speaker: _Tally() for speaker in speakers}
    for done, clip in enumerate(clips):
        progress("copy synthesis", done, len(clips))
        name = features.names[clip]
        first, frames = int(features.first[clip]), int(features.frames[clip])
        mel_NM = np.array(features.mel_NM[first : first + frames])
        reference_T = read_audio(recordings[name], mel.rate_hz)
        said: dict[str, Said] = {}
        for number, (speaker, say) in enumerate(speakers.items()):
            started = time.perf_counter()
            test_T = say(mel_NM, reference_T)
            tallies[speaker].spent_s += time.perf_counter() - started
            tallies[speaker].made_s += len(test_T) / mel.rate_hz
            test_T = test_T[: len(reference_T)]
            said[speaker] = Said(test_T, metrics.compare(reference_T, test_T, mel))
            tallies[speaker].rows.append(dict(said[speaker].scores))
            if keep is not None:
                of = f".{speaker}" if number else ""
                write_audio(keep / f"{name.replace('/', '_')}{of}.flac", test_T, mel.rate_hz)
        if texts is not None:
            tests = [one.samples_T for one in said.values()]
            pairs = texts.compare(name, reference_T, tests, mel.rate_hz) or []
            for speaker, pair in zip(said, pairs, strict=False):
                tallies[speaker].aligned.append(pair)
                said[speaker].scores["align"] = pair[0]
        if show is not None:
            show(name, reference_T, said)
    progress("copy synthesis", len(clips), len(clips))
    return {speaker: tally.result() for speaker, tally in tallies.items()}
