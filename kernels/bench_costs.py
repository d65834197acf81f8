"""What the native engine costs besides the loop: opening a voice, a call, memory, the front end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.kernels import cpu, native, packfile
from wavernn.kernels.bench_cpu import Windows, front_us, gate_rows
from wavernn.kernels.pack import pack
from wavernn.rng import uniforms

# samples of the calls that the cost model is made from, and of those that it is held against
FITTED, CHUNKS = (1, 240), (1, 24, 240, 2400)
# a process of its own, in which only this voice is opened
CHILD = "from wavernn.kernels.bench_costs import grow; grow({path!r}, {format!r})"


def call_costs(measured_us: dict[int, float]) -> dict[str, Any]:
    """The model T = samples * step + overhead that fits the calls of FITTED.

    `calls` holds what it predicts for each length beside what was measured, in microseconds.
    """
    short, long = FITTED
    step_us = (measured_us[long] - measured_us[short]) / (long - short)
    overhead_us = measured_us[short] - short * step_us
    calls = [
        {"samples": n, "measured_us": us, "predicted_us": n * step_us + overhead_us}
        for n, us in measured_us.items()
    ]
    return {"step_us": step_us, "call_overhead_us": overhead_us, "calls": calls}


def _best_ms(work: Callable[[], Any], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def _first_sample_ms(voice: Checkpoint, format: str) -> float:
    """Milliseconds that an engine takes for its first sample, its weights not yet read."""
    synthesizer, rows = cpu.Synthesizer(voice, 1, format), gate_rows(voice, 1, 1)
    uniform_BT2 = uniforms(0, 0, 1)[None]
    return _best_ms(lambda: synthesizer.run(rows, uniform_BT2), 1)


def _resident_mb(highest: bool) -> float | None:
    """Megabytes of memory that this process holds, or held at most; None where it isn't said."""
    # getrusage would count what the parent held when it forked
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    key = "VmHWM:" if highest else "VmRSS:"
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith(key))
    return int(kilobytes) * 1024 / 1e6


def grow(path: str, format: str) -> None:
    """Opens a voice, speaks a second, and prints what this process held before and at most."""
    before = _resident_mb(highest=False)
    voice = checkpoint.load(path)
    synthesizer = cpu.Synthesizer(voice, 1, format)
    hop = voice.config.model.conditioning_hop_samples
    rows = gate_rows(voice, 1, voice.config.mel.rate_hz // hop)
    synthesizer.speak(rows, rows.shape[1] * hop, np.zeros(1, np.uint64))
    print(json.dumps([before, _resident_mb(highest=True)]))


def peak_memory(path: Path, format: str) -> dict[str, float | None]:
    """Megabytes of a process: with its libraries loaded, and at most while it speaks a second."""
    child = [sys.executable, "-c", CHILD.format(path=str(path), format=format)]
    done = subprocess.run(child, capture_output=True, text=True, check=True, cwd=path.parent)
    libraries, peak = json.loads(done.stdout)
    return {"libraries_mb": libraries, "peak_mb": peak}


def bench_costs(voice: Checkpoint, format: str = "int8", windows: int = 100) -> dict[str, Any]:
    """Times of opening a voice in ms, of a call and of a frame in microseconds, memory in MB.

    `load_ms` is reading and checking the packed file, until the loop could start; each time is
    the best of several but that of the first sample, the median of five engines.
    """
    config = voice.config
    with tempfile.TemporaryDirectory() as folder:
        path, packed = Path(folder) / "voice.safetensors", Path(folder) / "packed.safetensors"
        checkpoint.save(path, voice)
        pack_ms = _best_ms(lambda: pack(voice, format), 3)
        packfile.save(packed, pack(voice, format), voice.sha256)
        load_ms = _best_ms(lambda: native.model_of(packfile.load(packed)), 5)
        packed_bytes = packed.stat().st_size
        memory = peak_memory(path, format)
    first_ms = float(np.median([_first_sample_ms(voice, format) for _ in range(5)]))
    timed = Windows(voice, cpu.Synthesizer(voice, 1, format), 1)
    spent_us = {n: 1e6 * float(timed.times(n, windows).min()) for n in CHUNKS}
    front = front_us(voice)
    return {
        "bench": "costs",
        "recipe": config.name,
        "format": format,
        "packed_bytes": packed_bytes,
        "pack_ms": pack_ms,
        "load_ms": load_ms,
        "first_sample_ms": first_ms,
        **call_costs(spent_us),
        "conditioner_us_per_frame": front["conditioner_us"] * config.mel.hop_samples,
        "mel_us_per_frame": front["mel_us"] * config.mel.hop_samples,
        **memory,
    }
