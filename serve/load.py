"""Many listeners at once, to see what a server does for them: `wavernn load`."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from wavernn.errors import ConfigError
from wavernn.serve.caller import Target, call
from wavernn.serve.listened import Listened

# between looks at how late the client itself is
LAG_S = 0.02


@dataclass(frozen=True)
class Plan:
    """How many requests, when, and how they end."""

    # at once at most
    streams: int = 1
    # in all
    requests: int = 1
    # a second, at random times (a Poisson process); None: the next one when one is over
    rate: float | None = None
    # whether the next one waits until the last has been heard, as a listener would
    listen: bool = False
    # share of listeners who leave at a random place, half of them as if killed
    disconnect: float = 0.0
    # of audio that a request brings, for the place
    audio_bytes: int = 0
    # that a listener waits after the first audio
    prebuffer_s: float = 0.0
    timeout_s: float = 60.0
    # request i asks for the seed `seed + i`
    seed: int = 0


def run(target: Target, plan: Plan) -> dict[str, Any]:
    """Makes the requests; returns the figures of all of them, and of each as `rows`.

    Raises ConfigError where nothing answers.
    """
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    # cheaper than asyncio's own; it comes with uvicorn[standard]
    with suppress(ImportError):
        loop_factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        found, lags = runner.run(_all(target, plan))
        spent_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    if all(listened.outcome == "unreachable" for listened in found):
        raise ConfigError(f"nothing answers at {target.host}:{target.port}; start wavernn serve")
    client = {
        "cpu_share": cpu_s / spent_s,
        "lag_ms": quantiles([1000 * lag for lag in lags]),
    }
    return report([listened.row(plan.prebuffer_s) for listened in found], spent_s) | {
        "streams": plan.streams,
        "rate": plan.rate,
        "format": target.format,
        "prebuffer_ms": 1000 * plan.prebuffer_s,
        "client": client,
    }


def report(rows: Sequence[dict[str, Any]], spent_s: float) -> dict[str, Any]:
    """Sums up rows of `Listened.row`; times of an answer are of those who were refused."""

    def of(key: str, *outcomes: str) -> list[float]:
        some = (row for row in rows if not outcomes or row["outcome"] in outcomes)
        return [row[key] for row in some if row[key] is not None]

    audio_s = sum(of("audio_s"))
    return {
        "requests": len(rows),
        "seconds": spent_s,
        "outcomes": dict(sorted(Counter(row["outcome"] for row in rows).items())),
        "statuses": dict(sorted(Counter(str(row["status"]) for row in rows).items())),
        "audio_s": audio_s,
        "realtime_factor": audio_s / spent_s,
        "first_audio_ms": quantiles(of("first_audio_ms")),
        "longest_gap_ms": quantiles(of("longest_gap_ms")),
        "stream_realtime_factor": quantiles(of("realtime_factor")),
        "underruns": sum(row["underruns"] for row in rows),
        "streams_with_underruns": sum(row["underruns"] > 0 for row in rows),
        "underrun_s": sum(of("underrun_s")),
        "worst_underrun_s": max(of("underrun_s"), default=0.0),
        "refused_ms": quantiles(of("answer_ms", "refused")),
        "rows": list(rows),
    }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Least, median, 90 and 99 %, and greatest of some numbers (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    places = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: ordered[round(share * last)] for name, share in places.items()}


async def _all(target: Target, plan: Plan) -> tuple[list[Listened], list[float]]:
    lags: list[float] = []
    watching = asyncio.create_task(_watch(lags))
    try:
        return await (_closed if plan.rate is None else _opened)(target, plan), lags
    finally:
        watching.cancel()


async def _watch(lags: list[float]) -> None:
    """Notes how late the event loop is, which would be taken for the server's lateness."""
    while True:
        due_s = time.perf_counter() + LAG_S
        await asyncio.sleep(LAG_S)
        lags.append(max(time.perf_counter() - due_s, 0.0))


async def _closed(target: Target, plan: Plan) -> list[Listened]:
    """Each listener makes one request after the other."""
    found: list[Listened] = []
    numbers = iter(range(plan.requests))

    async def listener() -> None:
        for number in numbers:
            listened = await _one(target, plan, number, time.perf_counter())
            found.append(listened)
            if plan.listen:
                until_s = listened.heard_s(plan.prebuffer_s)
                await asyncio.sleep(max(until_s - time.perf_counter(), 0.0))

    await asyncio.gather(*(listener() for _ in range(min(plan.streams, plan.requests))))
    return found


async def _opened(target: Target, plan: Plan) -> list[Listened]:
    """Requests come when they come; what waits for one of the streams counts as lateness."""
    assert plan.rate is not None
    chance = random.Random(plan.seed)
    room = asyncio.Semaphore(plan.streams)
    due_s = time.perf_counter()

    async def listener(number: int, due_s: float) -> Listened:
        await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
        async with room:
            return await _one(target, plan, number, due_s)

    waiting = []
    for number in range(plan.requests):
        waiting.append(listener(number, due_s))
        due_s += chance.expovariate(plan.rate)
    return list(await asyncio.gather(*waiting))


async def _one(target: Target, plan: Plan, number: int, due_s: float) -> Listened:
    # of its own, so that the order in which requests end changes nothing
    chance = random.Random(f"{plan.seed} {number}")
    leave = None
    if chance.random() < plan.disconnect:
        # a tenth leaves before there is an answer
        leave = 0 if chance.random() < 0.1 else int(chance.random() * plan.audio_bytes)
    seed = (plan.seed + number) % (1 << 64)
    abruptly = chance.random() < 0.5
    return await call(target, seed, due_s, plan.timeout_s, leave, abruptly)
