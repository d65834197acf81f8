"""Ctrl-C and SIGTERM that wait for the loop to finish its step and save."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Holds these signals back while it's entered; on leaving, what they ask for happens.

    Ctrl-C then raises KeyboardInterrupt, SIGTERM SystemExit(143). With `once`, a second signal
    isn't held back. In a thread that isn't the main one it does nothing.
    """

    def __init__(self, once: bool) -> None:
        self.once = once
        # number of the signal that came, 0 for none
        self.number = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # what runs in the background ignores Ctrl-C, and goes on doing so
            wanted = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._hold) for number in wanted}
        return self

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if self.once:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            # None stands for a handler that wasn't set from Python
            signal.signal(number, handler or signal.SIG_DFL)
        self.before = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        if error is None and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if error is None and self.number:
            raise SystemExit(128 + self.number)
