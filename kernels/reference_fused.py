"""The definition of a fused voice's samples: two a step, nibble by nibble, in float64.

Kalchbrenner et al. 2018, section 4; `wavernn.fused` has the equations. A byte has one draw: its
upper nibble is drawn by it, and the lower one by where it lies within the share of the upper. So a
byte is the one that its distribution over 256 levels would give, and draws are those of all voices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.context import features
from wavernn.errors import BackendUnavailable
from wavernn.fused import KNOWN, NIBBLES, SECOND, FusedWaveRNN
from wavernn.kernels import reference_subscale
from wavernn.kernels.reference import FORMATS
from wavernn.kernels.reference_subscale import Scores
from wavernn.kernels.utterance import Utterance
from wavernn.model import SILENT_CODE


def unavailable() -> str | None:
    """The reference runs wherever torch does."""
    return None


def draw(logits_Q: Tensor, uniform: float) -> tuple[int, float]:
    """The level that a uniform in [0, 1) draws, and what is left of it: a uniform in [0, 1) again.

    The level is the number of those whose cumulative probability is at most the uniform.
    """
    mass_Q = torch.softmax(logits_Q.double(), dim=0)
    cdf_Q = mass_Q.cumsum(0)
    # rounding may leave the last entry below a uniform that is close to 1
    level = min(int((cdf_Q <= uniform).sum()), len(cdf_Q) - 1)
    before, mass = float(cdf_Q[level] - mass_Q[level]), float(mass_Q[level])
    rest = (uniform - before) / mass if mass else 0.0
    return level, min(max(rest, 0.0), 1 - 2.0**-53)


class Synthesizer(reference_subscale.Synthesizer):
    """The samples of one utterance; see `kernels.SubscaleSynthesizer`.

    `score` gives the logits of the two nibbles of each byte, [T, 2, 16].
    """

    levels = (2, NIBBLES)

    def __init__(self, checkpoint: Checkpoint, format: str | None = None, threads: int = 1) -> None:
        config = checkpoint.config.model
        self.format = format or "float64"
        if self.format not in FORMATS:
            raise BackendUnavailable(
                f"the reference has no format {self.format}; known: {', '.join(FORMATS)}"
            )
        self.dtype, self.pre_emphasis = FORMATS[self.format], config.pre_emphasis
        model = checkpoint.model(self.dtype)
        assert isinstance(model, FusedWaveRNN)
        H, P, U = config.hidden, config.projection, config.hidden // 8
        # rows of the gates are [u, r, e] [nibble] [sample a, b]
        self.R, self.I_past, self.rows, self.upper = model.R, model.I_past, model.rows, model.upper
        self.J, self.K = (I.view(3, 2, 2, U, -1) for I in (model.I_upper, model.I_now))
        # [nibble] [sample a, b]
        self.heads = [
            (
                *(w.view(2, 2, P, -1)[k] for w in (O1.weight, O1.bias)),
                *(w.view(2, 2, NIBBLES, -1)[k] for w in (O2.weight, O2.bias)),
            )
            for O1, O2 in ((model.O1, model.O2), (model.O3, model.O4))
            for k in range(2)
        ]
        self.h_H = torch.zeros(H, dtype=self.dtype)
        self.utterance = Utterance(config)
        self.reset()

    def reset(self) -> None:
        """Puts the utterance back to its start."""
        self.utterance.reset()
        self.memory = 0.0
        self.h_H = torch.zeros_like(self.h_H)

    def _code(self, n: int) -> tuple[int, int]:
        """What is known of sample n: silence lies around an utterance."""
        u = self.utterance
        if not 0 <= n < u.given:
            return SILENT_CODE
        c, f = u.codes_W2[n - u.base].tolist()
        return c, f

    def _now(self, k: int, s: int, nibbles: list[int]) -> Tensor:
        """What part (k, s) of the gates is given of the nibbles made so far: [3, H / 8]."""
        J, K = self.J[:, :, s], self.K[:, :, s]
        if k == 1:
            return J[:, 0] @ self.upper[0, nibbles[0]]
        added = K[:, k - 2] @ self.rows[1, nibbles[0] << 4 | nibbles[1]]
        return added + J[:, 1] @ self.upper[1, nibbles[2]] if k == 3 else added

    def _step(self, t: int, temperature: float, known: bool, scores: Scores | None) -> None:
        """Makes samples 2t and 2t - 5, where the utterance has them."""
        u = self.utterance
        samples = (2 * t, 2 * t + SECOND)
        idle = [not 0 <= n < u.given for n in samples]
        row = min(2 * t, u.given - 1) // u.hop - u.base // u.hop
        codes = torch.tensor([self._code(2 * t + offset) for offset in KNOWN])
        x = features(codes, self.rows[0]).flatten()
        Ix = (self.I_past @ x + u.gates_NG[row].to(self.dtype)).view(3, 4, 2, -1)
        Rh = (self.R @ self.h_H).view(3, 4, 2, -1)
        h, y = self.h_H.view(4, 2, -1), torch.empty(4, 2, len(self.h_H) // 8, dtype=self.dtype)
        made: list[list[int]] = [[], []]
        rest = [0.0, 0.0]
        for k in range(4):
            for s, n in enumerate(samples):
                # equation 2
                inside = Ix[:, k, s] + self._now(k, s, made[s]) if k else Ix[:, k, s]
                update = torch.sigmoid(Rh[0, k, s] + inside[0])
                r = torch.sigmoid(Rh[1, k, s] + inside[1])
                e = torch.tanh(r * Rh[2, k, s] + inside[2])
                y[k, s] = update * h[k, s] + (1 - update) * e
                O1, b1, O2, b2 = (w[s] for w in self.heads[k])
                logits_Q = O2 @ torch.relu(O1 @ y[k, s] + b1[:, 0]) + b2[:, 0]
                if idle[s]:
                    made[s].append(SILENT_CODE[k // 2] >> 4 * (1 - k % 2) & 15)
                    continue
                if scores is not None:
                    (scores.fine_TQ if k // 2 else scores.coarse_TQ)[n, k % 2] = logits_Q
                given = u.drawn_W2[n - u.base, k // 2].item()
                if known:
                    made[s].append(given >> 4 * (1 - k % 2) & 15)
                    continue
                uniform = rest[s] if k % 2 else given
                level, rest[s] = draw(logits_Q / temperature, uniform)
                made[s].append(level)
        self.h_H = y.flatten()
        for s, n in enumerate(samples):
            if not idle[s]:
                a, b, c, d = made[s]
                u.codes_W2[n - u.base] = a << 4 | b, c << 4 | d

    def _advance(self, temperature: float, known: bool, scores: Scores | None = None) -> np.ndarray:
        """Runs all steps that can be run; the codes [T, 2] that came due."""
        u = self.utterance
        ticks = u.ready_ticks
        for t in range(u.tick, ticks):
            self._step(t, temperature, known, scores)
        return u.take(ticks)
