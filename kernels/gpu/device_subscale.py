"""Subscale voices on a device: is an utterance right, and how fast is it? For `device_bench`.

What judges the kernel is the reference, in float64 on the CPU, on the same rounded voice: it scores
the codes that the kernel drew. Voices are dense, at 24 kHz, and U = 1 is the plain voice of their
size.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from wavernn import recipe
from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels import reference_subscale
from wavernn.kernels.bench import random_voice
from wavernn.kernels.gpu import device_run, weights
from wavernn.kernels.gpu.choice import choose
from wavernn.kernels.gpu.device_work import SMALL, Plan, lively, work
from wavernn.kernels.gpu.subscale import Synthesizer
from wavernn.kernels.gpu.subscale_group import Window

# recipes and their U, and the kernels of their plain voices
FACTORS = {"subscale-16": (1, 8, 16), "subscale-8-384": (1, 8)}
PLAIN = ("tagged", "group")
# as in `device_run`; to round what enters a product to float16 moves up to 0.9 % of draws
EDGE, ON_EDGES = 2e-3, 0.03


@dataclass(frozen=True)
class Amount:
    """How much is run."""

    plan: Plan = field(default_factory=Plan)
    # samples whose draws are checked: all lanes of U = 16 are at work from 2145 on
    checked: int = 2500
    # ticks of a launch that is timed, and samples of an utterance that is
    ticks: int = 2400
    spoken: int = 48_000
    # how kernels are cut, None for as many programs as they need, and which of PLAIN are run
    ctas: int | None = None
    plain: tuple[str, ...] = PLAIN


LITTLE = Amount(SMALL, 20, 2, 9, 1, ("group",))
LITTLE_SIZES = (
    *("model.hidden=32", "model.projection=16", "model.channels=4"),
    *("model.context_channels=8", "model.context_layers=1", "model.subscale_horizon=0"),
)


def voices(name: str, interpret: bool) -> Iterator[Checkpoint]:
    """A recipe with random weights for each U of FACTORS."""
    config = recipe.load(name, ['mel="24k"', *(LITTLE_SIZES if interpret else ())])
    for factor in FACTORS[name]:
        model = replace(config.model, subscale=factor)
        prune = replace(config.prune, density={})
        voice = lively(random_voice(replace(config, model=model, prune=prune)))
        if factor > 1:
            X = voice.tensors["X"]
            tensors = dict(voice.tensors) | {"X": X / X.norm(dim=1).mean()}
            voice = replace(voice, tensors=tensors)
        yield voice


def rows(name: str, interpret: bool) -> Iterator[dict[str, Any]]:
    """All rows of a recipe."""
    amount, plain = LITTLE if interpret else Amount(), 0.0
    for voice in voices(name, interpret):
        factor = voice.config.model.subscale
        if factor == 1:
            for row in plain_speed(voice, amount):
                plain = max(plain, row.get("samples_per_s", 0.0))
                yield row
            continue
        synthesizer = Synthesizer(voice, device=amount.plan.device, ctas=amount.ctas)
        for row in (*correctness(voice, synthesizer, amount), speed(voice, synthesizer, amount)):
            row |= {"beside": row["samples_per_s"] / plain} if "samples_per_s" in row else {}
            yield row | {"subscale": factor}


def correctness(
    voice: Checkpoint, synthesizer: Synthesizer, amount: Amount
) -> Iterator[dict[str, Any]]:
    """Draws against the reference, and pieces against the whole."""
    T, hop = amount.checked, voice.config.model.conditioning_hop_samples
    gates_1NG, uniform_1T2 = work(voice, 1, T)
    codes_T2 = synthesizer.run(gates_1NG[0], uniform_1T2[0], last=True)
    judge = reference_subscale.Synthesizer(weights.rounded(voice, synthesizer.format))
    logits_T2Q = np.stack(judge.score(gates_1NG[0], codes_T2), axis=1)
    wrong, worst = device_run.off_edges(logits_T2Q[None], uniform_1T2, codes_T2[None])
    row = {"bench": "correct", "streams": 1, "samples": T, "draws": codes_T2.size}
    row |= {"on_edges": len(wrong), "furthest": worst, "format": synthesizer.format}
    log_total = np.logaddexp.reduce(logits_T2Q, -1, keepdims=True)
    row["likeliest"] = float(np.exp(logits_T2Q - log_total).max(-1).mean())
    row["first"] = min(wrong.tolist(), key=lambda place: place[1], default=None)
    few = len(wrong) <= max(3, ON_EDGES * codes_T2.size)
    yield row | {"ok": worst <= EDGE and few}
    synthesizer.reset()
    cut, parts = max(T // 3, 1), []
    for i in range(0, T, cut):
        pieces = gates_1NG[0, i // hop :], uniform_1T2[0, i : i + cut]
        parts.append(synthesizer.run(*pieces, last=i + cut >= T))
    same = np.array_equal(np.concatenate(parts), codes_T2)
    yield {"bench": "same", "chunks": same, "alone": "", "ok": same}


def speed(voice: Checkpoint, synthesizer: Synthesizer, amount: Amount) -> dict[str, Any]:
    """The rate of ticks on data that is there, and of an utterance from host to host."""
    plan, ticks, U = amount.plan, amount.ticks, voice.config.model.subscale
    gates_1NG, uniform_1T2 = work(voice, 1, ticks * U)
    codes_W2 = torch.zeros(ticks * U, 2, dtype=torch.uint8, device=plan.device)
    uniform_W2 = torch.tensor(uniform_1T2[0], device=plan.device)
    window = Window(gates_1NG[0].contiguous().to(plan.device), codes_W2, 0, uniform_W2)
    synthesizer.reset()
    # an idle lane costs what one at work does
    launch = partial(synthesizer.lanes.run, window, 0, ticks)
    tick_s = statistics.median(device_run.seconds(plan.device, launch, plan.seconds, 50)) / ticks
    synthesizer.lanes.check()
    gates_1NG, _ = work(voice, 1, amount.spoken)

    def speak() -> None:
        synthesizer.reset()
        synthesizer.speak(gates_1NG[0], amount.spoken, 0, last=True)

    spoken_s = statistics.median(device_run.seconds(plan.device, speak, 4 * plan.seconds, 20))
    rate_hz = voice.config.mel.rate_hz
    row = {"bench": "utterance", "programs": synthesizer.lanes.programs, "tick_us": 1e6 * tick_s}
    row |= {"samples_per_s": U / tick_s, "realtime_factor": U / tick_s / rate_hz}
    return row | {"spoken_samples_per_s": amount.spoken / spoken_s, "ok": True}


def plain_speed(voice: Checkpoint, amount: Amount) -> Iterator[dict[str, Any]]:
    """The rate of one stream of the plain voice, on data that is there."""
    plan, rate_hz = amount.plan, voice.config.mel.rate_hz
    for name in amount.plain:
        try:
            kernel, _ = choose(voice, torch.device(plan.device), None, name)
        except BackendUnavailable as error:
            yield {"bench": "absent", "subscale": 1, "reason": str(error), "ok": True}
            continue
        run_s = device_run.run_s(kernel, voice, 1, amount.ticks, plan)
        kernel.check()
        row = {"bench": "utterance", "programs": "", "plain": name, "subscale": 1, "beside": 1.0}
        row |= {"tick_us": 1e6 * run_s / amount.ticks, "samples_per_s": amount.ticks / run_s}
        yield row | {"realtime_factor": amount.ticks / run_s / rate_hz, "ok": True}
