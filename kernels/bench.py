"""Speed of a voice on a backend, in one process with the roof it is measured against.

One JSON line a row, with the keys of the design: real-time factor, latency of a chunk, share of
the roof. The roof of the reference is the rate at which this machine reads its weights; that of the
native engine is `roofs.roof`.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.config import Config
from wavernn.fused import network
from wavernn.kernels import check
from wavernn.rng import uniforms
from wavernn.source import commit
from wavernn.sparse import block_mask
from wavernn.subscale import Order

CHUNK_MS = 10.0


def random_voice(config: Config) -> Checkpoint:
    """A voice of a recipe with random weights, its pruned matrices at their final density."""
    torch.manual_seed(0)
    model = network(config.model, config.mel)
    for name, weight in model.matrices().items():
        density = config.prune.density.get(name, 1.0)
        if density < 1:
            weight.mul_(block_mask(weight, density, config.prune))
    return Checkpoint(config, model.state_dict())


def machine() -> dict[str, Any]:
    """What a row says of the machine and the programs."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        pass
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    return {"machine": name, "versions": versions, "commit": commit(Path(__file__).resolve())}


def read_rate(size: int, repeats: int = 15) -> float:
    """Bytes per second at which this process sums an array of `size` bytes, the best of several."""
    array = torch.ones(max(size // 8, 1), dtype=torch.float64)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.numel() * 8 / best


def bench(
    voice: Checkpoint,
    backend: str,
    streams: int,
    seconds: float = 0.1,
    format: str | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Times a voice with random mel; `threads` are the engine's, not torch's.

    The native engine runs windows of about 2 ms (`bench_cpu`), a GPU long runs (`bench_gpu`), the
    reference chunks of 10 ms of `streams` streams, `seconds` of audio each.
    """
    if Order.of(voice.config.model).factor > 1:
        from wavernn.kernels import bench_subscale

        if streams > 1:
            check.check_plain(voice.config.model)
        return machine() | bench_subscale.measure(voice, backend, format, threads)
    synthesizer = kernels.load(backend)(voice, streams, format, threads)
    # what "auto" took
    backend = type(synthesizer).__module__.split(".")[2]
    if backend == "cpu":
        from wavernn.kernels import bench_cpu, cpu

        assert isinstance(synthesizer, cpu.Synthesizer)
        return machine() | bench_cpu.measure(voice, synthesizer, streams)
    if backend == "gpu":
        from wavernn.kernels import bench_gpu, gpu

        assert isinstance(synthesizer, gpu.Synthesizer)
        return machine() | {"backend": backend} | bench_gpu.measure(voice, synthesizer, streams)
    return machine() | {"backend": backend} | _bench_chunks(voice, synthesizer, streams, seconds)


def _bench_chunks(
    voice: Checkpoint, synthesizer: kernels.Synthesizer, streams: int, seconds: float
) -> dict[str, Any]:
    """The rate of the median chunk, and reading the loop's weights as the roof."""
    config, rate_hz = voice.config, voice.config.mel.rate_hz
    model = voice.model()
    hop = config.model.conditioning_hop_samples
    frames = max(int(seconds * rate_hz / config.mel.hop_samples), 4)
    conditioning = Conditioning(voice)
    mel_NM = model.conditioner.mean_M + torch.randn(frames, config.mel.bands)
    started = time.perf_counter()
    gates_NG = torch.cat(list(conditioning.push(mel_NM, last=True)))
    conditioner_s = (time.perf_counter() - started) / (frames * config.mel.hop_samples)
    total = len(gates_NG) * hop
    chunk = max(int(rate_hz * CHUNK_MS / 1000), 1)
    uniform_BT2 = np.stack([uniforms(stream, 0, total) for stream in range(streams)])
    gates_BNG = gates_NG.expand(streams, -1, -1)
    times = []
    for start in range(0, total - chunk, chunk):
        rows = gates_BNG[:, start // hop : (start + chunk - 1) // hop + 1]
        started = time.perf_counter()
        synthesizer.run(rows, uniform_BT2[:, start : start + chunk])
        times.append(time.perf_counter() - started)
    p10_s, p50_s, p99_s = np.percentile(times, [10, 50, 99])
    samples_per_s = streams * chunk / p50_s
    width = 4 if synthesizer.format == "float32" else 8
    loop_bytes = width * sum(
        w.numel() for w in [*model.matrices().values(), model.I_past, model.I_now]
    )
    roof = read_rate(loop_bytes) / loop_bytes
    return {
        "kernel": type(synthesizer).__module__.rpartition(".")[2],
        "isa": torch.backends.cpu.get_cpu_capability(),
        "format": synthesizer.format,
        "recipe": config.name,
        "nonzeros": sum(int(torch.count_nonzero(w)) for w in model.matrices().values()),
        "streams": streams,
        "threads": torch.get_num_threads(),
        "samples_per_s": samples_per_s,
        "realtime_factor": samples_per_s / rate_hz,
        "p10": 1e3 * p10_s,
        "p50_ms": 1e3 * p50_s,
        "p99_ms": 1e3 * p99_s,
        "chunk_ms": 1e3 * chunk / rate_hz,
        "roof": roof,
        "roof_share": samples_per_s / roof,
        "bound": "read",
        "parts": {"conditioner_us": 1e6 * conditioner_s, "loop_us": 1e6 * p50_s / chunk / streams},
        "bytes": loop_bytes,
    }
