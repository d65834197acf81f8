"""Tasks that wait for what a thread does, and waking them from there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

# a task's future and the loop it belongs to
Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


def wake(waiting: Iterable[Waiting]) -> None:
    """Wakes tasks, with one call for each event loop, since a call costs as much as a packet."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, future in waiting:
        by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        # nobody waits in a loop that is closed
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
