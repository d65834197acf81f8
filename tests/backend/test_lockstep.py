import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton isn't installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET isn't 1: kernels need a GPU", allow_module_level=True)

import triton
import triton.language as tl

from wavernn.kernels.gpu import group, group_exchange, group_kernel


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# of the interpreter, for a bound of a loop
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
# this folder is no package
launches, locksteps = (
    _load(name, Path(__file__).with_name(f"{name}.py")) for name in ("launches", "lockstep")
)
lockstep, Livelock = locksteps.lockstep, locksteps.Livelock


@triton.jit
def passing(x_ptr, N: tl.constexpr, ROUNDS: tl.constexpr):
    i = tl.program_id(0)
    for t in range(ROUNDS):
        while tl.load(x_ptr, volatile=True) != t * N + i:
            pass
        tl.store(x_ptr, t * N + i + 1)


@triton.jit
def adding(x_ptr):
    tl.store(x_ptr, tl.load(x_ptr) + 1)


@triton.jit
def failing(x_ptr):
    if tl.program_id(1) == 1:
        tl.reshape(tl.arange(0, 4), [3])
    while tl.load(x_ptr, volatile=True) == 0:
        pass


def test_programs_take_turns():
    x = torch.zeros(1, dtype=torch.int32)
    with lockstep(seed=1, limit=100_000):
        passing[(3,)](x, 3, 4, num_warps=8, launch_cooperative_grid=True)
    assert x.item() == 12


def test_a_seed_is_an_order():
    def counts(seed):
        x, found = torch.zeros(1, dtype=torch.int32), []
        with lockstep(seed) as run:
            for _ in range(10):
                adding[(4,)](x.zero_())
                found.append(x.item())
        return found, run.accesses

    assert counts(3) == counts(3)
    # additions that get lost, and others that don't
    assert len({*counts(3)[0], *counts(4)[0]}) > 1


def test_programs_that_wait_for_ever_are_stopped():
    x = torch.full((1,), -1, dtype=torch.int32)
    with (
        pytest.raises(Livelock, match="didn't end within 500 accesses"),
        lockstep(limit=500),
    ):
        passing[(2,)](x, 2, 1)


def test_an_error_of_one_program_ends_all():
    x = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match="power of 2"), lockstep(limit=100_000):
        failing[(2, 2)](x)


def test_the_stock_interpreter_comes_back():
    x = torch.zeros(1, dtype=torch.int32)
    with lockstep():
        adding[(1,)](x)
    adding[(5,)](x)
    assert x.item() == 6


@dataclass(frozen=True)
class Mutant:
    """A kernel with a fault in its protocol: the `place`-th `old` replaced, each one at -1."""

    name: str
    old: str
    new: str
    place: int = 0
    lanes: int = 8
    groups: int = 1


ARRIVE, WAIT = "arrive(arrived_ptr)\n", "patience = wait(arrived_ptr, target, patience)\n"
COUNT = "target += N\n"
# exchanges 1, 2, 3, 4 by where they stand; those of drawn codes come after 2 and 4
PLACES = {"1": 0, "2": 1, "3": 3, "4": 4}
MUTANTS = [
    *(Mutant(f"no arrival at {e}", ARRIVE, "pass\n", p) for e, p in PLACES.items()),
    *(Mutant(f"no wait at {e}", WAIT, "pass\n", p) for e, p in PLACES.items()),
    *(Mutant(f"no count at {e}", COUNT, "pass\n", p) for e, p in PLACES.items()),
    Mutant("no wait for drawn c", WAIT, "pass\n", 2, lanes=64),
    Mutant("no wait for drawn f", WAIT, "pass\n", 5, lanes=64),
    Mutant(
        "drawn c isn't stored", "tl.store(drawn_ptr + drawn, new, mask=drawn < L)", "pass", 0, 64
    ),
    Mutant("one too few", "target += N\n", "target += N - 1\n", -1),
    Mutant("one too many", "target += N\n", "target += N + 1\n", -1),
    Mutant("an arrival adds 0", "tl.atomic_add(arrived_ptr, 1,", "tl.atomic_add(arrived_ptr, 0,"),
    Mutant("an arrival adds 2", "tl.atomic_add(arrived_ptr, 1,", "tl.atomic_add(arrived_ptr, 2,"),
    Mutant(
        "an arrival is a store",
        'tl.atomic_add(arrived_ptr, 1, sem="release", scope="gpu")',
        "tl.store(arrived_ptr, tl.load(arrived_ptr) + 1)",
    ),
    Mutant("coarse h isn't stored", "tl.store(y_ptr, h_c.to(tl.float16))", "pass"),
    Mutant("fine h isn't stored", "tl.store(y_ptr + L * HP, h_f.to(tl.float16))", "pass"),
    Mutant(
        "coarse h is stored late",
        "tl.store(y_ptr, h_c.to(tl.float16))\n        arrive(arrived_ptr)",
        "arrive(arrived_ptr)\n        tl.store(y_ptr, h_c.to(tl.float16))",
    ),
    Mutant("halves share a slot", "y_ptr + L * HP", "y_ptr"),
    Mutant("no part of the logits", "add(z_ptr, z)", "pass"),
    Mutant(
        "no fine sums are put back",
        "tl.store(sums_ptr + L * Q + share, rest_f, mask=shared)",
        "pass",
    ),
    Mutant(
        "no coarse sums are put back", "tl.store(sums_ptr + share, rest_c, mask=shared)", "pass"
    ),
    Mutant(
        "coarse sums are put back early",
        "# exchange 3\n",
        "tl.store(sums_ptr + share, rest_c, mask=shared)\n",
    ),
    Mutant(
        "fine sums are put back early",
        "# exchange 1\n",
        "tl.store(sums_ptr + L * Q + share, rest_f, mask=shared)\n",
    ),
    Mutant("all put the same sums back", "j * SHARE + tl", "0 * SHARE + tl"),
    Mutant("groups share a counter", "group * LINE", "0 * LINE", groups=2),
    Mutant("groups share h", "group * (2 * L * HP)", "0", groups=2),
    Mutant("groups share sums", "group * (2 * L * Q)", "0", groups=2),
]


def _mutate(mutant, folder):
    sources = [Path(module.__file__).read_text() for module in (group_exchange, group_kernel)]
    # one file, in which the kernel has the exchange above it
    future, imported = (
        "from __future__ import annotations\n",
        "from wavernn.kernels.gpu.group_exchange",
    )
    lines = "".join(sources).replace(future, "").splitlines(keepends=True)
    source = future + "".join(line for line in lines if not line.startswith(imported))
    parts = source.split(mutant.old)
    assert len(parts) > mutant.place + 1
    if mutant.place < 0:
        text = mutant.new.join(parts)
    else:
        before, after = parts[: mutant.place + 1], parts[mutant.place + 1 :]
        text = mutant.old.join(before) + mutant.new + mutant.old.join(after)
    # the interpreter reads the source of a kernel from its file
    path = folder / "mutant.py"
    path.write_text(text)
    return _load("mutant", path).group_kernel


def _survives(kernel, voice, work, expected, seed):
    kernel.sums.fill_(7)
    call = launches.call(voice, work)
    try:
        with lockstep(seed, limit=6_000):
            kernel.launch(call)
    except Livelock:
        return False
    return bool((call.codes_BT2.numpy() == expected).all())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_of_the_protocol_is_found(make_voice, make_work, tmp_path, monkeypatch, mutant):
    voice = make_voice()
    work = make_work(voice, 6 * mutant.groups, 3)
    expected = _expected(voice, work)
    kernel = group.Group(voice, "cpu", 2, mutant.lanes, mutant.groups)
    monkeypatch.setattr(group, "group_kernel", _mutate(mutant, tmp_path))
    assert not all(_survives(kernel, voice, work, expected, seed) for seed in range(6))


def _expected(voice, work):
    call = launches.call(voice, work)
    group.Group(voice, "cpu", 1, 16).launch(call)
    return call.codes_BT2.numpy().copy()


def test_the_kernel_itself_survives(make_voice, make_work):
    voice = make_voice()
    for lanes, groups in ((8, 1), (8, 2), (64, 1)):
        work = make_work(voice, 6 * groups, 3)
        kernel = group.Group(voice, "cpu", 2, lanes, groups)
        expected = _expected(voice, work)
        assert all(_survives(kernel, voice, work, expected, seed) for seed in range(3))
    assert np.isfinite(expected).all()
