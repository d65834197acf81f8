"""What was right once stays right: a voice and its first samples, made by golden/make.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from wavernn import checkpoint
from wavernn.conditioning import Conditioning

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def voice():
    # a voice without a path isn't kept in the user's cache
    return replace(checkpoint.load(GOLDEN / "voice.safetensors"), path=None)


@pytest.fixture(scope="module")
def golden():
    return safetensors.torch.load_file(GOLDEN / "run.safetensors")


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.safetensors")) < 100_000


def test_golden_codes(backend, voice, golden, make_work, check_draws):
    if backend.format not in ("float64", "float32"):
        # another model, with codes of its own
        gates_BNG, uniform_BT2 = golden["gates_NG"][None], golden["uniform_T2"].numpy()[None]
        work = make_work(voice, 1, 1, gates_BNG=gates_BNG)
        check_draws(voice, replace(work, uniform_BT2=uniform_BT2))
        return
    synthesizer = backend.synthesizer(voice, 1)
    codes = synthesizer.run(golden["gates_NG"][None], golden["uniform_T2"].numpy()[None])
    assert codes[0].tolist() == golden["codes_T2"].tolist()


def test_golden_logits(backend, voice, golden, make_work):
    codes, exact = golden["codes_T2"].numpy()[None], golden["logits_T2Q"].numpy()
    scored = codes[:, : len(exact)]
    logits = np.stack(backend.synthesizer(voice, 1).score(golden["gates_NG"][None], scored), axis=2)
    if backend.precision == torch.float64:
        assert np.abs(logits[0] - exact).max() < 1e-6
        return
    work = make_work(voice, 1, len(exact), gates_BNG=golden["gates_NG"][None])
    plain, _ = backend.plain(voice, work, scored)
    assert np.abs(logits[0] - exact).max() <= backend.allowed(np.abs(plain[0] - exact).max())


def test_golden_gate_input(voice, golden):
    gates_NG = torch.cat(list(Conditioning(voice).push(golden["mel_NM"], last=True)))
    # float32, whose products other machines round differently
    assert (gates_NG - golden["gates_NG"]).abs().max() < 1e-5
