"""The definition of a subscale voice's samples: lane by lane, column by column, in float64.

Kalchbrenner et al. 2018, section 4. A sub-tensor is a plain stream (`kernels.reference`) whose gate
input has X y_s[i] in it; `wavernn.context` has the equations of y. Each column of the context is
computed once: what later ones need of it is kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavernn.audio import de_emphasis, decode
from wavernn.checkpoint import Checkpoint
from wavernn.context import Context, features
from wavernn.kernels import check, reference
from wavernn.kernels.utterance import Utterance, lane_voice
from wavernn.model import LEVELS
from wavernn.rng import uniforms


def unavailable() -> str | None:
    """The reference runs wherever torch does."""
    return None


class Columns:
    """The convolutions of one sub-tensor, a column at a time."""

    def __init__(self, context: Context, lane: int) -> None:
        self.layers = [layer for layer in context.layers if isinstance(layer, torch.nn.Conv1d)]
        # e_s[k - F] .. e_s[k], and of each layer's input the columns k - 2^(j-1) .. k
        self.e = deque[Tensor](maxlen=context.horizon + 1)
        self.x = [deque[Tensor](maxlen=layer.dilation[0] + 1) for layer in self.layers]
        # before the utterance there are columns without samples
        for _ in range(context.reach):
            self.push(context.lanes[lane])

    def push(self, e_C: Tensor) -> Tensor:
        """Takes column k, e_s[k], and returns y_s[k - F]: [C] each."""
        self.e.append(e_C)
        x = e_C
        for layer, past in zip(self.layers, self.x, strict=True):
            assert layer.bias is not None
            past.append(x)
            V, V_now = layer.weight.unbind(-1)
            x = x + torch.relu(V @ past[0] + V_now @ x + layer.bias)
        return torch.tanh(x + self.e[0])


@dataclass
class Scores:
    """Coarse and fine logits of a whole utterance, each [T, Q]."""

    coarse_TQ: Tensor
    fine_TQ: Tensor


class Synthesizer:
    """The samples of one utterance; see `kernels.SubscaleSynthesizer`."""

    # logits of a byte
    levels: tuple[int, ...] = (LEVELS,)

    def __init__(self, checkpoint: Checkpoint, format: str | None = None, threads: int = 1) -> None:
        config = checkpoint.config.model
        self.lanes = reference.Synthesizer(lane_voice(checkpoint), config.subscale, format)
        self.format, self.pre_emphasis = self.lanes.format, config.pre_emphasis
        self.dtype = self.lanes.dtype
        model = checkpoint.model(self.dtype)
        self.context, self.X, self.rows_c = model.context, model.X, model.rows[0]
        self.utterance = Utterance(config)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Puts the utterance back to its start."""
        self.lanes.reset()
        self.utterance.reset()
        self.memory = 0.0
        self.columns = [Columns(self.context, s) for s in range(self.context.factor)]

    def _column(self, lane: int, k: int) -> Tensor:
        """e_s[k]: what samples of earlier sub-tensors in column k add up to."""
        u, U = self.utterance, self.context.factor
        e_C = self.context.lanes[lane]
        for d in range(1, lane + 1):
            n = U * k + lane - d
            if 0 <= n < u.given:
                code_2 = torch.from_numpy(u.codes_W2[n - u.base].astype(np.int64))
                e_C = e_C + self.context.enter.weight[:, :, U - 1 - d] @ features(
                    code_2, self.rows_c
                )
        return e_C

    def _advance(self, temperature: float, known: bool, scores: Scores | None = None) -> np.ndarray:
        """Runs all ticks that can be run; the codes [T, 2] that came due."""
        u, F = self.utterance, self.context.horizon
        ticks = u.ready_ticks
        for tick in range(u.tick, ticks):
            sample_U = u.order.samples_at(tick, u.given)
            for lane, n in enumerate(sample_U.tolist()):
                i = tick - lane * u.order.lag_steps
                y_C = self.columns[lane].push(self._column(lane, i + F))
                if n < 0:
                    continue
                row_G = u.gates_NG[n // u.hop - u.base // u.hop]
                gate_G = row_G.to(self.lanes.dtype) + self.X @ y_C
                given_2 = u.drawn_W2[n - u.base]
                draws_2, known_2 = (None, given_2) if known else (given_2, None)
                code, coarse_Q, fine_Q = self.lanes._step(
                    lane, gate_G, draws_2, known_2, temperature
                )
                u.codes_W2[n - u.base] = code
                if scores is not None:
                    scores.coarse_TQ[n], scores.fine_TQ[n] = coarse_Q, fine_Q
        return u.take(ticks)

    @torch.no_grad()
    def run(
        self,
        gates_NG: Tensor,
        uniform_T2: np.ndarray,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning and draws of the next T samples; uint8 codes [*, 2] that came due."""
        check.check_uniform(uniform_T2[None], 1)
        heat = float(check.check_temperature(temperature, 1)[0])
        self.utterance.give(gates_NG, len(uniform_T2), uniform_T2, last)
        return self._advance(heat, known=False)

    def speak(
        self,
        gates_NG: Tensor,
        samples: int,
        seed: int,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning of the next samples; float32 audio [*] in [-1, 1) that came due."""
        uniform_T2 = uniforms(seed, self.utterance.given, samples)
        codes_T2 = self.run(gates_NG, uniform_T2, last, temperature)
        audio_T, self.memory = de_emphasis(decode(codes_T2), self.pre_emphasis, self.memory)
        return np.clip(audio_T, -1, 32767 / 32768).astype(np.float32)

    @torch.no_grad()
    def score(self, gates_NG: Tensor, codes_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes an utterance's codes instead of drawing, from its start: logits [T, Q] each."""
        T = check.check_codes(codes_T2[None], 1)
        self.reset()
        self.utterance.give(gates_NG, T, codes_T2, last=True)
        scores = Scores(*(torch.empty(T, *self.levels, dtype=self.dtype) for _ in range(2)))
        self._advance(1.0, known=True, scores=scores)
        return scores.coarse_TQ.numpy(), scores.fine_TQ.numpy()
