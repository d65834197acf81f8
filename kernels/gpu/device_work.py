"""What is run on a device to check and to time a kernel: voices, work and launches."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu import weights
from wavernn.kernels.gpu.call import Call, Kernel
from wavernn.model import LEVELS, SILENT_CODE
from wavernn.rng import uniforms


@dataclass(frozen=True)
class Plan:
    """How much is run: samples and lanes of each measurement."""

    device: str = "cuda"
    # streams and samples whose draws are checked
    streams: int = 5
    checked: tuple[int, ...] = (4, 64, 2400)
    # samples of the graph that the reference checks on the CPU
    referred: int = 48
    lanes: tuple[int, ...] = (1, 4, 16, 64, 132, 528)
    timed: int = 2400
    # samples of a chunk of 10 ms at 24 kHz, and how many are timed on how many lanes
    chunk: int = 240
    chunks: int = 200
    chunk_lanes: tuple[int, ...] = (1, 16, 132)
    # seconds that one figure may take, beyond three runs; a latency has four times as many
    seconds: float = 0.5


SMALL = Plan(
    device="cpu",
    streams=2,
    checked=(2,),
    referred=2,
    lanes=(2,),
    timed=2,
    chunk=2,
    chunks=2,
    chunk_lanes=(1,),
    seconds=0.01,
)


def lively(voice: Checkpoint) -> Checkpoint:
    """The voice with matrices scaled to distributions that are peaked, and states that move."""
    tensors = dict(voice.tensors)
    for name in weights.MATRICES:
        # the mean norm of a row: the state's spectrum stays within the unit circle
        gain = 1.0 if name == "R" else 3.0
        tensors[name] = tensors[name] * (gain / tensors[name].norm(dim=1).mean())
    return replace(voice, tensors=tensors)


def work(voice: Checkpoint, streams: int, samples: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Gate input [B, N, G] and draws [B, T, 2]."""
    model = voice.config.model
    rows = (samples - 1) // model.conditioning_hop_samples + 2
    random = torch.Generator().manual_seed(seed)
    gates_BNG = torch.randn(streams, rows, model.gate_rows, generator=random)
    return gates_BNG, np.stack([uniforms(seed * 1000 + b, 0, samples) for b in range(streams)])


def call_of(
    voice: Checkpoint,
    device: str,
    lanes: int,
    samples: int,
    known_BT2: np.ndarray | None = None,
    exact: bool = False,
) -> Call:
    """A run of `work` from the start, a lane a stream; `exact` holds state and logits in float64.

    More than 64 lanes repeat the work of 64.
    """
    B, T = lanes, samples
    gates_BNG, uniform = work(voice, min(B, 64), T)
    repeats = -(-B // 64)
    gates_BNG = gates_BNG.to(device).repeat(repeats, 1, 1)[:B].contiguous()
    uniform_BT2 = torch.from_numpy(uniform).to(device).repeat(repeats, 1, 1)[:B].contiguous()
    real = torch.float64 if exact else torch.float32
    known = None if known_BT2 is None else torch.from_numpy(known_BT2).to(device)
    on: dict[str, Any] = {"device": device}
    return Call(
        h_BH=torch.zeros(B, voice.config.model.hidden, dtype=real, **on),
        code_B2=torch.tensor([SILENT_CODE], dtype=torch.int32, **on).repeat(B, 1),
        sample_B=torch.zeros(B, dtype=torch.int64, **on),
        memory_B=torch.zeros(B, dtype=torch.float64, **on),
        stream_L=torch.arange(B, dtype=torch.int32, **on),
        steps_L=torch.full((B,), T, dtype=torch.int32, **on),
        start=0,
        gates_BNG=gates_BNG,
        temperature_B=torch.ones(B, **on),
        codes_BT2=torch.zeros(B, T, 2, dtype=torch.uint8, **on),
        audio_BT=torch.zeros(B, T, **on),
        uniform_BT2=uniform_BT2 if known is None else None,
        known_BT2=known,
        logits_BT2Q=None if known is None else torch.zeros(B, T, 2, LEVELS, dtype=real, **on),
    )


def launches(kernel: Kernel, call: Call) -> list[Call]:
    """A call cut to as many lanes as the kernel takes."""
    n = kernel.lanes
    return [
        replace(call, stream_L=call.stream_L[i : i + n], steps_L=call.steps_L[i : i + n])
        for i in range(0, len(call.stream_L), n)
    ]


def judged(kernel: Kernel, voice: Checkpoint) -> Checkpoint:
    """The voice that a kernel really runs, where packing it loses more than its format does."""
    effective: Checkpoint | None = getattr(kernel, "effective", None)
    return weights.rounded(voice, kernel.format) if effective is None else effective


def loaded() -> list[dict[str, Any]]:
    """The machine code that this process has loaded: registers, spills and shared memory."""
    found = []
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("wavernn.kernels.gpu."):
            continue
        for function in list(vars(module).values()):
            if getattr(function, "__module__", None) != module_name:
                continue
            for cache, *_ in dict(getattr(function, "device_caches", {})).values():
                for kernel in cache.values():
                    kernel._init_handles()
                    row = {"function": function.__name__, "registers": kernel.n_regs}
                    row |= {"spills": kernel.n_spills, "shared": kernel.metadata.shared}
                    found.append(row)
    return found
