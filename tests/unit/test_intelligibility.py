import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from wavernn.audio import read_audio
from wavernn.config import MelConfig
from wavernn.train.baselines import griffin_lim
from wavernn.train.intelligibility import LOWEST_FIT, Aligner, Texts, missing_aligner, summary
from wavernn.train.transcripts import find_transcripts

RATE_HZ = 22_050
DEMO = Path(__file__).resolve().parents[2] / "checkpoints" / "samples" / "demo.npz"
SAID = "On the female side matters were much worse;"
OTHER = "The Middle Ages brought calligraphy to perfection"


@pytest.fixture(scope="session")
def aligner():
    pytest.importorskip("pocketsphinx")
    return Aligner()


@pytest.fixture(scope="session")
def demo_T():
    """A sentence that was read aloud, made from its mel."""
    return griffin_lim(np.load(DEMO)["mel"], MelConfig())


def test_a_text_is_split_into_words(aligner):
    assert aligner.words("He said: \"don’t\", the double-grated 'window' -- I.") == (
        ["he", "said", "don't", "the", "double", "grated", "window", "i"]
    )
    assert aligner.words(" ... ") == []
    assert aligner.unknown(["window", "xyzzyx", "1810"]) == ["xyzzyx", "1810"]


def test_speech_fits_its_own_text_and_no_other(aligner, demo_T):
    right = aligner.score(demo_T, RATE_HZ, aligner.words(SAID))
    wrong = aligner.score(demo_T, RATE_HZ, aligner.words(OTHER))
    swapped = aligner.score(demo_T, RATE_HZ, aligner.words(SAID)[::-1])
    assert wrong < LOWEST_FIT / 2
    assert swapped < LOWEST_FIT / 2
    assert 1.5 * LOWEST_FIT < right < 1


def test_noise_lowers_the_score(aligner, demo_T):
    words = aligner.words(SAID)
    hiss_T = np.random.default_rng(0).standard_normal(len(demo_T))
    scores = [
        aligner.score(demo_T + level * hiss_T, RATE_HZ, words) for level in (0, 0.02, 0.1, 0.5)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < LOWEST_FIT < scores[0]


def test_a_score_does_not_depend_on_what_came_before(aligner, demo_T):
    words = aligner.words(SAID)
    fresh = aligner.score(demo_T, RATE_HZ, words)
    aligner.score(0.1 * np.random.default_rng(0).standard_normal(30_000), RATE_HZ, ["window"])
    assert aligner.score(demo_T, RATE_HZ, words) == fresh


@pytest.mark.parametrize("samples", [1, 100, 400, 5000])
def test_where_nothing_is_said_the_score_is_0(aligner, samples):
    assert aligner.score(np.zeros(samples), RATE_HZ, ["on", "the", "female", "side"]) == 0


class Fake:
    """An aligner for which the score is the first sample."""

    def words(self, text):
        return text.lower().split()

    def unknown(self, words):
        return [word for word in words if word == "xyzzyx"]

    def score(self, samples_T, rate_hz, words):
        return float(samples_T[0])


def test_a_clip_is_compared_with_its_recording(caplog):
    caplog.set_level(logging.INFO)
    texts = Texts(Fake(), {"good": "a b", "odd": "a xyzzyx", "wrong": "c d"})
    tests = [np.array([0.2]), np.array([0.0])]
    assert texts.compare("good", np.array([0.5]), tests, RATE_HZ) == [(0.2, 0.5), (0.0, 0.5)]
    assert caplog.text == ""
    assert texts.compare("other", np.array([0.5]), tests, RATE_HZ) is None
    assert "not aligned: other has no transcript" in caplog.text
    assert texts.compare("odd", np.array([0.5]), tests, RATE_HZ) is None
    assert "not aligned: odd, not in the dictionary: xyzzyx" in caplog.text
    assert texts.compare("wrong", np.array([0.05]), tests, RATE_HZ) is None
    assert "the transcript of wrong doesn't fit its recording, which scores 0.050" in caplog.text


def test_ratios_are_summed_up_with_an_interval():
    pairs = [(0.1, 0.2), (0.3, 0.4), (0.0, 0.5), (0.6, 0.6)]
    result = summary(pairs)
    assert result["align"] == pytest.approx(0.25)
    assert result["align_reference"] == pytest.approx(0.425)
    assert result["align_ratio"] == pytest.approx((0.5 + 0.75 + 0 + 1) / 4)
    assert 0 < result["align_ratio_low"] < result["align_ratio"] < result["align_ratio_high"] < 1
    assert result["align_clips"] == 4
    assert summary(pairs) == result
    # a tighter one for more of the same
    more = summary(pairs * 10)
    assert more["align_ratio_low"] > result["align_ratio_low"]
    one = summary(pairs[:1])
    assert (one["align_ratio"], one["align_ratio_low"]) == (0.5, None)
    none = summary([])
    assert none.pop("align_clips") == 0
    assert set(none.values()) == {None}
    json.dumps(result)


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    assert "pocketsphinx isn't installed" in missing_aligner()


def test_real_clips_fit_their_own_texts_and_no_others(aligner, speech_dir):
    paths = {path.stem: path for path in sorted(speech_dir.glob("LJ*.flac"))[:40:3]}
    words = {name: aligner.words(text) for name, text in find_transcripts(paths).items()}
    names = [name for name in words if not aligner.unknown(words[name])]
    assert len(names) > 5
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        samples_T = read_audio(paths[name], RATE_HZ)
        assert aligner.score(samples_T, RATE_HZ, words[name]) > 1.5 * LOWEST_FIT
        assert aligner.score(samples_T, RATE_HZ, words[other]) < LOWEST_FIT
