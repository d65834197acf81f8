"""Calls for a kernel in Triton's interpreter, with room that shows what it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu.call import Call

# no code and no sample: what a kernel must leave, or overwrite
UNWRITTEN = (77, float("nan"))


def call(
    voice: Checkpoint,
    work: Any,
    streams: list[int] | None = None,
    steps: list[int] | None = None,
    temperature: float = 1.0,
    known_BT2: np.ndarray | None = None,
) -> Call:
    """A call from silence that makes all of `work`, or `steps` samples of each of `streams`."""
    B, T, _ = work.uniform_BT2.shape
    streams = list(range(B)) if streams is None else streams
    known = None if known_BT2 is None else torch.from_numpy(known_BT2)
    return Call(
        h_BH=torch.zeros(B, voice.config.model.hidden),
        code_B2=torch.tensor([[128, 0]] * B, dtype=torch.int32),
        sample_B=torch.zeros(B, dtype=torch.int64),
        memory_B=torch.zeros(B, dtype=torch.float64),
        stream_L=torch.tensor(streams, dtype=torch.int32),
        steps_L=torch.tensor([T] * len(streams) if steps is None else steps, dtype=torch.int32),
        start=0,
        gates_BNG=work.gates_BNG,
        temperature_B=torch.full((B,), temperature),
        codes_BT2=torch.full((B, T, 2), UNWRITTEN[0], dtype=torch.uint8),
        audio_BT=torch.full((B, T), UNWRITTEN[1]),
        uniform_BT2=None if known_BT2 is not None else torch.from_numpy(work.uniform_BT2),
        known_BT2=known,
        logits_BT2Q=None if known is None else torch.full((B, T, 2, 256), UNWRITTEN[1]),
    )


def state(call: Call) -> dict[str, torch.Tensor]:
    """What a call carries on: h, code, sample and memory of all streams."""
    return {
        "h": call.h_BH,
        "code": call.code_B2,
        "sample": call.sample_B,
        "memory": call.memory_B,
    }


def same(one: Call, other: Call, rows: Any = slice(None), other_rows: Any = slice(None)) -> bool:
    """Whether streams of two calls have the same bits: state, codes and audio."""
    pairs = [(state(one)[name], state(other)[name]) for name in state(one)]
    pairs += [(one.codes_BT2, other.codes_BT2), (one.audio_BT, other.audio_BT)]
    return all(
        np.array_equal(a[rows].numpy(), b[other_rows].numpy(), equal_nan=a.is_floating_point())
        for a, b in pairs
    )
