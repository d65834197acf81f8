import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from wavernn.errors import BackendUnavailable

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton isn't installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET isn't 1: kernels need a GPU", allow_module_level=True)

from triton.runtime.errors import InterpreterError

from wavernn.kernels.gpu import (
    group_pack,
    subscale,
    subscale_group,
    subscale_kernel,
    subscale_pack,
    subscale_step,
)


def _load(name, path):
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
cases, lockstep = (_load(name, HERE / f"{name}.py") for name in ("test_subscale", "lockstep"))
# what is interpreted must not take minutes
SIZE, SAMPLES = (4, 2, 3), 26


def _run(voice, samples=SAMPLES, ctas=1, seed=0, limit=200_000, cuts=()):
    work, synthesizer = (
        cases.Work.of(voice, samples),
        subscale.Synthesizer(voice, device="cpu", ctas=ctas),
    )
    # what no launch may read before it is written
    synthesizer.lanes.ahead.fill_(float("nan"))
    synthesizer.lanes.sums.fill_(7)
    with lockstep.lockstep(seed, limit):
        return np.concatenate(work.run(synthesizer, cuts))


@pytest.fixture(scope="module")
def alone(make_voice):
    voice = cases.make(make_voice, SIZE)
    return voice, _run(voice)


@pytest.mark.parametrize(("ctas", "cuts"), [(2, ()), (2, (9,)), (3, ())])
def test_programs_make_an_utterance_together(alone, ctas, cuts):
    voice, codes_T2 = alone
    assert (_run(voice, ctas=ctas, seed=ctas, cuts=cuts) == codes_T2).all()


def test_launches_make_an_utterance_one_after_another(alone, monkeypatch):
    voice, codes_T2 = alone
    monkeypatch.setattr(subscale, "CHUNK", 4)
    assert (_run(voice) == codes_T2).all()


# pieces of the kernel or of what it calls, each with the fault that takes its place
ARRIVE, WAIT = "arrive(arrived_ptr)\n", "patience = wait(arrived_ptr, target, patience)\n"
FAULTS = {
    **{f"no arrival at {i + 1}": (ARRIVE, "pass\n", i) for i in range(4)},
    **{f"no wait at {i + 1}": (WAIT, "pass\n", i) for i in range(4)},
    "no column is kept": ("(program == layer % N)", "(program == N)", 0),
    "e isn't kept": ("tl.store(e_ptr + place, e, mask=kept & (j == J % N))", "pass", 0),
    "codes are kept by nobody": ("mask = (tl.where(t < 0, -1, l) >= 0)", "mask = (l < 0)", 0),
    "the taps of one program": ("real = number < TILES", "real = number < 1", 0),
    "samples before of the next program": (
        "element = program * E +",
        "element = (program + 1) * E +",
        0,
    ),
    "the taps of one layer": ("ahead_ptr + layer * L * C + lc", "ahead_ptr + lc", 0),
    "e of the column after": ("(at_tick + 2) % (F + 1)", "(at_tick + 3) % (F + 1)", 0),
    "no fine byte": ("seen_f[:, None] * fine", "0.0", 0),
    "no row of the lane before": ("e = e_far + e_near", "e = e_far", 0),
    "lanes start together": ("step = tick - 1 - l * (F + 1)", "step = tick - 1 - l * 0", 0),
}


def _mutate(fault, folder):
    old, new, place = fault
    # one file, in which the kernel has above it what it imports
    sources = [Path(module.__file__).read_text() for module in (subscale_step, subscale_kernel)]
    future = "from __future__ import annotations\n"
    kernel = re.sub(r"from wavernn.kernels.gpu.subscale_step import \([^)]*\)\n", "", sources[1])
    source = future + (sources[0] + kernel).replace(future, "")
    parts = source.split(old)
    assert len(parts) > place + 1
    text = old.join(parts[: place + 1]) + new + old.join(parts[place + 1 :])
    # the interpreter reads the source of a kernel from its file
    path = folder / "mutant.py"
    path.write_text(text)
    return _load("mutant", path).subscale_kernel


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(alone, tmp_path, monkeypatch, name):
    voice, codes_T2 = alone
    monkeypatch.setattr(subscale_group, "subscale_kernel", _mutate(FAULTS[name], tmp_path))

    def survives(seed):
        try:
            return (_run(voice, ctas=2, seed=seed, limit=20_000) == codes_T2).all()
        except (lockstep.Livelock, RuntimeError, InterpreterError):
            return False

    assert not all(survives(seed) for seed in range(6))


def test_a_program_that_never_comes_is_reported(alone):
    voice, codes_T2 = alone
    work, synthesizer = (
        cases.Work.of(voice, SAMPLES),
        subscale.Synthesizer(voice, device="cpu", ctas=2),
    )
    synthesizer.lanes.programs, synthesizer.lanes.patience = 1, 50
    with pytest.raises(RuntimeError, match="waited in vain"):
        work.run(synthesizer)
    # what is left of it can't go on
    with pytest.raises(ValueError, match="reset before another one"):
        work.run(synthesizer)
    synthesizer.lanes.programs, synthesizer.lanes.patience = 2, subscale_group.PATIENCE
    synthesizer.reset()
    with lockstep.lockstep():
        assert (work.run(synthesizer)[0] == codes_T2).all()


def test_what_it_cannot_hold_is_refused(make_voice):
    voice = cases.make(make_voice, (32, 0, 1), conditioning_hop_samples=32)
    with pytest.raises(
        BackendUnavailable, match="can't run this voice: it has 2 to 16 lanes, not 32"
    ):
        subscale.Synthesizer(voice, device="cpu")
    voice = cases.make(make_voice)
    with pytest.raises(BackendUnavailable, match="subscale voices in float16 alone, not in int8"):
        subscale.Synthesizer(voice, "int8", device="cpu")
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        subscale.Synthesizer(voice, None, 0, device="cpu")
    voice.tensors["X"][0, 0] = 1e5
    with pytest.raises(BackendUnavailable, match=r"weight of 1e\+05 exceeds the range of float16"):
        subscale.Synthesizer(voice, device="cpu")


def test_a_device_without_room_is_refused():
    configuration = subscale_group.configurations()[0]
    size = subscale_pack.Sizes(16, 8, 64, 4)
    cut = group_pack.fitting(1024, 512, 16, 132, 232_448, size.shared_bytes)
    assert cut.ctas == configuration.constants["N"] == 64
    with pytest.raises(BackendUnavailable, match=r"128 programs with .* has 108 multiprocessors"):
        group_pack.fitting(1024, 512, 16, 108, 166_912, size.shared_bytes)


def test_the_room_that_is_asked_for_is_what_is_compiled():
    recorded = json.loads((HERE.parent / "gpu_code.json").read_text())["3.6.0"]["sm_90"]
    for configuration in subscale_group.configurations():
        c = configuration.constants
        if c["N"] == 1:
            # products of so few rows are held in other forms
            continue
        size = subscale_pack.Sizes(c["FACTOR"], c["F"], c["C"], c["J"])
        cut = group_pack.slices(2 * c["HH"], c["HH"], c["N"])
        asked = cut.shared_bytes(c["L"]) + size.shared_bytes(cut)
        code = recorded[configuration.name]
        assert code["shared"] <= asked <= 1.05 * code["shared"]


def test_configurations_name_every_argument():
    names = set(subscale_kernel.subscale_kernel.arg_names)
    for configuration in subscale_group.configurations():
        assert set(configuration.types) | set(configuration.constants) == names
        assert configuration.cooperative
