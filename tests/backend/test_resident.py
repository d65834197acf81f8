"""The resident kernel in Triton's interpreter, judged by the reference."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn import recipe
from wavernn.kernels import reference
from wavernn.kernels.bench import random_voice
from wavernn.kernels.gpu import resident_pack, resident_plan
from wavernn.kernels.gpu.launcher import Synthesizer
from wavernn.kernels.gpu.weights import rounded

pytest.importorskip("triton", reason="Triton isn't installed: pip install 'wavernn[gpu]'")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("kernels run on the device in this session", allow_module_level=True)


def _shim():
    # this folder is no package
    spec = importlib.util.spec_from_file_location("shim", Path(__file__).with_name("shim.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shim = _shim()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a synthesizer on the interpreted kernel; `changes` are those of its source."""
    originals = shim.load(tmp_path_factory.mktemp("resident"), names=shim.RESIDENT)

    def build(voice, streams, changes=None):
        modules = originals
        if changes:
            modules = shim.load(tmp_path_factory.mktemp("mutant"), changes, shim.RESIDENT)
        kernel = modules["resident"].Resident(voice, CPU)
        return Synthesizer(voice, streams, kernel=kernel, device="cpu")

    return build


def by_reference(synthesizer, work, temperature=1.0):
    judge = reference.Synthesizer(synthesizer.kernel.effective, len(work.uniform_BT2))
    codes = judge.run(work.gates_BNG, work.uniform_BT2, temperature=temperature)
    return codes, judge.state()


def agree(synthesizer, work, temperature=1.0):
    expected, state = by_reference(synthesizer, work, temperature)
    codes = synthesizer.run(work.gates_BNG, work.uniform_BT2, temperature=temperature)
    same = (codes == expected).all()
    return same and np.abs(synthesizer.state()["h"] - state["h"]).max() < 1e-6


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"hidden": 20, "projection": 7, "conditioning_hop_samples": 1},
        {"hidden": 66, "projection": 40, "conditioning_hop_samples": 4},
        {"hidden": 2, "projection": 1, "embedding": 1},
        {"input": "scalar", "pre_emphasis": 0.0},
    ],
    ids=str,
)
def test_codes_are_those_of_the_reference(make, make_voice, make_work, sizes):
    voice = make_voice(**sizes)
    assert agree(make(voice, 2), make_work(voice, 2, 9))


def pruned(voice, density, seed=0):
    """The voice without most columns of 16 rows, in no order and in different numbers."""
    random, tensors = np.random.default_rng(seed), dict(voice.tensors)
    for name in ("R", "O1.weight", "O2.weight", "O3.weight", "O4.weight"):
        weight = tensors[name].numpy()
        groups = -(-len(weight) // 16)
        keep = random.random((groups, weight.shape[1])) < density * random.random((groups, 1)) * 2
        tensors[name] = torch.from_numpy(weight * keep.repeat(16, axis=0)[: len(weight)])
    return type(voice)(voice.config, tensors)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.6])
def test_pruned_columns_are_left_out(make, make_voice, make_work, density):
    voice = pruned(make_voice(hidden=64, projection=32), density)
    synthesizer = make(voice, 2)
    full = make(make_voice(hidden=64, projection=32), 1).kernel.plan.words
    assert synthesizer.kernel.plan.words < full * max(density * 2, 0.6)
    assert agree(synthesizer, make_work(voice, 2, 5))


# registers, bytes of the first-level cache: all streamed from either, and a part of it
@pytest.mark.parametrize("room", [(0, 0), (0, 1 << 20), (12, 0), (12, 9000)])
def test_what_finds_no_register_is_streamed(make, make_voice, make_work, monkeypatch, room):
    voice = pruned(make_voice(hidden=96, projection=48), 0.5)
    monkeypatch.setattr(resident_plan, "REGISTERS", room[0])
    monkeypatch.setattr(resident_plan, "FIRST_LEVEL_BYTES", room[1])
    monkeypatch.setattr(resident_plan, "STREAMED_REGISTERS", room[0])
    # several tiles, with one on its way while another is multiplied
    monkeypatch.setattr(resident_plan, "STREAMED_WORDS", 1)
    synthesizer = make(voice, 2)
    places = [matrix.place for matrix in synthesizer.kernel.plan.matrices]
    assert set(places) == {(0, 0): {2}, (0, 1 << 20): {1}, (12, 0): {0, 2}}.get(room, {0, 1, 2})
    assert synthesizer.kernel.plan.streamed_bytes > 0
    assert agree(synthesizer, make_work(voice, 2, 4))


def test_temperature(make, make_voice, make_work):
    voice = make_voice()
    assert agree(make(voice, 3), make_work(voice, 3, 6), np.array([0.3, 1.0, 3.0], np.float32))


@pytest.mark.parametrize("bias", [1e4, -1e4])
def test_logits_may_be_large(make, make_voice, make_work, bias):
    voice = make_voice()
    tensors = {**voice.tensors, "O2.bias": torch.where(torch.arange(256) == 77, bias, 0.0)}
    voice = type(voice)(voice.config, tensors)
    assert agree(make(voice, 1), make_work(voice, 1, 4))


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_make_one_run(make, make_voice, make_work, monkeypatch, chunk):
    voice = make_voice(conditioning_hop_samples=4)
    work = make_work(voice, 2, 8)
    whole, cut, launched = make(voice, 2), make(voice, 2), make(voice, 2)
    codes = whole.run(work.gates_BNG, work.uniform_BT2)
    pieces = [
        cut.run(work.rows(at, min(at + chunk, 8)), work.uniform_BT2[:, at : at + chunk])
        for at in range(0, 8, chunk)
    ]
    assert (np.concatenate(pieces, axis=1) == codes).all()
    # the same within a run
    monkeypatch.setattr("wavernn.kernels.gpu.launcher.CHUNK", chunk)
    assert (launched.run(work.gates_BNG, work.uniform_BT2) == codes).all()
    for other in (cut, launched):
        assert all((other.state()[name] == array).all() for name, array in whole.state().items())


def test_streams_dont_see_each_other(make, make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 3, 6)
    together = make(voice, 3)
    codes = together.run(work.gates_BNG, work.uniform_BT2)
    for row in range(3):
        alone = make(voice, 1)
        own = alone.run(work.gates_BNG[row, None], work.uniform_BT2[row, None])
        assert (own[0] == codes[row]).all()
        assert (alone.state()["h"][0] == together.state()["h"][row]).all()


def test_frozen_streams_keep_their_state(make, make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 3, 4)
    synthesizer, active = make(voice, 3), np.array([True, False, True])
    synthesizer.run(work.gates_BNG, work.uniform_BT2)
    before = synthesizer.state()
    codes = synthesizer.run(work.gates_BNG, work.uniform_BT2, active)
    assert (codes[1] == (128, 0)).all()
    after = synthesizer.state()
    assert all((after[name][1] == before[name][1]).all() for name in before)
    assert all((after[name][::2] != before[name][::2]).any() for name in ("h", "sample"))


def test_a_lane_runs_its_own_number_of_samples(make, make_voice, make_work):
    from dataclasses import replace

    voice = make_voice()
    work, synthesizer = make_work(voice, 3, 5), make(voice, 3)
    launch = synthesizer.kernel.launch

    def uneven(call):
        launch(replace(call, steps_L=torch.tensor([5, 0, 2], dtype=torch.int32)))

    synthesizer.kernel.launch = uneven
    synthesizer.run(work.gates_BNG, work.uniform_BT2)
    assert synthesizer._sample_B.tolist() == [5, 0, 2]
    shorter = make(voice, 3)
    shorter.run(work.gates_BNG, work.uniform_BT2[:, :2])
    assert (synthesizer.state()["h"][2] == shorter.state()["h"][2]).all()
    assert (synthesizer.state()["h"][1] == 0).all()


def test_known_codes_are_scored(make, make_voice, make_work):
    voice = make_voice()
    codes = np.random.default_rng(0).integers(0, 256, (2, 5, 2)).astype(np.uint8)
    synthesizer, work = make(voice, 2), make_work(voice, 2, 5)
    logits = synthesizer.score(work.gates_BNG, codes)
    judge = reference.Synthesizer(synthesizer.kernel.effective, 2)
    assert np.abs(np.stack(logits) - np.stack(judge.score(work.gates_BNG, codes))).max() < 1e-5
    assert (synthesizer.state()["code"] == codes[:, -1]).all()


def test_speech_is_codes_decoded_and_filtered(make, make_voice, make_work):
    voice = make_voice(pre_emphasis=0.9)
    seeds = np.array([3, 2**63], np.uint64)
    synthesizer, work = make(voice, 2), make_work(voice, 2, 6)
    judge = reference.Synthesizer(synthesizer.kernel.effective, 2)
    assert (
        synthesizer.speak(work.gates_BNG, 6, seeds) == judge.speak(work.gates_BNG, 6, seeds)
    ).all()
    assert (synthesizer.state()["memory"] == judge.state()["memory"]).all()


# what the tests above must not overlook
MUTANTS = {
    "columns in another order": ("gl.join(low, high)", "gl.join(high, low)"),
    "rows in another order": ("gl.join(gl.sum(even, axis=2)", "gl.join(gl.sum(odd, axis=2)"),
    "the second tile is left out": ("y += _rows(even, odd, G)", "y = _rows(even, odd, G)"),
    "the state of the sample before": ("past_h = gl.reshape(gl.join(h_c, h_f)",
                                       "past_h = gl.reshape(gl.join(h_f, h_c)"),
    "the fine half sees no c": ("u_f += cu + fu + gu + nu", "u_f += cu + fu + gu"),
    "rows of f instead of c": ("past + c * (2 * HP)", "past + f * (2 * HP)"),
    "coarse rows for the fine half": ("_row(c_row + HP)", "_row(c_row)"),
    "conditioning of the coarse half": ("_conditioning(cond + UNITS", "_conditioning(cond"),
    "conditioning of the first row": ("((phase + t) // HOP)", "(phase // HOP)"),
    "no relu": ("y = gl.maximum(y + gl.load(bias + gl.arange(0, PP, layout=vector(PP))), 0.0)",
                "y = y + gl.load(bias + gl.arange(0, PP, layout=vector(PP)))"),
    "biases of the other head": ("bias += (M - 3) // 2 * (PP + 256)", "bias += 0"),
    "no temperature": ("draw(logits / temperature, gl.load(uniform_BT2 + place * 2))",
                       "draw(logits, gl.load(uniform_BT2 + place * 2))"),
    "the coarse draw twice": ("uniform_BT2 + place * 2 + 1", "uniform_BT2 + place * 2"),
    "the level below": ("minimum(gl.sum(below.to(gl.int32), 0)",
                        "minimum(gl.sum(below.to(gl.int32), 0) - 1"),
    "a lower weight of the upper bits": ("lower(tile) * x_GK,",
                                         "tile.to(gl.float32, bitcast=True) * x_GK,"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_kernel_is_found(make, make_voice, make_work, name):
    # two tiles in R, rows of gate input that change
    voice = pruned(make_voice(hidden=66, projection=40, conditioning_hop_samples=2), 0.9)
    old, new = MUTANTS[name]
    assert not agree(make(voice, 1, {old: new}), make_work(voice, 1, 8), 0.7)


def test_words_hold_two_bfloat16():
    weight = np.random.default_rng(0).normal(0, 1, (3, 16, 8)).astype(np.float32)
    weight[0, :, :4] = 0
    found = resident_pack.values(resident_pack.as_words(weight))
    narrow = torch.from_numpy(weight).bfloat16().float().numpy()
    # the lower ones exactly, the upper ones as near as any
    assert (found[:, ::2] == narrow[:, ::2]).all()
    error = np.abs(found - weight)
    assert (error[:, 1::2] <= 2.0**-8 * np.abs(weight[:, 1::2]) + 2.0**-126).all()
    assert error[:, 1::2].mean() < 1.1 * np.abs(narrow - weight)[:, 1::2].mean()
    assert (found[0, :, :4] == 0).all()


def test_a_voice_is_near_what_it_becomes(make_voice):
    voice = make_voice()
    effective = resident_pack.effective(voice)
    expected = rounded(voice, "bfloat16")
    for name in ("R", "O1.weight", "O4.weight", "I_past", "I_now"):
        a, b = effective.tensors[name], expected.tensors[name]
        assert (a - b).abs().max() <= 2.0**-7 * b.abs().max()
    # packing what was packed changes nothing more: zeros of the upper half are the exception
    again = resident_pack.effective(effective)
    assert (again.tensors["R"] - effective.tensors["R"]).abs().max() < 2.0**-7


def test_a_row_beyond_float16_is_refused(make_voice):
    voice = make_voice()
    tensors = {**voice.tensors, "rows": voice.tensors["rows"] * 1e6}
    with pytest.raises(ValueError, match="exceeds the range of float16"):
        resident_pack.pack(type(voice)(voice.config, tensors))


def test_what_the_recipes_need():
    plans = {}
    for name in ("sparse-512", "sparse-384", "sparse-1024"):
        config = recipe.load(name)
        _, columns = resident_pack.pack(random_voice(config))
        model = config.model
        plans[name] = resident_plan.plan_of(columns, model.hidden // 2, model.projection)
    # balanced, so that nothing is filled up
    assert plans["sparse-512"].words * 2 == 81_920
    assert plans["sparse-512"].streamed_bytes == 0
    assert 0 < plans["sparse-384"].streamed_bytes < plans["sparse-1024"].streamed_bytes < 800_000
