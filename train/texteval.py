"""How well speech from text is understood by a recogniser, beside copy synthesis and recordings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavernn.audio import read_audio, resample, write_audio
from wavernn.errors import DataError
from wavernn.narration import Narrator
from wavernn.synthesis import recording_mel
from wavernn.train.evaluate import choose, make_folder, spread
from wavernn.train.intelligibility import LOWEST_FIT, RATE_HZ, Aligner, missing_aligner
from wavernn.train.transcripts import find_transcripts
from wavernn.vocoder import Vocoder

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

# lists 1 and 2 of the Harvard sentences (IEEE Recommended Practice for Speech Quality
# Measurements, 1969, appendix C); no model here has seen them
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
)


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words that were left out, put in or exchanged: the edit distance."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


class Recogniser:
    """pocketsphinx with its own language model of American English."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder: Any = Decoder(loglevel="FATAL")

    def words(self, samples_T: np.ndarray, rate_hz: int) -> list[str]:
        """The words heard in samples in [-1, 1]."""
        samples_T = resample(np.asarray(samples_T, np.float32), rate_hz, RATE_HZ)
        values_T = np.clip(np.rint(samples_T * 32768.0), -32768, 32767).astype(np.int16)
        decoder = self._decoder
        # its noise removal would go on from the recording before
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(values_T.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return str(hypothesis.hypstr).split() if hypothesis is not None else []


def evaluate_text(
    vocoder: Vocoder,
    narrator: Narrator,
    data: Path,
    clips: int = 12,
    seed: int = 0,
    temperature: float = 1.0,
    keep: Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> dict[str, Any]:
    """Judges speech from text: the keys of `wavernn eval-text --json`.

    `wer` has the word error rate of the recordings that were held out, of their copy synthesis and
    of their texts' synthesis. `accepted` counts the sentences whose own text is found in their
    speech, `rejected` those in which another sentence isn't. `keep` receives what was synthesised.
    Raises DataError where there are no transcripts or pocketsphinx isn't installed.
    """
    if missing_aligner():
        raise DataError("text is judged by pocketsphinx: pip install 'wavernn[eval]'")
    recordings = choose(vocoder.voice, data, every_clip=False)
    texts = find_transcripts(recordings)
    names = [name for name in recordings if name in texts]
    if not names:
        raise DataError(f"{data} holds no transcripts; expected a metadata.csv or NAME.txt files")
    if keep is not None:
        make_folder(keep)

    def speak(text: str) -> np.ndarray:
        return np.concatenate(list(vocoder.stream(narrator.frames(text), seed, temperature)))

    chosen = [names[i] for i in spread(clips, len(names))]
    result = {"clips": len(chosen)} | _word_error_rates(
        {name: (recordings[name], texts[name]) for name in chosen},
        vocoder,
        speak,
        seed,
        temperature,
        keep,
        progress,
    )
    return result | _alignments(speak, vocoder.rate_hz, keep, progress)


def _word_error_rates(
    clips: Mapping[str, tuple[Path, str]],
    vocoder: Vocoder,
    speak: Callable[[str], np.ndarray],
    seed: int,
    temperature: float,
    keep: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    recogniser, aligner, rate_hz = Recogniser(), Aligner(), vocoder.rate_hz
    errors = dict.fromkeys(("recording", "copy_synthesis", "text"), 0)
    total = 0
    for done, (name, (path, text)) in enumerate(clips.items()):
        progress("recognition", done, len(clips))
        samples_T = read_audio(path, rate_hz)
        copied_T = vocoder.synthesize(recording_mel(samples_T, vocoder.voice), seed, temperature)
        spoken_T = speak(text)
        said = aligner.words(text)
        total += len(said)
        for label, heard_T in zip(errors, (samples_T, copied_T, spoken_T), strict=True):
            errors[label] += word_errors(said, recogniser.words(heard_T, rate_hz))
        if keep is not None:
            write_audio(keep / f"{Path(name).name}-text.flac", spoken_T, rate_hz)
    progress("recognition", len(clips), len(clips))
    return {"words": total, "wer": {label: count / total for label, count in errors.items()}}


def _alignments(
    speak: Callable[[str], np.ndarray], rate_hz: int, keep: Path | None, progress: Progress
) -> dict[str, Any]:
    aligner = Aligner()
    right_S, wrong_S = [], []
    for done, text in enumerate(SENTENCES):
        progress("alignment", done, len(SENTENCES))
        spoken_T = speak(text)
        other = SENTENCES[(done + 1) % len(SENTENCES)]
        right_S.append(aligner.score(spoken_T, rate_hz, aligner.words(text)))
        wrong_S.append(aligner.score(spoken_T, rate_hz, aligner.words(other)))
        if keep is not None:
            write_audio(keep / f"sentence-{done + 1:02d}.flac", spoken_T, rate_hz)
    progress("alignment", len(SENTENCES), len(SENTENCES))
    scores = zip(SENTENCES, right_S, wrong_S, strict=True)
    return {
        "sentences": len(SENTENCES),
        "accepted": sum(score >= LOWEST_FIT for score in right_S),
        "rejected": sum(score < LOWEST_FIT for score in wrong_S),
        "align_right": math.fsum(right_S) / len(SENTENCES),
        "align_wrong": math.fsum(wrong_S) / len(SENTENCES),
        "scores": [{"text": text, "right": r, "wrong": w} for text, r, w in scores],
    }
