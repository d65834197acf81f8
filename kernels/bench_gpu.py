"""Speed of a voice on the GPU: long runs of data that is there, and chunks as a service makes them.

The roof is that of float32 arithmetic: a weight that isn't zero is one of the 128 multiply-adds
that a multiprocessor starts in a cycle, on as many multiprocessors as streams keep busy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu import Synthesizer
from wavernn.kernels.gpu.device_bench import clocks
from wavernn.kernels.gpu.device_run import run_s, seconds
from wavernn.kernels.gpu.device_work import Plan, work

# multiply-adds of a multiprocessor in a cycle
MULTIPLY_ADDS = 128
CHUNK_MS = 10.0


def measure(voice: Checkpoint, synthesizer: Synthesizer, streams: int) -> dict[str, Any]:
    """The keys of `bench.bench`; `roof` is None where nvidia-smi doesn't tell the clock."""
    rate_hz, plan = voice.config.mel.rate_hz, Plan()
    nonzeros = sum(int(torch.count_nonzero(w)) for w in voice.model().matrices().values())
    chunk = round(rate_hz * CHUNK_MS / 1000)
    gates_BNG, _ = work(voice, streams, chunk + voice.config.model.conditioning_hop_samples)
    seed_B = np.arange(streams, dtype=np.uint64)

    def speak() -> None:
        synthesizer.reset()
        synthesizer.speak(gates_BNG, chunk, seed_B)

    times = seconds("cuda", speak, plan.seconds, plan.chunks)
    p10, p50, p99 = (1e3 * float(np.percentile(times, p)) for p in (10, 50, 99))
    launch_s = run_s(synthesizer.kernel, voice, streams, 1, plan)
    whole_s = run_s(synthesizer.kernel, voice, streams, plan.timed, plan)
    samples_per_s = streams * plan.timed / whole_s
    device = torch.cuda.get_device_properties(synthesizer.device)
    roof = _roof(nonzeros, min(streams, device.multi_processor_count))
    return {
        "kernel": synthesizer.kernel.name,
        "isa": device.name,
        "format": synthesizer.format,
        "recipe": voice.config.name,
        "nonzeros": nonzeros,
        "streams": streams,
        "threads": 0,
        "samples_per_s": samples_per_s,
        "realtime_factor": samples_per_s / rate_hz,
        "p10": p10,
        "p50_ms": p50,
        "p99_ms": p99,
        "chunk_ms": 1e3 * chunk / rate_hz,
        "roof": roof,
        "roof_share": roof and samples_per_s / roof,
        "bound": "multiply-adds",
        "parts": {"launch_us": 1e6 * launch_s, "loop_us": 1e6 * whole_s / plan.timed},
        "bytes": 2 * nonzeros,
    }


def _roof(nonzeros: int, multiprocessors: int) -> float | None:
    known = clocks()
    if known is None or not nonzeros:
        return None
    hz = 1e6 * float(known["clocks.max.sm"].split()[0])
    return multiprocessors * MULTIPLY_ADDS * hz / nonzeros
