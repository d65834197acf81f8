"""Speed of one utterance: subscale and fused voices in windows of about 2 ms, beside a plain one.

All lanes are at work, so the rate is that of the middle of an utterance; its start and its end
have idle lanes, for `Order.lookahead_samples` in all. Whatever else runs on a machine makes some
windows slower and none faster: the rate is the best window's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wavernn import kernels, recipe
from wavernn.checkpoint import Checkpoint
from wavernn.kernels import bench_cpu, cpu, cpu_subscale
from wavernn.kernels.bench import random_voice
from wavernn.kernels.native import PARTS, UTTERANCE_PARTS
from wavernn.subscale import Order

WINDOWS = 60
FACTORS = (1, 8, 16)


class Stream:
    """An utterance that goes on, given a window at a time; the same for a plain voice."""

    def __init__(self, voice: Checkpoint, backend: str, format: str | None, threads: int) -> None:
        self.voice, model = voice, voice.config.model
        self.hop, self.factor = model.conditioning_hop_samples, Order.of(model).factor
        # whole rows, so that every window begins with one
        self.samples = self.hop
        self.gates_NG = bench_cpu.gate_rows(voice, 1, 1)[0]
        self.plain: kernels.Synthesizer | None = None
        self.lanes: kernels.SubscaleSynthesizer | None = None
        if self.factor > 1:
            kind = kernels.load_subscale(backend, model.subscale, model.fused)
            self.lanes = kind(voice, format, threads)
        else:
            self.plain = kernels.load(backend)(voice, 1, format, threads)

    def speak(self) -> None:
        """Speaks a window."""
        if self.lanes is not None:
            self.lanes.speak(self.gates_NG, self.samples, 0)
        if self.plain is not None:
            self.plain.speak(self.gates_NG[None], self.samples, np.zeros(1, np.uint64))

    def begin(self) -> None:
        """Speaks until all lanes are at work."""
        ahead = Order.of(self.voice.config.model).lookahead_samples
        for _ in range(ahead // self.samples + 2):
            self.speak()

    def widen(self) -> None:
        """Makes windows last about 2 ms."""
        rows = max(round(bench_cpu.WINDOW_S / self.times(8).min()), 1)
        self.samples = rows * self.hop
        self.gates_NG = bench_cpu.gate_rows(self.voice, 1, rows)[0]

    def times(self, windows: int) -> np.ndarray:
        """Seconds of each of so many windows."""
        spent = np.empty(windows)
        for i in range(windows):
            started = time.perf_counter()
            self.speak()
            spent[i] = time.perf_counter() - started
        return spent


def measure(
    voice: Checkpoint,
    backend: str = "cpu",
    format: str | None = None,
    threads: int = 1,
    windows: int = WINDOWS,
) -> dict[str, Any]:
    """Times one utterance of a voice of any kind with the keys of `wavernn bench --json`.

    `parts` are microseconds a tick on the native engine with one thread; X is in `recurrence_us`.
    """
    stream, model = Stream(voice, backend, format, threads), voice.config.model
    stream.begin()
    stream.widen()
    spent = stream.times(windows)
    p10_ms, p50_ms, p99_ms = (1e3 * np.percentile(spent, [10, 50, 99])).tolist()
    samples_per_s, rate_hz = stream.samples / float(spent.min()), voice.config.mel.rate_hz
    parts = {"tick_us": 1e6 * stream.factor / samples_per_s}
    engine = stream.plain or stream.lanes
    assert engine is not None
    if threads == 1 and isinstance(engine, cpu.Synthesizer | cpu_subscale.Synthesizer):
        parts |= _parts(stream, engine, max(windows // 5, 3))
    return {
        "backend": type(engine).__module__.split(".")[2].partition("_")[0],
        "isa": _isa(engine),
        "format": engine.format,
        "recipe": voice.config.name,
        "hidden": model.hidden,
        "streams": 1,
        "subscale": model.subscale,
        "fused": model.fused,
        "horizon": Order.of(model).horizon,
        "nonzeros": sum(int(torch.count_nonzero(w)) for w in voice.model().matrices().values()),
        "threads": threads,
        "samples_per_s": samples_per_s,
        "realtime_factor": samples_per_s / rate_hz,
        "p10": p10_ms,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "chunk_ms": 1e3 * stream.samples / rate_hz,
        "delay_ms": 1e3 * Order.of(model).lookahead_samples / rate_hz,
        "parts": parts,
    }


def _isa(engine: kernels.Synthesizer | kernels.SubscaleSynthesizer) -> str:
    if isinstance(engine, cpu.Synthesizer | cpu_subscale.Synthesizer):
        return engine.isa
    return torch.backends.cpu.get_cpu_capability()


def _parts(
    stream: Stream, engine: cpu.Synthesizer | cpu_subscale.Synthesizer, windows: int
) -> dict[str, float]:
    names = PARTS if isinstance(engine, cpu.Synthesizer) else UTTERANCE_PARTS
    best_s, best = float("inf"), np.ones(len(names))
    for _ in range(windows):
        engine.count_ticks()
        before = time.perf_counter()
        stream.speak()
        spent_s = time.perf_counter() - before
        if spent_s < best_s and engine.ticks is not None:
            best_s, best = spent_s, engine.ticks.astype(np.float64)
    engine.ticks = None
    tick_us = 1e6 * best_s / stream.samples * stream.factor * best / best.sum()
    return {f"{part}_us": float(us) for part, us in zip(names, tick_us, strict=True)}


def voices(name: str, context_channels: int = 64) -> Iterator[Checkpoint]:
    """A recipe with random weights as U = 1, 8 and 16 and fused: sparse as it is, and dense."""
    # at 24 kHz, as all rows are
    config = recipe.load(name, ['mel="24k"', f"model.context_channels={context_channels}"])
    for dense in (False, True):
        for factor, fused in (*((factor, 1) for factor in FACTORS), (1, 2)):
            model = replace(config.model, subscale=factor, fused=fused)
            wanted = {} if dense else dict(config.prune.density)
            if factor == 1:
                wanted = {k: v for k, v in wanted.items() if not k.startswith("X_")}
            elif wanted:
                wanted |= {f"X_{gate}": wanted.get(f"X_{gate}", 0.25) for gate in "ure"}
            prune = replace(config.prune, density=wanted)
            label = f"{name}{' dense' if dense else ''}"
            yield random_voice(replace(config, name=label, model=model, prune=prune))


def main() -> None:
    """Prints a row of `measure` for every voice, format and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="subscale-16")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--only", choices=["subscale", "fused"], help="beside plain voices")
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON lines")
    given = parser.parse_args()
    if given.table:
        print("| voice | U | format | threads | samples/s | real-time factor | beside U = 1 |")
        print("|---|---:|---|---:|---:|---:|---:|")
    plain: dict[tuple[Any, ...], float] = {}
    for voice in voices(given.recipe):
        model = voice.config.model
        kind = "subscale" if model.subscale > 1 else "fused" if model.fused > 1 else given.only
        if given.only not in (None, kind):
            continue
        for format in cpu.FORMATS:
            for threads in (1,) if given.only == "fused" else (1, 2):
                row = measure(voice, "cpu", format, threads, given.windows)
                key = (row["recipe"], format, threads)
                rate = row["samples_per_s"]
                if row["subscale"] == row["fused"] == 1:
                    plain[key] = rate
                if not given.table:
                    print(json.dumps(row), flush=True)
                    continue
                factor = "2 fused" if row["fused"] == 2 else row["subscale"]
                cells = (row["recipe"], factor, format, threads, f"{rate:.0f}")
                more = (f"{row['realtime_factor']:.3g}", f"{rate / plain[key]:.2f}")
                print(f"| {' | '.join(map(str, (*cells, *more)))} |", flush=True)


if __name__ == "__main__":
    main()
