"""How far live speech lies behind the microphone: what it must, and what it did.

Frame j of a mel describes samples j * hop .. (j + 1) * hop - 1 and is known once (fft - hop) / 2
samples more are there; its speech needs `lookahead` frames after it as well. So the sample t that
is said belongs to the sample t that was heard, and comes at most `Delay.samples` of them later.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from wavernn.config import Config
from wavernn.subscale import Order

# the frames of 8 and 16 ms that telephony and browsers give
BUDGETS_MS = (8, 16)
# of the histogram that quantiles are read from
RESOLUTION_MS = 0.1


@dataclass(frozen=True)
class Delay:
    """The delay that a voice has by its definition, on a machine that takes no time."""

    rate_hz: int
    hop_samples: int
    # of the transform, beyond a frame's own samples on either side
    margin_samples: int
    # frames that the conditioner sees after the one that is said
    lookahead_frames: int
    # of a subscale voice, whose lanes are ahead of what is said
    ahead_samples: int = 0

    @classmethod
    def of(cls, config: Config) -> Delay:
        """The delay of the voices of a configuration."""
        mel = config.mel
        margin = (mel.fft_samples - mel.hop_samples) // 2
        ahead = Order.of(config.model).lookahead_samples
        return cls(mel.rate_hz, mel.hop_samples, margin, config.model.lookahead_frames, ahead)

    def needed(self, samples: int) -> int:
        """How many samples must have been heard until so many can have been said."""
        frames = -(-(samples + self.ahead_samples) // self.hop_samples)
        return (frames + self.lookahead_frames) * self.hop_samples + self.margin_samples

    @property
    def samples(self) -> int:
        """The delay in samples: a hop, both kinds of look-ahead, and the transform's margin."""
        frames = 1 + self.lookahead_frames
        return self.ahead_samples + frames * self.hop_samples + self.margin_samples

    def with_frames(self, frame_samples: int) -> int:
        """The delay in samples where the microphone gives `frame_samples` at a time.

        A hop becomes possible with the frame that holds the last sample it needs; the worst hop
        counts, since playing can't wait anew for each.
        """
        step = math.gcd(self.hop_samples, frame_samples)
        return self.samples + frame_samples - step + -self.margin_samples % step

    def table(self, frame_samples: int) -> dict[str, Any]:
        """The delay and its parts, in samples and milliseconds."""
        whole = self.with_frames(frame_samples)
        ms = 1000 / self.rate_hz
        return {
            "samples": self.samples,
            "ms": self.samples * ms,
            "hop_samples": self.hop_samples,
            "lookahead_samples": self.lookahead_frames * self.hop_samples,
            "window_samples": self.margin_samples,
            "subscale_samples": self.ahead_samples,
            "frame_samples": frame_samples,
            "samples_with_frames": whole,
            "ms_with_frames": whole * ms,
        }


class Deadlines:
    """The time from input to output of live streams, as a histogram that doesn't grow.

    For every input frame it takes the moment when all samples of its place had been said. `total`
    counts from the frame's arrival, `process` from the arrival of the last input that these
    samples needed: what computing, queues and waking up took, and all that a faster machine
    would save. Times are seconds of one clock.
    """

    def __init__(self, delay: Delay) -> None:
        self.delay = delay
        self.heard_samples = self.said_samples = 0
        # frames whose output isn't complete: the count of samples at their end, and their arrival
        self._open: deque[tuple[int, float]] = deque()
        # how many samples there were since when, as far back as an open frame needs it
        self._arrivals: deque[tuple[float, float]] = deque()
        self._process: Counter[int] = Counter()
        self._total: Counter[int] = Counter()
        self._worst_s = {"process": 0.0, "total": 0.0}

    def heard(self, samples: int, now_s: float) -> None:
        """A frame of so many samples arrived."""
        self.heard_samples += samples
        self._open.append((self.heard_samples, now_s))
        self._arrivals.append((self.heard_samples, now_s))

    def ended(self, now_s: float) -> None:
        """No more will be heard, so that what lacks is made up."""
        self._arrivals.append((math.inf, now_s))

    def said(self, samples: int, now_s: float) -> None:
        """So many more samples can be played."""
        self.said_samples += samples
        while self._open and self._open[0][0] <= self.said_samples:
            end, arrived_s = self._open.popleft()
            need = self.delay.needed(end)
            while self._arrivals[0][0] < need:
                self._arrivals.popleft()
            self._count(self._process, "process", now_s - self._arrivals[0][1])
            self._count(self._total, "total", now_s - arrived_s)

    def _count(self, histogram: Counter[int], name: str, spent_s: float) -> None:
        histogram[math.ceil(spent_s * 1000 / RESOLUTION_MS)] += 1
        self._worst_s[name] = max(self._worst_s[name], spent_s)

    def merge(self, other: Deadlines) -> None:
        """Adds the frames of another stream."""
        self.heard_samples += other.heard_samples
        self._process += other._process
        self._total += other._total
        for name, worst_s in other._worst_s.items():
            self._worst_s[name] = max(self._worst_s[name], worst_s)

    def report(self) -> dict[str, Any]:
        """Quantiles in ms, and frames a minute of one stream beyond each budget of processing."""
        minutes = self.heard_samples / self.delay.rate_hz / 60
        misses = {
            str(budget): sum(n for bin, n in self._process.items() if bin * RESOLUTION_MS > budget)
            for budget in BUDGETS_MS
        }
        return {
            "frames": self._process.total(),
            "process_ms": self._quantiles(self._process, "process"),
            "total_ms": self._quantiles(self._total, "total"),
            "misses": misses,
            "misses_per_minute": {
                budget: count / minutes if minutes else 0.0 for budget, count in misses.items()
            },
        }

    def _quantiles(self, histogram: Counter[int], name: str) -> dict[str, float | None]:
        found = {f"p{q}": _quantile(histogram, q / 100) for q in (50, 99)}
        return found | {"max": 1000 * self._worst_s[name] if histogram else None}


def _quantile(histogram: Counter[int], share: float) -> float | None:
    """The upper edge in ms of the bin that holds a quantile."""
    left = share * histogram.total()
    for bin in sorted(histogram):
        left -= histogram[bin]
        if left <= 0:
            return bin * RESOLUTION_MS
    return None
