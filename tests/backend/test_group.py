import contextlib
import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn.audio import de_emphasis, decode
from wavernn.errors import BackendUnavailable
from wavernn.kernels.gpu import weights

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton isn't installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET isn't 1: kernels need a GPU", allow_module_level=True)

from wavernn.kernels.gpu import group, group_kernel, group_pack


def _beside(name):
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


half, launches, lockstep, oracle = map(_beside, ("half", "launches", "lockstep", "oracle"))
# of the interpreter, for a bound of a loop
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
# a program that waits in vain must not take minutes to say so
LIMIT = 200_000


def _launch(kernel, call, seed=0):
    several = kernel.programs > 1
    with lockstep.lockstep(seed, LIMIT) if several else contextlib.nullcontext():
        kernel.launch(call)
    kernel.check()
    return call


def _equations(voice):
    return oracle.Oracle(voice, half.Half(weights.rounded(voice, "float16")))


def _check_tokens(voice, work, call, temperature=1.0):
    codes, _, state = _equations(voice)(work, temperature=temperature)
    assert (call.codes_BT2.numpy() == codes).all()
    # a state that rounds to the other side is 2^-11 away
    assert np.abs(call.h_BH.numpy() - state["h"]).max() < 1e-3
    assert (call.code_B2.numpy() == state["code"]).all()
    assert (call.sample_B.numpy() == state["sample"]).all()
    for b in range(len(codes)):
        samples, memory = de_emphasis(decode(codes[b]), voice.config.model.pre_emphasis, 0.0)
        assert call.memory_B[b] == memory
        assert (call.audio_BT[b].numpy() == np.float32(np.clip(samples, -1, 32767 / 32768))).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"hidden": 20, "projection": 7, "conditioning_hop_samples": 1},
        {"hidden": 16, "projection": 33, "input": "scalar", "conditioning_hop_samples": 2},
    ],
    ids=["32-16", "20-7", "16-33-scalar"],
)
def test_one_program_draws_what_the_equations_say(make_voice, make_work, sizes):
    voice = make_voice(**sizes)
    work = make_work(voice, 3, 7)
    _check_tokens(voice, work, _launch(group.Group(voice, "cpu", 1, 8), launches.call(voice, work)))


@pytest.mark.parametrize(
    ("ctas", "lanes", "groups", "streams", "sizes"),
    [
        (2, 8, 1, 3, {}),
        (4, 16, 1, 2, {}),
        (2, 8, 2, 5, {}),
        (3, 8, 1, 2, {"hidden": 20, "projection": 7}),
        # programs draw for each other
        (2, 64, 1, 10, {}),
        (3, 64, 2, 20, {"hidden": 12, "projection": 20}),
    ],
)
def test_programs_draw_together(make_voice, make_work, ctas, lanes, groups, streams, sizes):
    voice = make_voice(1, **sizes)
    work = make_work(voice, streams, 5)
    kernel = group.Group(voice, "cpu", ctas, lanes, groups)
    _check_tokens(voice, work, _launch(kernel, launches.call(voice, work), seed=ctas))


@pytest.mark.parametrize("ctas", [1, 2])
def test_chunks_are_the_whole(make_voice, make_work, ctas):
    voice = make_voice(2, conditioning_hop_samples=4)
    work = make_work(voice, 3, 8)
    kernel = group.Group(voice, "cpu", ctas, 8)
    whole, call = _launch(kernel, launches.call(voice, work)), launches.call(voice, work)
    for start, count in ((0, 3), (3, 1), (4, 4)):
        steps = torch.full((3,), count, dtype=torch.int32)
        _launch(kernel, replace(call, steps_L=steps, start=start), seed=start)
    assert launches.same(call, whole)


@pytest.mark.parametrize(("lanes", "groups"), [(8, 2), (16, 1)])
def test_a_lane_is_the_same_in_any_place_and_company(make_voice, make_work, lanes, groups):
    voice = make_voice(3)
    work = make_work(voice, 5, 4)
    kernel = group.Group(voice, "cpu", 1, lanes, groups)
    whole = _launch(kernel, launches.call(voice, work))
    mixed = _launch(kernel, launches.call(voice, work, [3, 0, 4, 2, 1]), seed=1)
    assert launches.same(mixed, whole)
    alone = _launch(kernel, launches.call(voice, work, [2]))
    assert launches.same(alone, whole, 2, 2)


def test_lanes_stop_by_themselves(make_voice, make_work):
    voice = make_voice(4)
    work = make_work(voice, 4, 6)
    kernel = group.Group(voice, "cpu", 2, 8)
    whole = _launch(kernel, launches.call(voice, work))
    call = launches.call(voice, work, [2, 0, 3], [3, 6, 0])
    before = {name: value.clone() for name, value in launches.state(call).items()}
    _launch(kernel, call)
    assert launches.same(call, whole, 0, 0)
    assert (call.codes_BT2[2, :3] == whole.codes_BT2[2, :3]).all()
    assert (call.audio_BT[2, :3] == whole.audio_BT[2, :3]).all()
    assert (call.codes_BT2[2, 3:] == launches.UNWRITTEN[0]).all() and call.sample_B[2] == 3
    # stopped before the first sample, and no lane at all
    for b in (3, 1):
        assert (call.codes_BT2[b] == launches.UNWRITTEN[0]).all() and call.audio_BT[b].isnan().all()
        assert all((launches.state(call)[name][b] == before[name][b]).all() for name in before)
    # it goes on from there
    rest = torch.tensor([3], dtype=torch.int32)
    _launch(kernel, replace(call, stream_L=torch.tensor([2]).int(), steps_L=rest, start=3))
    assert launches.same(call, whole, 2, 2)


@pytest.mark.parametrize(("ctas", "lanes"), [(1, 8), (2, 64)])
def test_known_codes_are_scored(make_voice, make_work, ctas, lanes):
    voice = make_voice(5)
    work = make_work(voice, 3, 5)
    known = np.random.default_rng(0).integers(0, 256, (3, 5, 2)).astype(np.uint8)
    kernel = group.Group(voice, "cpu", ctas, lanes)
    call = _launch(kernel, launches.call(voice, work, known_BT2=known))
    _, logits, state = _equations(voice)(work, codes_BT2=known)
    assert np.abs(call.logits_BT2Q.numpy() - logits).max() < 1e-4 * np.abs(logits).max()
    assert (call.codes_BT2.numpy() == known).all()
    assert np.abs(call.h_BH.numpy() - state["h"]).max() < 1e-3


@pytest.mark.parametrize("temperature", [0.1, 2.0, 1e-37])
def test_temperature_divides_logits(make_voice, make_work, temperature):
    voice = make_voice(6)
    work = make_work(voice, 2, 6)
    kernel = group.Group(voice, "cpu", 1, 8)
    call = _launch(kernel, launches.call(voice, work, temperature=temperature))
    _check_tokens(voice, work, call, temperature)


def test_logits_of_ten_thousand_are_drawn(make_voice, make_work):
    voice = make_voice(7)
    tensors = dict(voice.tensors)
    for name in ("O2", "O4"):
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"] * 2000
    voice = replace(voice, tensors=tensors)
    work = make_work(voice, 2, 4)
    _, logits, _ = _equations(voice)(work)
    assert np.abs(logits).max() > 1e4
    _check_tokens(voice, work, _launch(group.Group(voice, "cpu", 2, 8), launches.call(voice, work)))


def test_a_program_that_never_comes_is_reported(make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 2, 3)
    kernel = group.Group(voice, "cpu", 2, 8, patience=50)
    kernel.programs = 1
    call = launches.call(voice, work)
    kernel.launch(call)
    with pytest.raises(RuntimeError, match="waited in vain"):
        kernel.check()
    # the state is that from before, and the kernel runs again
    assert call.sample_B.sum() == 0 and call.h_BH.abs().sum() == 0
    kernel.check()
    kernel.programs, kernel.patience = 2, group.PATIENCE
    _check_tokens(voice, work, _launch(kernel, call))


def test_what_does_not_fit_is_refused(make_voice, make_work):
    voice = make_voice()
    with pytest.raises(ValueError, match="has 8, 16, 32, 64 lanes, not 12"):
        group.Group(voice, "cpu", 1, 12)
    kernel = group.Group(voice, "cpu", 1, 8)
    with pytest.raises(ValueError, match="at most 8 lanes, got 9"):
        kernel.launch(launches.call(voice, make_work(voice, 9, 1)))
    wide = replace(voice, tensors=dict(voice.tensors) | {"O1.bias": torch.full((16,), 7e4)})
    with pytest.raises(ValueError, match=r"O1 may reach 7e\+04"):
        group.Group(wide, "cpu", 1, 8)


def test_a_voice_is_cut_to_fit():
    # hidden, projection: programs, units
    for sizes, cut in {
        (896, 448): (56, 8),
        (1024, 512): (64, 8),
        (384, 192): (12, 16),
        (32, 16): (1, 16),
        (20, 7): (1, 16),
    }.items():
        slices = group_pack.slices(*sizes, None)
        assert (slices.ctas, slices.units) == cut


def test_configurations_name_every_argument():
    names = set(group_kernel.group_kernel.arg_names)
    for configuration in group.configurations():
        assert set(configuration.types) | set(configuration.constants) == names
        assert configuration.cooperative


@pytest.mark.parametrize(
    ("lanes", "places", "shared", "ctas"),
    [
        (16, 132, 232_448, 56),
        (64, 132, 232_448, 56),
        (16, 128, 101_376, 112),
        (16, 108, 166_912, 56),
    ],
)
def test_a_device_decides_how_a_voice_is_cut(lanes, places, shared, ctas):
    assert group_pack.fitting(896, 448, lanes, places, shared).ctas == ctas


def test_a_device_without_room_is_refused():
    with pytest.raises(BackendUnavailable, match=r"112 programs with 98304 bytes .* 84 multiproc"):
        group_pack.fitting(896, 448, 16, 84, 101_376)


def test_the_room_that_is_asked_for_is_what_is_compiled():
    recorded = json.loads((Path(__file__).parents[1] / "gpu_code.json").read_text())
    for name, code in recorded["3.6.0"]["sm_90"].items():
        kernel, _, shape = name.partition(" dense-896 ")
        if kernel == "group":
            ctas, lanes = map(int, shape.split("x"))
            asked = group_pack.slices(896, 448, ctas).shared_bytes(lanes)
            # a little less is used where lanes are few
            assert code["shared"] <= asked <= 1.05 * code["shared"]
