"""One kernel and one voice on a device: is it right, and how fast is it? For `device_bench`.

What judges a kernel is `graph.Graph` in float64 on the same rounded voice, on the same device. It
takes the codes that the kernel drew, so that one draw on an edge doesn't end the comparison.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.kernels import reference
from wavernn.kernels.gpu import Synthesizer
from wavernn.kernels.gpu.call import Kernel
from wavernn.kernels.gpu.device_work import Plan, call_of, judged, launches, work
from wavernn.kernels.gpu.graph import Graph
from wavernn.model import LEVELS

# how far from an edge of the exact probabilities a draw may fall on its other side: sums of a
# kernel are float32, its tensor cores take the state in float16
EDGE = {"graph": 1e-4, "resident": 1e-4, "tagged": 1e-4, "group": 4e-3, "group-64": 4e-3}
# the share of draws that may
ON_EDGES = 0.01


def exact_logits(voice: Checkpoint, device: str, codes_BT2: np.ndarray) -> np.ndarray:
    """What the codes of a run of `work` were drawn from, in float64: [B, T, 2, Q]."""
    B, T, _ = codes_BT2.shape
    judge = Graph(voice, device, torch.float64)
    call = call_of(voice, device, B, T, codes_BT2, exact=True)
    for part in launches(judge, call):
        judge.launch(part)
    judge.check()
    assert call.logits_BT2Q is not None
    logits: np.ndarray = call.logits_BT2Q.cpu().numpy()
    return logits


def off_edges(
    logits_BT2Q: np.ndarray, uniform_BT2: np.ndarray, codes_BT2: np.ndarray
) -> tuple[np.ndarray, float]:
    """The places [n, 3] of codes that exact logits don't give, and the furthest from an edge."""
    mass = np.exp(logits_BT2Q - logits_BT2Q.max(-1, keepdims=True))
    cdf = mass.cumsum(-1) / mass.sum(-1, keepdims=True)
    expected = np.minimum((cdf <= uniform_BT2[..., None]).sum(-1), LEVELS - 1)
    wrong, worst = np.argwhere(expected != codes_BT2), 0.0
    for place in map(tuple, wrong):
        low, high = sorted((int(expected[place]), int(codes_BT2[place])))
        worst = max(worst, float(np.abs(cdf[place][low:high] - uniform_BT2[place]).max()))
    return wrong, worst


def correctness(name: str, voice: Checkpoint, plan: Plan) -> Iterator[dict[str, Any]]:
    """Draws against the exact model; chunks, neighbours and lanes against the kernel itself."""
    B = plan.streams
    for T in plan.checked:
        gates_BNG, uniform_BT2 = work(voice, B, T)
        synthesizer = Synthesizer(voice, B, kernel=name, device=plan.device)
        codes = synthesizer.run(gates_BNG, uniform_BT2)
        logits = exact_logits(judged(synthesizer.kernel, voice), plan.device, codes)
        wrong, worst = off_edges(logits, uniform_BT2, codes)
        row = {"bench": "correct", "streams": B, "samples": T, "draws": codes.size}
        row |= {"on_edges": len(wrong), "furthest": worst, "format": synthesizer.format}
        # a level that is nearly sure would hide an error
        row["likeliest"] = float(
            np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True)).max(-1).mean()
        )
        # [stream, sample, half]
        row["first"] = min(wrong.tolist(), key=lambda place: place[1], default=None)
        yield row | {"ok": worst <= EDGE[name] and len(wrong) <= max(1, ON_EDGES * codes.size)}
    # the longest run once more, in uneven chunks, and its last stream alone
    hop, cut = voice.config.model.conditioning_hop_samples, max(T // 3, 1)
    synthesizer.reset()
    parts = [
        synthesizer.run(gates_BNG[:, i // hop :], uniform_BT2[:, i : i + cut])
        for i in range(0, T, cut)
    ]
    alone = Synthesizer(voice, 1, kernel=name, device=plan.device)
    one = alone.run(gates_BNG[-1:], uniform_BT2[-1:])
    chunks, lanes = np.array_equal(np.hstack(parts), codes), np.array_equal(one[0], codes[-1])
    row = {"bench": "same", "chunks": chunks, "alone": lanes, "ok": chunks and lanes}
    yield row


def against_reference(voice: Checkpoint, plan: Plan) -> dict[str, Any]:
    """The judge itself, captured, against the reference on the CPU."""
    T = plan.referred
    gates_BNG, uniform_BT2 = work(voice, 2, T)
    synthesizer = reference.Synthesizer(voice, 2)
    codes = synthesizer.run(gates_BNG, uniform_BT2)
    judge, call = Graph(voice, plan.device, torch.float64), call_of(voice, plan.device, 2, T)
    call = replace(call, h_BH=call.h_BH.double())
    judge.launch(call)
    judge.check()
    error = float(np.abs(call.h_BH.cpu().numpy() - synthesizer.state()["h"]).max())
    same = np.array_equal(call.codes_BT2.cpu().numpy(), codes)
    return {"bench": "judge", "samples": T, "same": same, "h": error, "ok": same and error < 1e-9}


def seconds(device: str, function: Callable[[], object], budget: float, most: int) -> list[float]:
    """The times of calls, each with the device's end of it, after one that isn't counted."""
    times: list[float] = []

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    function()
    wait()
    begun = time.perf_counter()
    while len(times) < 2 or (len(times) < most and time.perf_counter() - begun < budget):
        started = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - started)
    return times


def run_s(kernel: Kernel, voice: Checkpoint, lanes: int, samples: int, plan: Plan) -> float:
    """Seconds of a run whose data is on the device: the median."""
    parts = launches(kernel, call_of(voice, plan.device, lanes, samples))

    def run() -> None:
        for part in parts:
            kernel.launch(part)

    return statistics.median(seconds(plan.device, run, plan.seconds, 50))


def speed(name: str, voice: Checkpoint, plan: Plan) -> Iterator[dict[str, Any]]:
    """Rates of launches on data that is there, latency of chunks, and what a launch costs."""
    rate_hz, device = voice.config.mel.rate_hz, plan.device
    for lanes in plan.lanes:
        synthesizer = Synthesizer(voice, lanes, kernel=name, device=device)
        kernel: Kernel = synthesizer.kernel

        one_s = run_s(kernel, voice, lanes, 1, plan)
        chunk_s = run_s(kernel, voice, lanes, plan.chunk, plan)
        step_s = (chunk_s - one_s) / max(plan.chunk - 1, 1)
        # the slow ones don't need so many samples
        samples = plan.timed if step_s * plan.timed < 2 * plan.seconds else plan.chunk
        whole_s = run_s(kernel, voice, lanes, samples, plan)
        kernel.check()
        row = {"bench": "speed", "lanes": lanes, "lanes_a_launch": kernel.lanes}
        row |= {"step_us": 1e6 * whole_s / samples, "samples_per_s": lanes * samples / whole_s}
        row["realtime_factor"] = samples / whole_s / rate_hz
        # streams that are served at 24 kHz where all lanes run
        row["realtime_streams"] = lanes * samples / whole_s / rate_hz
        row |= {"one_sample_us": 1e6 * one_s, "chunk_us": 1e6 * chunk_s}
        row["launch_share"] = max(one_s - step_s, 0) / chunk_s
        yield row | {"ok": True}
    for lanes in plan.chunk_lanes:
        synthesizer = Synthesizer(voice, lanes, kernel=name, device=device)
        gates_BNG, uniform_BT2 = work(voice, lanes, plan.chunk)
        run = partial(synthesizer.run, gates_BNG, uniform_BT2)
        times = seconds(device, run, 4 * plan.seconds, plan.chunks)
        p50, p99 = (1e3 * float(np.percentile(times, p)) for p in (50, 99))
        row = {"bench": "chunk", "lanes": lanes, "samples": plan.chunk, "repeats": len(times)}
        yield row | {"p50_ms": p50, "p99_ms": p99, "ok": True}
