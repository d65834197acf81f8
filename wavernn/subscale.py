"""The order in which a subscale model makes its samples, and what each of them may see.

Kalchbrenner et al. 2018, section 4. A sequence of L samples is cut into U interleaved sub-tensors:
element (s, i), sub-tensor s = 0 .. U - 1 at step i, is sample U i + s. It sees its own past,
(s, j) with j < i, and of each earlier sub-tensor z < s the steps k <= i + F (the horizon).
Sub-tensor s starts F + 1 steps after s - 1, so all U run as the lanes of one batch: element (s, i)
is made at tick i + s (F + 1). These are maps of indices alone; U = 1 is the plain model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from wavernn.config import ModelConfig

# F of a voice that makes two samples a step (section 4, "Fused Subscale WaveRNN")
FUSED_HORIZON = 2


def interleave(x_L: Tensor, factor: int, fill: float = 0) -> Tensor:
    """Cuts sequences [..., L] into sub-tensors [..., U, I], I = ceil(L / U); U is `factor`.

    Where U doesn't divide L, the last step of the last sub-tensors is `fill`.
    """
    _require_factor(factor)
    steps = -(-x_L.shape[-1] // factor)
    padded = pad(x_L, (0, steps * factor - x_L.shape[-1]), value=fill)
    x_IU: Tensor = padded.unflatten(-1, (steps, factor))
    return x_IU.transpose(-1, -2)


def deinterleave(x_UI: Tensor, samples: int) -> Tensor:
    """Undoes `interleave`: sub-tensors [..., U, I] to the first `samples` of sequences [..., L]."""
    if x_UI.ndim < 2:
        raise ValueError(f"sub-tensors have shape [..., U, I], got {list(x_UI.shape)}")
    U, steps = x_UI.shape[-2:]
    if samples < 0 or -(-samples // U) != steps:
        raise ValueError(f"{U} x {steps} sub-tensors don't come from {samples} samples")
    return x_UI.transpose(-1, -2).flatten(-2)[..., :samples]


@dataclass(frozen=True)
class Order:
    """Which sample is made at which tick, for U = `factor` lanes and F = `horizon`.

    Samples are numbered along the sequence, a batch of lanes is one tick. Raises ValueError for a
    factor below 1, a negative horizon, sample, tick or length.
    """

    factor: int
    horizon: int

    def __post_init__(self) -> None:
        _require_factor(self.factor)
        _require_whole("the horizon", self.horizon)

    @classmethod
    def of(cls, model: ModelConfig) -> Order:
        """The order of a voice: plain, subscale or fused."""
        if model.fused == 2:
            return cls(2, FUSED_HORIZON)
        return cls(model.subscale, model.subscale_horizon)

    @property
    def lag_steps(self) -> int:
        """Steps by which a lane trails the one before it, F + 1: it needs (s - 1, i + F) made."""
        return self.horizon + 1

    @property
    def lookahead_samples(self) -> int:
        """How far the newest sample made is beyond the one that comes due, at most.

        Sample n is due once all up to n are made. Conditioning must be there that far ahead, and
        a stream is late by as much. Plain: 0.
        """
        return (self.factor - 1) * (self.factor * self.lag_steps - 1)

    def held(self, given: int) -> int:
        """The most samples that are held at once, where at most so many are given at a time.

        From the step before the last lane's present one to the last sample that is given.
        """
        return self.factor * ((self.factor - 1) * self.lag_steps + 2) + given

    def place(self, sample: int) -> tuple[int, int]:
        """The lane s and the step i of a sample."""
        _require_whole("a sample", sample)
        return sample % self.factor, sample // self.factor

    def tick(self, sample: int) -> int:
        """The tick at which a sample is made."""
        lane, step = self.place(sample)
        return step + lane * self.lag_steps

    def due(self, sample: int) -> int:
        """The tick at which a sample and all before it have been made, for output in order."""
        step = sample // self.factor
        # of all before it, the last lane's sample of the step before is made last
        before = step - 1 + (self.factor - 1) * self.lag_steps if step else 0
        return max(self.tick(sample), before)

    def made(self, ticks: int) -> int:
        """How many samples, counted from the first, are all made once so many ticks have run."""
        _require_whole("the number of ticks", ticks)
        # steps that the last lane has made; those before it are one step further, at least
        steps = ticks - (self.factor - 1) * self.lag_steps
        if steps < 0:
            return -(-ticks // self.lag_steps)
        return self.factor * steps + self.factor - 1

    def samples_at(self, tick: int, samples: int | None = None) -> np.ndarray:
        """The sample that each lane makes at a tick, int64 [U]; -1 for a lane that has none.

        `samples` is the length L of the sequence; None goes on without end.
        """
        _require_whole("a tick", tick)
        lane_U = np.arange(self.factor, dtype=np.int64)
        step_U = tick - lane_U * self.lag_steps
        sample_U = self.factor * step_U + lane_U
        idle_U = step_U < 0
        if samples is not None:
            _require_whole("the number of samples", samples)
            idle_U |= sample_U >= samples
        return np.where(idle_U, -1, sample_U)

    def ticks(self, samples: int) -> int:
        """The number of ticks that a sequence of L samples takes."""
        _require_whole("the number of samples", samples)
        if samples == 0:
            return 0
        # the last lane that has samples ends last
        lane = min(self.factor, samples) - 1
        steps = (samples - 1 - lane) // self.factor + 1
        return steps + lane * self.lag_steps

    def visible(self, samples: int) -> np.ndarray:
        """The mask [L, L], bool: whether the row's sample may see the column's."""
        _require_whole("the number of samples", samples)
        index = np.arange(samples, dtype=np.int64)
        lane, step = index % self.factor, index // self.factor
        own = (lane[:, None] == lane) & (step < step[:, None])
        earlier = (lane < lane[:, None]) & (step <= step[:, None] + self.horizon)
        return np.asarray(own | earlier)


def _require_factor(factor: int) -> None:
    if factor < 1:
        raise ValueError(f"the subscale factor must be at least 1, got {factor}")


def _require_whole(what: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{what} must not be negative, got {value}")
