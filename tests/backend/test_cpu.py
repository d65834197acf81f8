"""What the native engine promises beyond other backends: the same bits everywhere."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.config import PRUNABLE, PruneConfig
from wavernn.kernels import cpu
from wavernn.sparse import block_mask

FORMATS = ("int8", "float32")
T = 50
VOICES = {
    "dense": {"hidden": 64, "projection": 32},
    "sparse": {"hidden": 128, "projection": 64, "kept": 0.1},
    "sparse-8x4": {"hidden": 64, "projection": 32, "kept": 0.3, "shape": (8, 4)},
    "no-block-multiple": {"hidden": 70, "projection": 21},
    "smallest": {"hidden": 2, "projection": 1, "embedding": 1},
    "scalar": {"hidden": 40, "projection": 16, "input": "scalar"},
    # more than 32767 for the largest weight of a row would overflow its sum
    "wide": {"hidden": 160, "projection": 128},
    # products and sums too small for a float32's exponent
    "tiny-weights": {"hidden": 32, "projection": 16, "scale": 1e-20},
    # gates at their ends
    "large-weights": {"hidden": 32, "projection": 16, "scale": 1e4},
}


@pytest.fixture(scope="module")
def voices(make_voice):
    """Voices by the names of VOICES."""

    def make(kept=1.0, shape=(16, 4), scale=1.0, **fields):
        voice = make_voice(**fields)
        tensors = {name: tensor * scale for name, tensor in voice.tensors.items()}
        prune = PruneConfig(*shape, density=dict.fromkeys(PRUNABLE, kept))
        matrices = [*tensors["R"].chunk(3), *(tensors[f"O{i}.weight"] for i in (1, 2, 3, 4))]
        for matrix in matrices if kept < 1 else []:
            matrix *= block_mask(matrix, kept, prune)
        config = replace(voice.config, prune=prune) if kept < 1 else voice.config
        return replace(voice, tensors=tensors, config=config)

    return {name: make(**fields) for name, fields in VOICES.items()}


def everything(synthesizer, work):
    """Codes, logits, audio and states of a few calls."""
    streams = len(work.uniform_BT2)
    codes = synthesizer.run(work.gates_BNG, work.uniform_BT2, temperature=0.8)
    states = [synthesizer.state()]
    synthesizer.reset()
    logits = synthesizer.score(work.gates_BNG, codes)
    states.append(synthesizer.state())
    synthesizer.reset()
    audio = synthesizer.speak(work.gates_BNG, T, np.arange(streams, dtype=np.uint64))
    states.append(synthesizer.state())
    return [codes, *logits, audio, *(array for state in states for array in state.values())]


def same(some, others):
    # bit by bit, so that NaN is NaN and 0 isn't -0
    return [a.tobytes() for a in some] == [b.tobytes() for b in others]


@pytest.mark.parametrize("streams", [1, 7, 17], ids="B{}".format)
@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_instruction_set_gives_the_same_bits(isas, voices, make_work, format, name, streams):
    work = make_work(voices[name], streams, T)
    results = [
        everything(cpu.Synthesizer(voices[name], streams, format, isa=isa), work) for isa in isas
    ]
    assert all(same(result, results[-1]) for result in results)
    assert len(np.unique(results[-1][0])) > 5


@pytest.mark.parametrize("format", FORMATS)
def test_logits_that_overflow_draw_some_level(isas, make_voice, make_work, format):
    voice = make_voice()
    heads = {name: tensor * 1e30 for name, tensor in voice.tensors.items() if name[0] == "O"}
    voice = replace(voice, tensors={**voice.tensors, **heads})
    work, results = make_work(voice, 7, T), []
    for isa in isas:
        synthesizer = cpu.Synthesizer(voice, 7, format, isa=isa)
        codes = synthesizer.run(work.gates_BNG, work.uniform_BT2)
        results.append([codes, *synthesizer.state().values()])
    # what a level beyond the last would lead to lies outside of the voice
    assert all(same(result, results[-1]) for result in results)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", ["sparse", "no-block-multiple", "smallest"])
@pytest.mark.parametrize("format", FORMATS)
def test_threads_may_share_out_the_rows(isas, voices, make_work, format, name, threads):
    # fewer streams than threads, and as many, which share out the streams
    for streams in (1, threads - 1, threads):
        work = make_work(voices[name], streams, T)
        whole = cpu.Synthesizer(voices[name], streams, format)
        split = cpu.Synthesizer(voices[name], streams, format, threads, split_rows=True)
        assert same(everything(whole, work), everything(split, work))


@pytest.mark.parametrize("format", FORMATS)
def test_threads_share_out_the_rows_on_every_instruction_set(isas, voices, make_work, format):
    work = make_work(voices["dense"], 1, T)
    whole = everything(cpu.Synthesizer(voices["dense"], 1, format), work)
    for isa in isas:
        split = cpu.Synthesizer(voices["dense"], 1, format, 2, isa, split_rows=True)
        assert same(whole, everything(split, work))


def test_rows_are_shared_out_beyond_the_cache(isas, voices, monkeypatch):
    voice = voices["wide"]
    sizes = [cpu.Synthesizer(voice, 1, format).weight_bytes for format in FORMATS]
    # 76800 weights of R, 20480 of O1 and O3, 65536 of O2 and O4; two bytes for those of e and O2
    assert sizes == [76800 + 20480 + 65536 + 25600 + 32768, 4 * (76800 + 20480 + 65536)]
    for format, size in zip(FORMATS, sizes, strict=True):
        monkeypatch.setattr(cpu, "l2_bytes", lambda size=size: size)
        assert not cpu.Synthesizer(voice, 1, format, 2).split_rows
        monkeypatch.setattr(cpu, "l2_bytes", lambda size=size: size - 1)
        assert cpu.Synthesizer(voice, 1, format, 2).split_rows


def subnormal_is_a_number():
    small = np.full(64, 1e-40, np.float32)
    return (small * np.float32(1) != 0).all() and np.float32(1e-40) * np.float32(1) != 0


@pytest.mark.parametrize("format", FORMATS)
def test_the_callers_arithmetic_is_left_as_it_was(isas, voices, make_work, format):
    work, numbers = make_work(voices["dense"], 3, T), []
    assert subnormal_is_a_number()

    def speak(isa, threads):
        synthesizer = cpu.Synthesizer(voices["dense"], 3, format, threads, isa)
        synthesizer.speak(work.gates_BNG, T, np.zeros(3, np.uint64))
        numbers.append(subnormal_is_a_number())
        numbers.append(bool(torch.full((8,), 1e-40).mul(1).ne(0).all()))

    for isa in isas:
        speak(isa, 1)
        speak(isa, 2)
        other = threading.Thread(target=speak, args=(isa, 2))
        other.start()
        other.join()
    assert len(numbers) == 6 * len(isas)
    assert all(numbers)


def test_other_threads_run_meanwhile(isas, voices, make_work):
    voice = voices["wide"]
    work = make_work(voice, 1, 20000)
    synthesizer, turns, done = cpu.Synthesizer(voice, 1, isa="baseline"), 0, threading.Event()

    def speak():
        synthesizer.speak(work.gates_BNG, 2000, np.zeros(1, np.uint64))
        done.set()

    other = threading.Thread(target=speak)
    other.start()
    while not done.is_set():
        time.sleep(1e-3)
        turns += 1
    other.join()
    # a call that held the interpreter would let this thread go on once
    assert turns > 5


def test_a_number_of_threads_is_at_least_one(isas, voices):
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        cpu.Synthesizer(voices["dense"], 1, threads=0)
