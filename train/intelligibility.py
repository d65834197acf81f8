"""How well a recogniser finds a known text in a recording: pocketsphinx's forced alignment.

Its models are of American English and come with the package.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wavernn.audio import resample

log = logging.getLogger(__name__)

# what the acoustic model was trained at
RATE_HZ = 16_000
# A recording that scores less doesn't say its transcript: 49 clips of LJ Speech scored 0.22 and
# more with their own text, at most 0.07 with that of another clip.
LOWEST_FIT = 0.12
# a likelihood too small for a float
SMALLEST = 1e-300
DRAWS = 10_000


def missing_aligner() -> str | None:
    """Says in a sentence why intelligibility can't be judged here, or None if it can."""
    if importlib.util.find_spec("pocketsphinx") is not None:
        return None
    return (
        "the alignment with the transcripts is left out, since the package pocketsphinx isn't "
        "installed: pip install 'wavernn[eval]'"
    )


class Aligner:
    """Scores recordings against their text, with the recogniser's own settings.

    The score of a recording is the geometric mean, over the frames of 10 ms that the alignment
    gives to words, of the likelihood of the state that the text puts there over that of the most
    likely state in the search; so it's in (0, 1]. It's 0 where the text can't be aligned at all.
    """

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder: Any = Decoder(lm=None, loglevel="FATAL")

    def words(self, text: str) -> list[str]:
        """Splits a text into words, in lower case and without punctuation."""
        plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        return [word for part in re.findall(r"[\w']+", plain) if (word := part.strip("'"))]

    def unknown(self, words: Sequence[str]) -> list[str]:
        """The words that the dictionary doesn't have, which can't be aligned."""
        return [word for word in words if self._decoder.lookup_word(word) is None]

    def score(self, samples_T: np.ndarray, rate_hz: int, words: Sequence[str]) -> float:
        """Aligns known words, at least one, with a recording in [-1, 1]; 0 .. 1.

        The same input gives the same score, whatever was aligned before.
        """
        samples_T = resample(np.asarray(samples_T, dtype=np.float32), rate_hz, RATE_HZ)
        values_T = np.clip(np.rint(samples_T * 32768.0), -32768, 32767).astype(np.int16)
        decoder = self._decoder
        # its noise removal would go on from the recording before
        decoder.reinit_feat()
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        decoder.process_raw(values_T.tobytes(), full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return 0.0
        # the rest is silence, whose markers aren't words
        said = [part for part in decoder.seg() if part.word[0] not in "<["]
        if len(said) != len(words):
            return 0.0
        frames = sum(part.end_frame - part.start_frame + 1 for part in said)
        nats = sum(math.log(max(part.ascore, SMALLEST)) for part in said)
        return math.exp(nats / frames)


class Texts:
    """The words of clips that can be judged: those whose own recordings say them."""

    def __init__(self, aligner: Aligner, transcripts: Mapping[str, str]) -> None:
        self._aligner = aligner
        self._transcripts = transcripts

    def compare(
        self, name: str, reference_T: np.ndarray, tests: Sequence[np.ndarray], rate_hz: int
    ) -> list[tuple[float, float]] | None:
        """Scores recordings of a clip: for each its score, and the score of the reference.

        None, with the reason in the log, where the clip has no text, the text holds a word that
        isn't in the dictionary, or the reference doesn't say it.
        """
        text = self._transcripts.get(name)
        words = self._aligner.words(text) if text else []
        if not words:
            log.info("not aligned: %s has no transcript", name)
            return None
        if unknown := self._aligner.unknown(words):
            log.info("not aligned: %s, not in the dictionary: %s", name, ", ".join(unknown))
            return None
        reference = self._aligner.score(reference_T, rate_hz, words)
        if reference < LOWEST_FIT:
            log.warning(
                "not aligned: the transcript of %s doesn't fit its recording, which scores "
                "%.3f where %.2f is the least",
                name,
                reference,
                LOWEST_FIT,
            )
            return None
        return [(self._aligner.score(test_T, rate_hz, words), reference) for test_T in tests]


def summary(pairs: Sequence[tuple[float, float]]) -> dict[str, float | int | None]:
    """Sums up the scores of clips, each beside its recording's.

    `align` and `align_reference` are means. `align_ratio` is the mean over the clips of the
    quotient, `align_ratio_low` and `_high` its 95 % interval by a bootstrap over the clips.
    """
    keys = ("align", "align_reference", "align_ratio", "align_ratio_low", "align_ratio_high")
    means: dict[str, float | None] = dict.fromkeys(keys)
    if pairs:
        score_N, reference_N = np.array(pairs).T
        ratio_N = score_N / reference_N
        means |= {
            "align": float(score_N.mean()),
            "align_reference": float(reference_N.mean()),
            "align_ratio": float(ratio_N.mean()),
        }
        if len(pairs) > 1:
            drawn = np.random.default_rng(0).integers(0, len(pairs), (DRAWS, len(pairs)))
            low, high = np.percentile(ratio_N[drawn].mean(1), [2.5, 97.5])
            means |= {"align_ratio_low": float(low), "align_ratio_high": float(high)}
    return means | {"align_clips": len(pairs)}
