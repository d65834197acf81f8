"""What one listener got of a stream: when audio came, and what he'd have heard of gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass
class Listened:
    """The answer to one request; times are seconds of one clock."""

    # from when it counts: when the request was due
    due_s: float
    status: int = 0
    # done, refused (no 2xx), cut (ended too early), left (by ourselves), late or unreachable
    outcome: str = "unreachable"
    # when the status came, and the last byte
    answered_s: float = 0.0
    ended_s: float = 0.0
    # of 16-bit samples; 0 where bytes don't tell of time
    bytes_per_s: float = 0.0
    # when audio came, and how many bytes of it there were then
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    @property
    def audio_s(self) -> float:
        """Seconds of audio that came."""
        if not self.arrivals or not self.bytes_per_s:
            return 0.0
        return self.arrivals[-1][1] / self.bytes_per_s

    def underruns(self, prebuffer_s: float) -> tuple[int, float]:
        """How often and how long in all there was nothing to play.

        Playing begins `prebuffer_s` after the first audio, and after a gap as soon as more came.
        """
        if not self.arrivals or not self.bytes_per_s:
            return 0, 0.0
        count, silent_s = 0, 0.0
        start_s = self.arrivals[0][0] + prebuffer_s
        for (_, there), (now_s, _) in pairwise(self.arrivals):
            empty_s = start_s + silent_s + there / self.bytes_per_s
            if now_s > empty_s:
                count += 1
                silent_s += now_s - empty_s
        return count, silent_s

    def heard_s(self, prebuffer_s: float) -> float:
        """When the last sample has been played."""
        if not self.arrivals:
            return self.ended_s
        silent_s = self.underruns(prebuffer_s)[1]
        return self.arrivals[0][0] + prebuffer_s + silent_s + self.audio_s

    def row(self, prebuffer_s: float) -> dict[str, Any]:
        """Its figures; None for those it has no value of."""
        times = [now_s for now_s, _ in self.arrivals]
        count, silent_s = self.underruns(prebuffer_s)
        gaps = [after - before for before, after in pairwise(times)]
        spent_s = self.ended_s - self.due_s
        answered = self.status > 0
        return {
            "status": self.status,
            "outcome": self.outcome,
            "answer_ms": 1000 * (self.answered_s - self.due_s) if answered else None,
            "first_audio_ms": 1000 * (times[0] - self.due_s) if times else None,
            "longest_gap_ms": 1000 * max(gaps) if gaps else None,
            "pieces": len(times),
            "audio_s": self.audio_s,
            "underruns": count,
            "underrun_s": silent_s,
            "realtime_factor": self.audio_s / spent_s if self.outcome == "done" else None,
        }
