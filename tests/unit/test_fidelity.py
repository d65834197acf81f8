from dataclasses import replace

import numpy as np
import pytest

from wavernn import kernels
from wavernn.config import Config, MelConfig, ModelConfig
from wavernn.kernels import cpu_subscale, example, fidelity
from wavernn.kernels.bench import random_voice
from wavernn.melfile import read_mel

SMALL = ModelConfig(hidden=32, projection=16, embedding=2, channels=4, layers=0)


@pytest.fixture(autouse=True)
def engine_is_there(absent):
    if reason := kernels.unavailable("cpu"):
        absent("cpu", reason)


@pytest.fixture(scope="module")
def voice():
    return random_voice(Config("small", model=SMALL))


def test_a_divergence_by_hand():
    p, q = np.log([[0.5, 0.5], [0.25, 0.75]]), np.log([[0.5, 0.5], [0.5, 0.5]])
    kl = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    # logits may be shifted
    assert fidelity.divergence(p + 3, q - 1) == pytest.approx([0, kl])


def test_a_likelihood_by_hand():
    logits = np.log([[0.5, 0.5], [0.25, 0.75]]) + 2
    nll = fidelity.likelihood(logits, np.array([1, 0], np.uint8))
    assert nll == pytest.approx([np.log(2), np.log(4)])


def test_nibbles_by_hand():
    p, q = np.log([[[0.5, 0.5], [0.25, 0.75]]]), np.log([[[0.5, 0.5], [0.5, 0.5]]])
    kl = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert fidelity.divergence(p, q) == pytest.approx([kl])
    logits = np.zeros((1, 2, 16))
    logits[0, 1, 3] = np.log(5)
    # 15 levels of 1 and one of 5
    nll = fidelity.likelihood(logits, np.array([0x73], np.uint8))
    assert nll == pytest.approx([np.log(16) + np.log(20 / 5)])


def test_a_voice_is_judged(voice):
    table = fidelity.check(voice, seconds=0.05, reference_s=0.02)
    # 4 frames of 256, of which 6 rows of 64 are 441 samples and less
    assert (table["samples"], table["codes_compared"]) == (4 * 256, 7 * 64)
    assert table["codes_equal"] == table["codes_compared"]
    assert 0 < table["kl_coarse"] < table["kl_limit"] == 1e-3
    assert 0 < table["kl_fine"] < 1e-2
    for half in ("coarse", "fine"):
        assert abs(table[f"nll_change_{half}"]) < table[f"nll_difference_{half}"] < 0.1
    assert table["passed"] is True


def test_a_format_that_strays_fails(voice, monkeypatch):
    score = fidelity.cpu.Synthesizer.score

    def strayed(self, gates_BNG, codes_BT2):
        coarse, fine = score(self, gates_BNG, codes_BT2)
        return (coarse * (2 if self.format == "int8" else 1), fine)

    monkeypatch.setattr(fidelity.cpu.Synthesizer, "score", strayed)
    table = fidelity.check(voice, seconds=0.01, reference_s=0)
    assert table["kl_coarse"] > 1e-3 > table["kl_fine"]
    assert table["passed"] is False


def test_codes_that_differ_are_counted(voice, monkeypatch):
    run = fidelity.reference.Synthesizer.run

    def wrong(self, gates_BNG, uniform_BT2):
        codes = run(self, gates_BNG, uniform_BT2)
        codes[:, -1] ^= 1
        return codes

    monkeypatch.setattr(fidelity.reference.Synthesizer, "run", wrong)
    table = fidelity.check(voice, seconds=0.02, reference_s=0.01)
    # the last of each row of 64
    assert table["codes_compared"] - table["codes_equal"] == table["codes_compared"] // 64 > 0
    assert table["passed"] is False


def test_the_example_is_the_shipped_sentence_over_and_over(voice):
    speech_NM, _ = read_mel(example.DEMO)
    N = len(speech_NM)
    mel_NM = example.example_mel(voice, N + 5)
    assert mel_NM.dtype == np.float32
    assert (mel_NM[:N] == speech_NM).all()
    assert (mel_NM[N:] == speech_NM[:5]).all()


@pytest.mark.parametrize("why", ["another mel", "not shipped"])
def test_other_voices_get_noise_like_their_speech(voice, monkeypatch, tmp_path, why):
    if why == "another mel":
        voice = random_voice(Config("other", MelConfig(bands=7), SMALL))
    else:
        monkeypatch.setattr(example, "DEMO", tmp_path / "demo.npz")
    bands = voice.config.mel.bands
    mel_NM = example.example_mel(voice, 4000)
    assert (mel_NM == example.example_mel(voice, 4000)).all()
    assert mel_NM.shape == (4000, bands)
    floor = voice.config.mel.floor_value
    assert mel_NM.mean() == pytest.approx(floor / 2, rel=0.05)
    assert mel_NM.std() == pytest.approx(-floor / 4, rel=0.05)
    # smooth in time, apart in frequency
    step = np.abs(np.diff(mel_NM, axis=0)).mean()
    assert step < 0.6 * np.abs(np.diff(mel_NM, axis=1)).mean()


LANES = {"subscale": 4, "subscale_horizon": 2, "context_channels": 8, "context_layers": 2}


@pytest.fixture(scope="module", params=[LANES, {"fused": 2}], ids=["subscale", "fused"])
def lanes(request):
    return random_voice(Config("lanes", model=replace(SMALL, **request.param)))


def test_an_utterance_is_judged(lanes):
    table = fidelity.check(lanes, seconds=0.05, reference_s=0.02)
    assert (table["samples"], table["codes_compared"]) == (4 * 256, 7 * 64)
    assert table["codes_equal"] == table["codes_compared"]
    assert 0 < table["kl_coarse"] < table["kl_limit"]
    assert table["passed"] is True


def test_a_format_of_an_utterance_that_strays_fails(lanes, monkeypatch):
    score = cpu_subscale.Synthesizer.score

    def strayed(self, gates_NG, codes_T2):
        coarse, fine = score(self, gates_NG, codes_T2)
        return (coarse * (2 if self.format == "int8" else 1), fine)

    monkeypatch.setattr(cpu_subscale.Synthesizer, "score", strayed)
    table = fidelity.check(lanes, seconds=0.01, reference_s=0)
    assert table["kl_coarse"] > 1e-3 > table["kl_fine"]
    assert table["passed"] is False


def test_codes_of_an_utterance_that_differ_are_counted(lanes, monkeypatch):
    run = cpu_subscale.Synthesizer.run

    def wrong(self, *given, last):
        codes = run(self, *given, last=last)
        codes[-1] ^= 1
        return codes

    monkeypatch.setattr(cpu_subscale.Synthesizer, "run", wrong)
    table = fidelity.check(lanes, seconds=0.02, reference_s=0.01)
    assert 1 <= table["codes_compared"] - table["codes_equal"] <= 2
