"""What a voice costs: operations per sample, bytes of weights, memory for a number of channels."""

from __future__ import annotations

from typing import Any

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import BLOCK_FRAMES
from wavernn.config import Config
from wavernn.model import LEVELS, WaveRNN
from wavernn.sparse import density


def operations_per_sample(model: WaveRNN) -> dict[str, float]:
    """Multiply-adds per sample by part, zeros left out; gates and softmax as elementwise steps.

    `input` counts the row of each of c_{t-1}, f_{t-1} and c_t that is added to the gates, and
    `context` of a subscale voice is what it sees of earlier sub-tensors.
    """
    kept = {name: torch.count_nonzero(w).item() for name, w in model.matrices().items()}
    # a bias is where a sum starts
    conditioner = sum(w.numel() for w in model.conditioner.parameters() if w.ndim > 1)
    steps = model.conditioner.steps_per_frame
    hop = steps * model.config.conditioning_hop_samples
    H = model.config.hidden
    parts = {
        "recurrence": float(sum(v for k, v in kept.items() if k.startswith("R"))),
        "heads": float(sum(v for k, v in kept.items() if k.startswith("O"))),
        "input": 2 * 3 * H + 3 * H / 2,
        "gates": 10.0 * H,
        "softmax": 2 * 3.0 * LEVELS,
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
    that enter the gates are 16 bit wide in every format but float32.
    """
    kept, blocks = 0, 0
    for weight in model.matrices().values():
        nonzero = int(torch.count_nonzero(weight))
        kept += nonzero
        if nonzero < weight.numel():
            blocks += -(-nonzero // (block_rows * block_columns))
    rows = 15 * model.config.hidden // 2
    return {
        "float32": 4 * (kept + rows) + 2 * blocks,
        "bfloat16": 2 * (kept + rows) + 2 * blocks,
        "int8": kept + 2 * rows + 2 * blocks,
    }


def _sizes(config: Config) -> dict[str, int]:
    """Numbers of a voice's tensors, by name."""
    with torch.device("meta"):
        state = WaveRNN(config.model, config.mel).state_dict()
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
    last code, its sample index, the de-emphasis' memory, and what the conditioner keeps.
    """
    loop = ("R", "I_", "rows", "O", "X", "context")
    weights = 8 * sum(n for name, n in _sizes(config).items() if name.startswith(loop))
    channel = 8 * config.model.hidden + 2 + 8 + 8 + channel_bytes(config)
    return checkpoint_bytes(config) + weights + channels * channel


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
