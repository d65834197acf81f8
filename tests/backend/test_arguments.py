"""What every backend refuses, and with which sentence."""

import numpy as np
import pytest
import torch

from wavernn.errors import BackendUnavailable

B, T, G = 3, 70, 48
GATES = torch.zeros(B, 2, G)
DRAWS = np.zeros((B, T, 2), np.float32)
CODES = np.zeros((B, T, 2), np.uint8)
SEEDS = np.zeros(B, np.uint64)
# B = 3, H = 16, a row of gate input for 64 samples
STATE = {
    "h": np.zeros((B, 16), np.float32),
    "code": np.zeros((B, 2), np.uint8),
    "sample": np.zeros(B, np.int64),
    "memory": np.zeros(B),
}

GATE_INPUT = {
    "other streams": (torch.zeros(2, 2, G), r"gate input \[3, rows, 48\], got \[2, 2, 48\]"),
    "other rows": (torch.zeros(B, 2, 32), r"gate input \[3, rows, 48\], got \[3, 2, 32\]"),
    "no streams": (torch.zeros(2, G), r"gate input \[3, rows, 48\], got \[2, 48\]"),
    "float16": (GATES.half(), "gate input as float32 on the CPU, got torch.float16 on cpu"),
    "too short": (GATES[:, :1], "at least 2 rows of gate input, got 1"),
    "nothing": (GATES[:, :0], "at least 2 rows of gate input, got 0"),
}
DRAWN = {
    "other streams": (DRAWS[:2], r"draws as float32 \[3, samples, 2\], got float32 \[2, 70, 2\]"),
    "one half": (DRAWS[..., :1], r"draws as float32 \[3, samples, 2\], got float32 \[3, 70, 1\]"),
    "no halves": (DRAWS[..., 0], r"draws as float32 \[3, samples, 2\], got float32 \[3, 70\]"),
    "one": (np.where(DRAWS.max() == DRAWS, np.float32(1), DRAWS), "draws in .0, 1., got 1.0"),
    "negative": (DRAWS - np.float32(1), "draws in .0, 1., got -"),
    "nan": (DRAWS * np.float32(np.nan), "draws in .0, 1., got nan"),
    "float64": (DRAWS.astype(float), r"draws as float32 \[.*\], got float64 \[3, 70, 2\]"),
}
KNOWN = {
    "other streams": (CODES[:1], r"codes as uint8 \[3, samples, 2\], got uint8 \[1, 70, 2\]"),
    "three halves": (np.zeros((B, T, 3), np.uint8), r"codes as uint8 .*, got uint8 \[3, 70, 3\]"),
    "no halves": (CODES[..., 0], r"codes as uint8 \[3, samples, 2\], got uint8 \[3, 70\]"),
    "int64": (CODES.astype(np.int64), r"codes as uint8 \[.*\], got int64 \[3, 70, 2\]"),
}
SEEDED = {
    "too few": (SEEDS[:2], r"seeds as uint64 \[3\], got uint64 \[2\]"),
    "too many": (np.zeros(4, np.uint64), r"seeds as uint64 \[3\], got uint64 \[4\]"),
    "a column": (SEEDS[:, None], r"seeds as uint64 \[3\], got uint64 \[3, 1\]"),
    "int64": (SEEDS.astype(np.int64), r"seeds as uint64 \[3\], got int64 \[3\]"),
}
ACTIVE = {
    "too few": (np.ones(2, bool), r"active as bool \[3\], got bool \[2\]"),
    "too many": (np.ones(4, bool), r"active as bool \[3\], got bool \[4\]"),
    "a column": (np.ones((B, 1), bool), r"active as bool \[3\], got bool \[3, 1\]"),
    "places": (np.array([0, 1, 2]), r"active as bool \[3\], got int64 \[3\]"),
}
WARM = {
    "zero": (0.0, "positive and finite, got 0.0"),
    "negative": (-1.0, "positive and finite, got -1.0"),
    "nan": (float("nan"), "positive and finite, got nan"),
    "infinite": (float("inf"), "positive and finite, got inf"),
    "subnormal": (1e-40, "positive and finite, got 1e-40"),
    "one of them": (np.array([1.0, 0.0, 1.0]), r"positive and finite, got \[1. 0. 1.\]"),
    "too few": (np.ones(2), r"a temperature or \[3\], got \[2\]"),
    "a row": (np.ones((1, B)), r"a temperature or \[3\], got \[1, 3\]"),
}
STATES = {
    "other units": ({"h": np.zeros((B, 17), np.float32)}, r"h \[3, 16\], got \[3, 17\]"),
    "other streams": ({"h": np.zeros((2, 16), np.float32)}, r"h \[3, 16\], got \[2, 16\]"),
    "one code": ({"code": np.zeros((B, 1), int)}, r"code \[3, 2\], got \[3, 1\]"),
    "one count": ({"sample": np.zeros((), int)}, r"sample \[3\], got \[\]"),
    "many memories": ({"memory": np.zeros(4)}, r"memory \[3\], got \[4\]"),
    "a high code": ({"code": np.full((B, 2), 256)}, r"codes in 0..255, got \[\[256, 256\], "),
    "a low code": ({"code": np.full((B, 2), -1)}, r"codes in 0..255, got \[\[-1, -1\], "),
    "a low count": ({"sample": np.array([0, 5, -1])}, r"at least 0, got \[0, 5, -1\]"),
}


@pytest.fixture
def refused(backend, make_voice):
    """Calls a function of a synthesizer that must refuse it and stay as it was."""

    def call(name, message, *arguments, **options):
        synthesizer = backend.synthesizer(make_voice(hidden=16), B)
        synthesizer.run(GATES, DRAWS[:, :5])
        before = synthesizer.state()
        with pytest.raises(ValueError, match=f"expected .*{message}"):
            getattr(synthesizer, name)(*arguments, **options)
        for key, array in synthesizer.state().items():
            assert (array == before[key]).all()

    return call


@pytest.mark.parametrize("case", GATE_INPUT)
def test_gate_input(refused, case):
    gates_BNG, message = GATE_INPUT[case]
    refused("run", message, gates_BNG, DRAWS)
    refused("speak", message, gates_BNG, T, SEEDS)
    refused("score", message, gates_BNG, CODES)


def test_gate_input_is_wanted_up_to_the_last_sample(refused):
    # 5 samples are done and 59 are left of the first row
    refused("run", "at least 2 rows of gate input, got 1", GATES[:, :1], DRAWS[:, :60])
    refused("speak", "at least 3 rows of gate input, got 2", GATES, 124, SEEDS)


def test_gate_input_is_as_long_as_the_furthest_stream_wants(backend, make_voice):
    synthesizer = backend.synthesizer(make_voice(hidden=16), B)
    synthesizer.set_state(STATE | {"sample": np.array([0, 63, 10])})
    for active, rows in (([1, 0, 1], 1), ([0, 1, 0], 2)):
        mask = np.array(active, bool)
        if rows > 1:
            with pytest.raises(ValueError, match=f"at least {rows} rows"):
                synthesizer.run(GATES[:, : rows - 1], DRAWS[:, :2], mask)
        synthesizer.run(GATES[:, :rows], DRAWS[:, :2], mask)
    assert synthesizer.state()["sample"].tolist() == [2, 65, 12]


@pytest.mark.parametrize("case", DRAWN)
def test_draws(refused, case):
    draws, message = DRAWN[case]
    refused("run", message, GATES, draws)


@pytest.mark.parametrize("case", KNOWN)
def test_known_codes(refused, case):
    codes, message = KNOWN[case]
    refused("score", message, GATES, codes)


@pytest.mark.parametrize("case", SEEDED)
def test_seeds(refused, case):
    seeds, message = SEEDED[case]
    refused("speak", message, GATES, T, seeds)


@pytest.mark.parametrize("case", ACTIVE)
def test_active_streams(refused, case):
    active, message = ACTIVE[case]
    refused("run", message, GATES, DRAWS, active)
    refused("speak", message, GATES, T, SEEDS, active)
    refused("reset", message, active)


@pytest.mark.parametrize("case", WARM)
def test_temperatures(refused, case):
    temperature, message = WARM[case]
    refused("run", message, GATES, DRAWS, temperature=temperature)
    refused("speak", message, GATES, T, SEEDS, temperature=temperature)


@pytest.mark.parametrize("case", STATES)
def test_states(refused, case):
    changes, message = STATES[case]
    refused("set_state", message, STATE | changes)


@pytest.mark.parametrize("name", STATE)
def test_a_state_that_lacks_something(refused, name):
    state = {key: array for key, array in STATE.items() if key != name}
    refused("set_state", f"a state with {name}, got one of {', '.join(state)}", state)


def test_a_format_that_the_backend_doesnt_have(backend, make_voice):
    with pytest.raises(BackendUnavailable, match="has no format int3; known: "):
        backend.synthesizer(make_voice(hidden=16), 1, format="int3")


def test_each_backend_names_its_format(backend, make_voice):
    assert backend.synthesizer(make_voice(hidden=16), 1).format == backend.format


def test_arrays_may_be_views(backend, make_voice, make_work):
    voice = make_voice(hidden=16)
    work = make_work(voice, 2, T)
    codes = backend.synthesizer(voice, 2).run(work.gates_BNG, work.uniform_BT2)
    gates = work.gates_BNG.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    draws = np.asfortranarray(work.uniform_BT2)
    other = backend.synthesizer(voice, 2)
    assert (other.run(gates, draws) == codes).all()
    other.reset()
    logits = np.stack(other.score(gates, np.asfortranarray(codes)))
    other.reset()
    assert (np.stack(other.score(work.gates_BNG, codes)) == logits).all()
    state = other.state()
    other.set_state({name: np.asfortranarray(array) for name, array in state.items()})
    assert all((other.state()[name] == array).all() for name, array in state.items())
