import json
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from wavernn.conditioning import BLOCK_FRAMES, Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig, TrainConfig
from wavernn.cost import (
    channel_bytes,
    describe,
    memory_bytes,
    operations_per_sample,
    weight_bytes,
)
from wavernn.kernels import reference_fused, reference_subscale
from wavernn.kernels.bench import random_voice
from wavernn.kernels.reference import Synthesizer
from wavernn.rng import uniforms

MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=16, bands=5, high_hz=4000
)
MODEL = ModelConfig(
    hidden=8,
    projection=4,
    embedding=2,
    channels=6,
    layers=1,
    lookahead_frames=2,
    conditioning_hop_samples=4,
)
CONFIG = Config("tiny", MEL, MODEL, train=TrainConfig(slice_samples=256))


def storages(thing, found=None):
    """Bytes by address of all memory that an object's tensors and arrays hold."""
    found = {} if found is None else found
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif isinstance(thing, np.ndarray):
        found[thing.ctypes.data] = thing.nbytes
    elif isinstance(thing, nn.Module):
        for tensor in (*thing.parameters(), *thing.buffers()):
            storages(tensor, found)
    elif isinstance(thing, dict | list | tuple | deque):
        for part in thing.values() if isinstance(thing, dict) else thing:
            storages(part, found)
    elif hasattr(thing, "__dict__"):
        storages(vars(thing), found)
    return found


@pytest.mark.parametrize(
    "fields",
    [{}, {"layers": 0, "input": "scalar", "lookahead_frames": 0}],
    ids=["embedding", "scalar"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_is_what_the_reference_engine_holds(channels, fields):
    voice = random_voice(replace(CONFIG, model=replace(MODEL, **fields)))
    engine = [voice, Synthesizer(voice, channels)]
    conditionings = [Conditioning(voice) for _ in range(channels)]
    for conditioning in conditionings:
        conditioning.model = conditionings[0].model
    most = 0
    for frame in torch.randn(30, 1, MEL.bands):
        # the channels of a chunk stand at the same frame, each with a block of gate input
        blocks = zip(*(conditioning.push(frame) for conditioning in conditionings), strict=True)
        for rows in blocks:
            held = storages([engine, conditionings, rows])
            most = max(most, sum(held.values()))
    assert most == memory_bytes(voice.config, channels)


SUBSCALE = {"subscale": 4, "subscale_horizon": 2, "context_channels": 6, "context_layers": 2}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("horizon", [0, 3])
def test_memory_of_a_subscale_voice_is_close_to_what_its_reference_holds(channels, horizon):
    model = replace(MODEL, **(SUBSCALE | {"subscale_horizon": horizon}))
    voice = random_voice(replace(CONFIG, model=model))
    engines = [reference_subscale.Synthesizer(voice) for _ in range(channels)]
    conditionings = [Conditioning(voice) for _ in range(channels)]
    for conditioning in conditionings:
        conditioning.model = conditionings[0].model
    hop, most = model.conditioning_hop_samples, 0
    for start in range(0, 40, BLOCK_FRAMES):
        frames = torch.randn(BLOCK_FRAMES, MEL.bands)
        for engine, conditioning in zip(engines, conditionings, strict=True):
            for rows in conditioning.push(frames):
                samples = len(rows) * hop
                # what was made is held until the next call
                engine.utterance.give(rows, samples, uniforms(0, start, samples), False)
                held = storages([voice, engines, conditionings, rows])
                most = max(most, sum(held.values()))
                engine._advance(1.0, known=False)
    assert 0.9 < most / memory_bytes(voice.config, channels) <= 1


def test_memory_of_a_fused_voice_is_close_to_what_its_reference_holds():
    voice = random_voice(replace(CONFIG, model=replace(MODEL, fused=2)))
    engines = [reference_fused.Synthesizer(voice) for _ in range(2)]
    conditionings = [Conditioning(voice) for _ in range(2)]
    conditionings[1].model = conditionings[0].model
    hop, most = MODEL.conditioning_hop_samples, 0
    for start in range(0, 40, BLOCK_FRAMES):
        frames = torch.randn(BLOCK_FRAMES, MEL.bands)
        for engine, conditioning in zip(engines, conditionings, strict=True):
            for rows in conditioning.push(frames):
                samples = len(rows) * hop
                engine.utterance.give(rows, samples, uniforms(0, start, samples), False)
                held = storages([voice, engines, conditionings, rows])
                most = max(most, sum(held.values()))
                engine._advance(1.0, known=False)
    assert 0.9 < most / memory_bytes(voice.config, 2) <= 1


def test_bytes_of_a_context_by_hand():
    model = random_voice(replace(CONFIG, model=replace(MODEL, **SUBSCALE))).model()
    plain = random_voice(CONFIG).model()
    # X 24 x 6; two layers 6 x 6 x 2 and 6; half of 3 x 2 vectors of 6
    more = {"float32": 4 * 144 + 4 * 174, "bfloat16": 2 * 144 + 4 * 174, "int8": 144 + 4 * 174}
    less = weight_bytes(plain, 4, 4)
    assert weight_bytes(model, 4, 4) == {name: less[name] + n for name, n in more.items()}


def test_memory_of_a_channel_by_hand():
    # 4 + 8 + 2 frames of 5 bands; 8 frames x 4 rows of 24 gates
    assert channel_bytes(CONFIG) == 14 * 20 + 32 * 24 * 4
    # h 8 x 8, code 2, sample 8, memory 8
    one = memory_bytes(CONFIG, 5) - memory_bytes(CONFIG, 4)
    assert one == 64 + 2 + 8 + 8 + channel_bytes(CONFIG)


def test_operations_by_hand():
    model = random_voice(CONFIG).model()
    assert operations_per_sample(model) == {
        # 24 x 8
        "recurrence": 192,
        # twice 4 x 4 and 256 x 4
        "heads": 2080,
        # two rows of 24 and one of 12
        "input": 60,
        # ten elementwise steps a unit
        "gates": 80,
        # exp, sum and compare, 256 levels twice
        "softmax": 1536,
        # a frame of 16 samples: enter 5 x 5 x 6, layer 3 x 6 x 6, narrow 6 x 6, spread 6 x 24,
        # and 4 rows of gates 6 x 24
        "conditioner": (150 + 108 + 36 + 144 + 4 * 144) / 16,
    }


def test_zeros_cost_no_operations():
    voice = random_voice(CONFIG)
    tensors = {name: tensor.clone() for name, tensor in voice.tensors.items()}
    tensors["R"][:8] = 0
    tensors["O4.weight"][:, 1:] = 0
    pruned = operations_per_sample(replace(voice, tensors=tensors).model())
    assert pruned["recurrence"] == 192 - 64
    assert pruned["heads"] == 2080 - 768


def test_weight_bytes_by_hand():
    dense = random_voice(CONFIG)
    # 192 + 2080 weights, and rows of 24, 24 and 12
    expected = {"float32": 4 * 2332, "bfloat16": 2 * 2332, "int8": 2272 + 2 * 60}
    assert weight_bytes(dense.model(), 4, 4) == expected
    # half of R_u's four blocks of 4 x 4, 16 weights each, with an index of 2 bytes
    prune = PruneConfig(4, 4, density={"R_u": 0.5})
    sparse = random_voice(replace(CONFIG, prune=prune))
    assert weight_bytes(sparse.model(), 4, 4) == {
        "float32": 4 * (2332 - 32) + 4,
        "bfloat16": 2 * (2332 - 32) + 4,
        "int8": 2272 - 32 + 120 + 4,
    }


def test_a_description_has_the_keys_of_the_design():
    prune = PruneConfig(4, 4, density={"R_e": 0.25})
    voice = random_voice(replace(CONFIG, prune=prune))
    table = describe(voice, {"reference": "runs"})
    named = "config density nonzeros parameters operations_per_sample bytes memory backends"
    assert table.keys() >= set(named.split())
    assert json.loads(json.dumps(table)) == table
    assert table["density"] == {**dict.fromkeys(["R_u", "R_r"], 1.0), "R_e": 0.25} | {
        f"O{i}": 1.0 for i in (1, 2, 3, 4)
    }
    assert table["nonzeros"] == 192 - 48 + 2080
    assert table["parameters"] == sum(p.numel() for p in voice.model().parameters())
    assert table["memory"]["16"] == memory_bytes(voice.config, 16)
    assert table["backends"] == {"reference": "runs"}
