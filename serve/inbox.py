"""A queue between the task that reads a socket and the one that speaks, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Items with sizes, for one giver and one taker at a time of the same event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._items: deque[tuple[Item, int]] = deque()
        self._changed = asyncio.Condition()

    async def put(self, item: Item, size: int = 0) -> None:
        """Adds an item; waits while those before it leave no room, but takes one of any size."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._bytes or self._bytes + size <= self._most_bytes
            )
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    async def get(self) -> Item:
        """Takes the oldest item; waits for one."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) > 0)
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def clear(self) -> None:
        """Drops all items; the giver mustn't be waiting."""
        self._items.clear()
        self._bytes = 0
