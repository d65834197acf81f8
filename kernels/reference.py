"""The definition of what is right: WaveRNN line by line, one stream and one sample at a time.

Kalchbrenner et al. 2018, section 2, equation 2, in float64 by default. No fused operation, no
compilation, no batching: a stream's numbers can't depend on its neighbours. Every faster backend
is judged against this file.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavernn.audio import de_emphasis, decode
from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels import check
from wavernn.model import LEVELS, SILENT_CODE
from wavernn.rng import uniforms

FORMATS = {"float64": torch.float64, "float32": torch.float32}


def unavailable() -> str | None:
    """The reference runs wherever torch does."""
    return None


def inverse_cdf(logits_Q: Tensor, uniform: float) -> int:
    """The number of levels whose cumulative probability is at most `uniform`, in [0, 1)."""
    cdf_Q = torch.softmax(logits_Q, dim=0).cumsum(0)
    # rounding may leave the last entry below a uniform that is close to 1
    return min(int((cdf_Q <= uniform).sum()), LEVELS - 1)


class Synthesizer:
    """The sample loop of B streams, each run on its own; see `kernels.Synthesizer`."""

    def __init__(
        self, checkpoint: Checkpoint, streams: int, format: str | None = None, threads: int = 1
    ) -> None:
        self.format = format or "float64"
        if self.format not in FORMATS:
            raise BackendUnavailable(
                f"the reference has no format {self.format}; known: {', '.join(FORMATS)}"
            )
        check.check_plain(checkpoint.config.model)
        dtype = FORMATS[self.format]
        model = checkpoint.model(dtype)
        H = model.config.hidden
        self.hop = model.config.conditioning_hop_samples
        self.gate_rows, self.pre_emphasis = model.config.gate_rows, model.config.pre_emphasis
        self.dtype, self.half = dtype, H // 2
        # [gate u, r, e] [half coarse, fine], each H/2 rows
        self.R_ = model.R.view(3, 2, self.half, H)
        self.I_past = model.I_past.view(3, 2, self.half, -1)
        self.I_now = model.I_now.view(3, self.half, -1)
        self.rows_c, self.rows_f, self.rows_now = model.rows
        self.O1, self.O2, self.O3, self.O4 = model.O1, model.O2, model.O3, model.O4
        self.h_BH = torch.zeros(streams, H, dtype=dtype)
        self.code_B2 = np.tile(np.array(SILENT_CODE, np.uint8), (streams, 1))
        self.sample_B = np.zeros(streams, np.int64)
        self.memory_B = np.zeros(streams)

    def reset(self, active_B: np.ndarray | None = None) -> None:
        """Puts streams back to the start: zero state, silence before it."""
        rows = check.check_active(active_B, len(self.sample_B))
        self.h_BH[rows] = 0
        self.code_B2[rows] = SILENT_CODE
        self.sample_B[rows] = 0
        self.memory_B[rows] = 0

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all streams' state: h [B, H], code [B, 2], sample [B], memory [B]."""
        return {
            "h": self.h_BH.numpy().copy(),
            "code": self.code_B2.copy(),
            "sample": self.sample_B.copy(),
            "memory": self.memory_B.copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state."""
        check.check_state(state, *self.h_BH.shape)
        self.h_BH = torch.from_numpy(state["h"].copy()).to(self.dtype)
        self.code_B2[:], self.sample_B[:] = state["code"], state["sample"]
        self.memory_B[:] = state["memory"]

    def _check_gates(self, gates_BNG: Tensor, samples: int, rows: np.ndarray) -> None:
        types = tuple(FORMATS.values())
        check.check_gates(gates_BNG, self.gate_rows, self.hop, self.sample_B, samples, rows, types)

    def _half_state(self, half: int, h: Tensor, Rh: Tensor, Ix: Tensor) -> Tensor:
        """Equation 2 for the coarse (0) or fine (1) half; Rh and Ix are [3, H/2]."""
        h_half = h.view(2, self.half)[half]
        u = torch.sigmoid(Rh[0] + Ix[0])
        r = torch.sigmoid(Rh[1] + Ix[1])
        e = torch.tanh(r * Rh[2] + Ix[2])
        return u * h_half + (1 - u) * e

    def _step(
        self,
        stream: int,
        gate_G: Tensor,
        uniform_2: np.ndarray | None,
        known_2: np.ndarray | None,
        temperature: float,
    ) -> tuple[tuple[int, int], Tensor, Tensor]:
        h = self.h_BH[stream]
        c_past, f_past = (int(code) for code in self.code_B2[stream])
        cond = gate_G.to(self.dtype).view(3, 2, self.half)
        x_past = torch.cat((self.rows_c[c_past], self.rows_f[f_past]))
        Rh = self.R_ @ h
        Ix = self.I_past @ x_past + cond

        y_c = self._half_state(0, h, Rh[:, 0], Ix[:, 0])
        coarse_Q = self.O2(torch.relu(self.O1(y_c)))
        if known_2 is not None:
            c = int(known_2[0])
        else:
            assert uniform_2 is not None
            c = inverse_cdf(coarse_Q / temperature, float(uniform_2[0]))

        # c_t reaches the fine half alone
        y_f = self._half_state(1, h, Rh[:, 1], Ix[:, 1] + self.I_now @ self.rows_now[c])
        fine_Q = self.O4(torch.relu(self.O3(y_f)))
        if known_2 is not None:
            f = int(known_2[1])
        else:
            assert uniform_2 is not None
            f = inverse_cdf(fine_Q / temperature, float(uniform_2[1]))

        self.h_BH[stream] = torch.cat((y_c, y_f))
        self.code_B2[stream] = c, f
        self.sample_B[stream] += 1
        return (c, f), coarse_Q, fine_Q

    @torch.no_grad()
    def run(
        self,
        gates_BNG: Tensor,
        uniform_BT2: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Draws the next T samples of each active stream: uint8 codes [B, T, 2]."""
        B = len(self.sample_B)
        T = check.check_uniform(uniform_BT2, B)
        rows = check.check_active(active_B, B)
        temperature_B = check.check_temperature(temperature, B)
        self._check_gates(gates_BNG, T, rows)
        codes_BT2 = np.tile(np.array(SILENT_CODE, np.uint8), (B, T, 1))
        for b in rows.tolist():
            phase = int(self.sample_B[b]) % self.hop
            for t in range(T):
                gate_G = gates_BNG[b, (phase + t) // self.hop]
                codes_BT2[b, t], _, _ = self._step(
                    b, gate_G, uniform_BT2[b, t], None, float(temperature_B[b])
                )
            self._remember(b, codes_BT2[b])
        return codes_BT2

    def _remember(self, b: int, codes_T2: np.ndarray) -> np.ndarray:
        """Undoes the pre-emphasis of a stream's next samples: float64 [T]."""
        samples_T, self.memory_B[b] = de_emphasis(
            decode(codes_T2), self.pre_emphasis, self.memory_B[b]
        )
        return samples_T

    def speak(
        self,
        gates_BNG: Tensor,
        samples: int,
        seed_B: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Makes the next samples of each active stream: float32 [B, T] in [-1, 1)."""
        B = len(self.sample_B)
        check.check_seeds(seed_B, B)
        rows, memory_B = check.check_active(active_B, B), self.memory_B.copy()
        uniform_BT2 = np.stack(
            [uniforms(int(seed_B[b]), int(self.sample_B[b]), samples) for b in range(B)]
        )
        codes_BT2 = self.run(gates_BNG, uniform_BT2, active_B, temperature)
        audio_BT = np.zeros((B, samples), np.float32)
        self.memory_B[rows] = memory_B[rows]
        for b in rows.tolist():
            audio_BT[b] = np.clip(self._remember(b, codes_BT2[b]), -1, 32767 / 32768)
        return audio_BT

    @torch.no_grad()
    def score(self, gates_BNG: Tensor, codes_BT2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes known codes instead of drawing: coarse and fine logits [B, T, Q]."""
        B = len(self.sample_B)
        T = check.check_codes(codes_BT2, B)
        self._check_gates(gates_BNG, T, np.arange(B))
        coarse_BTQ, fine_BTQ = (torch.empty(B, T, LEVELS, dtype=self.dtype) for _ in range(2))
        for b in range(B):
            phase = int(self.sample_B[b]) % self.hop
            for t in range(T):
                gate_G = gates_BNG[b, (phase + t) // self.hop]
                _, coarse_BTQ[b, t], fine_BTQ[b, t] = self._step(
                    b, gate_G, None, codes_BT2[b, t], 1.0
                )
            self._remember(b, codes_BT2[b])
        return coarse_BTQ.numpy(), fine_BTQ.numpy()
