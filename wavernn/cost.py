"""What a voice costs: operations per sample, bytes of weights, memory for a number of channels."""

from __future__ import annotations

from typing import Any

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import BLOCK_FRAMES
from wavernn.config import Config
from wavernn.fused import NIBBLES, network
from wavernn.model import LEVELS, WaveRNN
from wavernn.sparse import density
from wavernn.subscale import Order


def operations_per_sample(model: WaveRNN) -> dict[str, float]:
    """Multiply-adds per sample by part, zeros left out; gates and softmax as elementwise steps.

    `input` counts the row of each of c_{t-1}, f_{t-1} and c_t that is added to the gates, and
    `context` of a subscale voice is what it sees of earlier sub-tensors. A step of a fused voice
    is two samples.
    """
    kept = {name: torch.count_nonzero(w).item() for name, w in model.matrices().items()}
    # a bias is where a sum starts
    conditioner = sum(w.numel() for w in model.conditioner.parameters() if w.ndim > 1)
    steps = model.conditioner.steps_per_frame
    hop = steps * model.config.conditioning_hop_samples
    H, at_once = model.config.hidden, model.config.fused
    parts = {
        "recurrence": sum(v for k, v in kept.items() if k.startswith("R")) / at_once,
        "heads": sum(v for k, v in kept.items() if k.startswith("O")) / at_once,
        # fused: of four known samples a row and a product, and a row for c, d and f each
        "input": 2 * 3 * H + 3 * H / 2 if at_once == 1 else (4 * 2 * 3 * H + 3 * H) / 2,
        "gates": 10.0 * H / at_once,
        "softmax": 2 * 3.0 * LEVELS if at_once == 1 else 4 * 3.0 * NIBBLES,
        "conditioner": (conditioner + steps * model.gates.weight.numel()) / hop,
    }
    if model.config.subscale > 1:
        # a column of each sub-tensor; in the first layer bytes look their products up
        taps = sum(w.numel() for w in model.context.layers.parameters() if w.ndim == 3)
        enter = model.context.enter.weight.numel()
        parts["context"] = float(sum(v for k, v in kept.items() if k[0] == "X") + taps + enter)
    return parts


def weight_bytes(model: WaveRNN, block_rows: int, block_columns: int) -> dict[str, int]:
    """Bytes that the sample loop reads per sample, by number format.

    Sparse matrices carry a 16-bit index per block of block_rows x block_columns; the three rows
    that enter the gates are 16 bit wide in every format but float32. A subscale voice reads all of
    it once for the samples of a tick; what its lanes see of each other is float32 in all formats.
    """
    kept, blocks = 0, 0
    for weight in model.matrices().values():
        nonzero = int(torch.count_nonzero(weight))
        kept += nonzero
        if nonzero < weight.numel():
            blocks += -(-nonzero // (block_rows * block_columns))
    # 2 1/2 rows of 3H a sample, or 5 a step of two samples
    rows, at_once = 15 * model.config.hidden // 2, model.config.fused
    kept, blocks = kept // at_once, blocks // at_once
    # fused: what a unit of four fine bytes adds is float32
    more = 0 if at_once == 1 else 4 * 4 * 3 * model.config.hidden // 2
    if model.config.subscale > 1:
        # convolutions, and of each earlier sample in the column, half of all, a row and a vector
        context = sum(w.numel() for w in model.context.layers.parameters())
        context += (model.config.subscale - 1) * model.config.context_channels
        more += 4 * context
    return {
        "float32": 4 * (kept + rows) + 2 * blocks + more,
        "bfloat16": 2 * (kept + rows) + 2 * blocks + more,
        "int8": kept + 2 * rows + 2 * blocks + more,
    }


def _sizes(config: Config) -> dict[str, int]:
    """Numbers of a voice's tensors, by name."""
    with torch.device("meta"):
        state = network(config.model, config.mel).state_dict()
    return {name: tensor.numel() for name, tensor in state.items()}


def checkpoint_bytes(config: Config) -> int:
    """Bytes of float32 weights that every engine holds: the checkpoint's, the conditioner's."""
    return 2 * 4 * sum(_sizes(config).values())


def channel_bytes(config: Config) -> int:
    """Bytes that the conditioner keeps for a channel in every engine.

    The mel frames that it still needs where they arrive one by one; a block of gate input passes
    through.
    """
    model, bands = config.model, config.mel.bands
    frames = model.history_frames + BLOCK_FRAMES + model.lookahead_frames
    steps = config.mel.hop_samples // model.conditioning_hop_samples
    return 4 * frames * bands + 4 * BLOCK_FRAMES * steps * model.gate_rows


def memory_bytes(config: Config, channels: int) -> int:
    """Bytes that the reference engine holds for a number of channels, weights included.

    The weights of the sample loop stand once more in float64. A channel keeps h in float64, its
    last code, its sample index, the de-emphasis' memory, and what the conditioner keeps. One of a
    subscale or fused voice has state and weights of its own.
    """
    loop = ("R", "I_", "rows", "upper", "O", "X", "context")
    weights = 8 * sum(n for name, n in _sizes(config).items() if name.startswith(loop))
    if not config.model.plain:
        each = weights + _utterance_bytes(config) + channel_bytes(config)
        return checkpoint_bytes(config) + channels * each
    channel = 8 * config.model.hidden + 2 + 8 + 8 + channel_bytes(config)
    return checkpoint_bytes(config) + weights + channels * channel


def _utterance_bytes(config: Config) -> int:
    """Bytes of the reference's lanes, and of what it's given ahead, but for the loop's weights."""
    model, order = config.model, Order.of(config.model)
    lanes = model.subscale * (8 * model.hidden + 2 + 8 + 8)
    context = 0
    if model.subscale > 1:
        # of e the last F + 1, of which the first layer sees two; of others' input the last 2^j + 1
        columns = max(order.lag_steps, 2)
        columns += sum((1 << j) + 1 for j in range(1, model.context_layers))
        # and the rows of bytes once more
        context = 8 * (model.subscale * columns * model.context_channels + _sizes(config)["rows"])
    samples = order.held(BLOCK_FRAMES * config.mel.hop_samples)
    rows = samples // model.conditioning_hop_samples + 2
    # codes, draws and gate input
    window = (2 + 8) * samples + 4 * rows * model.gate_rows
    return lanes + context + window


def describe(voice: Checkpoint, backends: dict[str, str]) -> dict[str, Any]:
    """Everything that `wavernn info` says of a voice, with the keys of its JSON form."""
    model = voice.model()
    matrices = model.matrices()
    prune = voice.config.prune
    return {
        "config": voice.config.to_dict(),
        "provenance": dict(voice.provenance),
        "sha256": voice.sha256,
        "density": {name: density(weight) for name, weight in matrices.items()},
        "nonzeros": sum(int(torch.count_nonzero(w)) for w in matrices.values()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "operations_per_sample": operations_per_sample(model),
        "bytes": weight_bytes(model, prune.block_rows, prune.block_columns),
        "memory": {str(n): memory_bytes(voice.config, n) for n in (1, 4, 16, 64)},
        "backends": backends,
    }
