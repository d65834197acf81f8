import mmap
from dataclasses import replace

import numpy as np
import pytest

from wavernn import kernels
from wavernn.conditioning import BLOCK_FRAMES
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.cost import channel_bytes, checkpoint_bytes
from wavernn.kernels import cpu_subscale, memory, native
from wavernn.kernels.bench import random_voice
from wavernn.kernels.bench_cpu import gate_rows
from wavernn.kernels.pack import FORMATS
from wavernn.kernels.packfile import packed

CONFIG = Config(
    "small",
    MelConfig(bands=5),
    ModelConfig(hidden=72, projection=40, embedding=2, channels=4, layers=0),
    PruneConfig(8, 4, density={"R_u": 0.5, "R_e": 0.25, "O2": 0.5}),
)


@pytest.fixture(autouse=True)
def engine_is_there(absent):
    if reason := kernels.unavailable("cpu"):
        absent("cpu", reason)


@pytest.fixture(scope="module")
def voice():
    return random_voice(CONFIG)


def arrays(value):
    """The arrays in nested containers, each as the one that owns its memory."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from arrays(part)
    elif isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        yield value


def held(thing):
    """Bytes of the pieces of memory behind an object's arrays, each once."""
    return held_by(vars(thing))


def held_by(container):
    found = {}
    for array in arrays(container):
        memory = array.base
        if isinstance(memory, memoryview):
            memory = memory.obj
        mapped = isinstance(memory, mmap.mmap)
        found[id(memory if mapped else array)] = len(memory) if mapped else array.nbytes
    return sum(found.values())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("channels", "lanes"), [(1, 1), (5, 5), (20, 16)])
def test_memory_is_what_the_engine_holds(voice, format, channels, lanes):
    engine = kernels.load("cpu")(voice, channels, format)
    engine.speak(gate_rows(voice, channels, 1), 3, np.arange(channels, dtype=np.uint64))
    # the barrier's 32 words serve threads
    besides = checkpoint_bytes(CONFIG) + channels * channel_bytes(CONFIG) - 32 * 4
    assert held(engine) == memory.memory_bytes(voice, channels, lanes, format) - besides


@pytest.fixture(scope="module")
def lanes():
    fields = {"subscale": 8, "subscale_horizon": 3, "context_channels": 24, "context_layers": 3}
    return random_voice(replace(CONFIG, model=replace(CONFIG.model, **fields)))


@pytest.mark.parametrize("format", FORMATS)
def test_utterances_hold_what_is_said(lanes, format):
    engine = cpu_subscale.Synthesizer(lanes, format)
    weights = held(engine._weights)
    # the arrays of lanes and context are two pieces of memory
    packs = sum(-(-array.nbytes // 64) * 64 for array in packed(lanes, format).arrays.values())
    assert weights == packs
    each = memory.memory_bytes(lanes, 3, 1, format) - memory.memory_bytes(lanes, 2, 1, format)
    each -= channel_bytes(lanes.config)
    assert each == memory.utterance_bytes(lanes, format)
    frame = BLOCK_FRAMES * CONFIG.mel.hop_samples
    most, rows = 0, gate_rows(lanes, 1, frame // CONFIG.model.conditioning_hop_samples)[0]
    for _ in range(4):
        utterance = engine.utterance
        utterance.give(rows, frame, None, False)
        window = utterance.codes_W2.nbytes + 4 * utterance.gates_NG.numel()
        utterance_held = {**vars(engine), "utterance": None, "_weights": None}
        most = max(most, held_by(utterance_held) + window)
        engine._advance(1.0, {"seed": np.zeros(1, np.uint64)})
    assert 0.9 < most / each <= 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("hidden", "projection"), [(8, 4), (32, 16), (72, 40), (384, 192)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_workspace_is_what_the_library_asks_for(format, hidden, projection, threads):
    sizes = {"hidden": hidden, "projection": projection}
    small = random_voice(replace(CONFIG, model=replace(CONFIG.model, **sizes), prune=PruneConfig()))
    model, _arrays = native.model_of(packed(small, format))
    for lanes in (1, 2, 3, 16):
        assert memory.workspace_bytes(
            hidden, projection, lanes, format, threads
        ) == native.library().wavernn_workspace_bytes(model, lanes, threads)


def test_a_channel_by_hand(voice):
    # halves of 36 units are padded to 48: h 2 x 48 x 4, code 2, sample 8, memory 8,
    # temperature 4, row 8 and 4
    one = memory.memory_bytes(voice, 7, 4) - memory.memory_bytes(voice, 6, 4)
    assert one == 384 + 2 + 8 + 8 + 4 + 8 + 4 + channel_bytes(CONFIG)


def test_a_table_has_the_channels_of_the_reference(voice):
    table = memory.table(voice)
    assert list(table) == ["1", "4", "16", "64"]
    assert table["4"] == memory.memory_bytes(voice, 4, 4)
    assert table["64"] == memory.memory_bytes(voice, 64, 16)


def test_a_subscale_voice_has_a_table_where_its_engine_runs(lanes, monkeypatch):
    assert list(memory.table(lanes)) == ["1", "4", "16", "64"]
    monkeypatch.setenv(native.VARIABLE, "mmx")
    assert memory.table(lanes) == {}


def test_backends_say_what_runs_of_a_subscale_voice():
    assert memory.backends(8)["gpu"] == (kernels.unavailable("gpu", 8) or "runs")
    assert memory.backends(8)["reference"] == "runs"


def test_backends_say_what_runs(monkeypatch):
    monkeypatch.setenv(native.VARIABLE, "")
    said = memory.backends()
    assert list(said) == list(kernels.BACKENDS)
    assert said["cpu"] == f"runs: {native.isas()[0]} (has {', '.join(native.isas())})"
    assert said["reference"] == "runs"
    last = native.isas()[-1]
    monkeypatch.setenv(native.VARIABLE, last)
    assert memory.backends()["cpu"].startswith(f"runs: {last} (has ")
    monkeypatch.setenv(native.VARIABLE, "mmx")
    assert memory.backends()["cpu"].startswith("WAVERNN_ISA=mmx can't run here")
