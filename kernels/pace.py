"""How many threads run an utterance the fastest, as its calls so far tell.

Two threads of one core, or of a machine that has other work, may take longer together than one
alone, and no table knows it beforehand.
"""

from __future__ import annotations

# of what is known of a number of threads, the part that a new call makes up
NEW = 0.2
# Calls of a look at the slower choice, since a thread that has slept comes late for the first one;
# and calls between two looks, at most.
LOOK, LONGEST_PAUSE = 16, 256


class Pace:
    """Chooses between one thread and `threads`, call by call."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        # seconds a tick, by the number of threads
        self._tick_s: dict[int, float] = {}
        # calls until the next look; of a look that goes on, its threads and calls that are left
        self._pause = self._wait = 1
        self._looked_at = self._left = 0

    def threads(self) -> int:
        """The threads of the next call: mostly the faster choice, now and then the other."""
        if len(self._tick_s) < 2:
            # all of them, and one as soon as that is known
            return 1 if self._tick_s or self._most == 1 else self._most
        if self._left:
            return self._looked_at
        if self._wait:
            self._wait -= 1
            return self._faster()
        self._looked_at, self._left = self._slower(), LOOK
        return self._looked_at

    def note(self, threads: int, ticks: int, seconds: float) -> None:
        """Takes the time of a call's ticks, all lanes at work."""
        tick_s = seconds / ticks
        before = self._tick_s.get(threads, tick_s)
        looking = self._left > 0 and threads == self._looked_at
        # what is known of the slower choice is old, so that a better time counts in full
        part = 1.0 if looking and tick_s < before else NEW
        self._tick_s[threads] = before + part * (tick_s - before)
        if looking:
            self._left -= 1
            if not self._left:
                # rarely, where it stays the slower one
                lost = threads == self._slower()
                self._pause = min(2 * self._pause, LONGEST_PAUSE) if lost else 1
                self._wait = self._pause

    def _faster(self) -> int:
        return min(self._tick_s, key=self._tick_s.__getitem__)

    def _slower(self) -> int:
        return max(self._tick_s, key=self._tick_s.__getitem__)
