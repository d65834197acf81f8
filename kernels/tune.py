"""How many streams one core speaks in real time: the number is raised until it no longer does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.kernels import check
from wavernn.kernels.bench_cpu import Windows

CHUNK_S = 10e-3
# real time is to be kept with this much to spare
MARGIN = 1.2
# streams on one thread; only what was measured is recommended
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def tune(
    voice: Checkpoint,
    backend: str = "auto",
    format: str | None = None,
    threads: int = 1,
    windows: int = 100,
) -> Iterator[dict[str, Any]]:
    """Rows of the curve, from one stream a thread on, until real time is no longer kept.

    `samples_per_s` of all streams is that of the best window, as in `wavernn bench`, and
    `realtime_factor_per_stream` what each stream gets of it; `p50_ms` and `p99_ms` are how long a
    chunk of 10 ms takes, interruptions included. A row is `real_time` where each stream is faster
    than real time by MARGIN. Raises BackendUnavailable.
    """
    check.check_plain(voice.config.model)
    loaded, rate_hz = kernels.load(backend), voice.config.mel.rate_hz
    chunk = max(round(rate_hz * CHUNK_S), 1)
    for size in SIZES:
        streams = size * threads
        timed = Windows(voice, loaded(voice, streams, format, threads), streams)
        samples = timed.samples()
        samples_per_s = streams * samples / float(timed.times(samples, windows).min())
        p50_s, p99_s = np.percentile(timed.times(chunk, windows), [50, 99]).tolist()
        each = samples_per_s / streams / rate_hz
        yield {
            "bench": "tune",
            "streams": streams,
            "threads": threads,
            "samples_per_s": samples_per_s,
            "realtime_factor": streams * each,
            "realtime_factor_per_stream": each,
            "chunk_ms": 1e3 * chunk / rate_hz,
            "p50_ms": 1e3 * p50_s,
            "p99_ms": 1e3 * p99_s,
            "real_time": each >= MARGIN,
        }
        if each < MARGIN:
            return


def sentence(row: dict[str, Any]) -> str:
    """A row of the curve in words."""
    return (
        f"{row['streams']} streams: {row['samples_per_s']:,.0f} samples/s, "
        f"{row['realtime_factor_per_stream']:.3g}x real time each, a chunk of 10 ms in "
        f"{row['p50_ms']:.2f} ms, 99 % within {row['p99_ms']:.2f} ms"
    )


def answer(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest measured number of streams that keeps real time, on all threads and on one."""
    kept = [row for row in rows if row["real_time"]]
    streams = kept[-1]["streams"] if kept else 0
    return {
        "bench": "tuned",
        "streams": streams,
        "streams_per_core": streams // rows[0]["threads"],
        # the next size that was measured, None if even the largest kept real time
        "too_many": None if rows[-1]["real_time"] else rows[-1]["streams"],
        "margin": MARGIN,
    }
