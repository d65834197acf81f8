"""How far a sweep is and how long it will still take, as lines on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from wavernn.train.sweep_cost import operations
from wavernn.train.sweep_grid import Run
from wavernn.train.sweep_trials import Trials

SECONDS_BETWEEN_LINES = 30.0


def say(sentence: str) -> None:
    """Prints a line with the time of day on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """Tells the time left from what all workers got done since this one began.

    `runs` are the plan's by key, `step_of` the last step that a run is known to have reached.
    """

    def __init__(
        self, runs: Mapping[str, Run], step_of: Callable[[Run], int], trials: Trials
    ) -> None:
        self.runs, self.step_of, self.trials = runs, step_of, trials
        self.operations = {key: operations(run) for key, run in runs.items()}
        self.began = self.last_line = time.perf_counter()
        _, self.left_at_start = self._left()

    def _left(self) -> tuple[int, float]:
        """How many runs are finished, and the operations that the others still take."""
        done = self.trials.rows().keys() & self.runs.keys()
        left = 0.0
        for key, run in self.runs.items():
            if key not in done:
                left += self.operations[key] * (1 - self.step_of(run) / run.steps)
        return len(done), left

    def _summary(self) -> str:
        done, left = self._left()
        text = f"{done} of {len(self.runs)} runs done"
        since, spent = self.left_at_start - left, time.perf_counter() - self.began
        if since > 0 and left:
            text += f", about {duration(left / since * spent)} left"
        return text

    def hear(self, run: Run, step: int) -> None:
        """Takes note of a run's step; says something every so often."""
        if time.perf_counter() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.perf_counter()
            say(f"{run.name}: step {step} of {run.steps}; {self._summary()}")

    def finished(self, run: Run, row: Mapping[str, Any]) -> None:
        """Says how a run came out."""
        self.last_line = time.perf_counter()
        say(
            f"{run.name}: {row['bits_per_sample']:.3f} bits/sample with {row['nonzeros']} "
            f"non-zeros, trained in {duration(row['train_seconds'])}; {self._summary()}"
        )
