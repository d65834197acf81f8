"""What the format int8 means, in NumPy: another model than the voice, so with an oracle of its own.

Whole numbers are held in float64, exactly. What is rounded to whole numbers is float32 before, so
that no value falls on another side than in an engine; all other arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np

from wavernn.checkpoint import Checkpoint

# gates are powers of two, and so are the weights that are rounded
GATE_3 = -math.log2(math.e) * np.array([1.0, 1.0, 2.0])
# steps of h and of activations from 0 to 1, where weights have 8 bit and where they have 16
STEPS = {8: (127, 255), 16: (2047, 2047)}
# the matrices of 16 bit; R is by gate
BITS = {"R": (8, 8, 16), "O1": 8, "O2": 16, "O3": 8, "O4": 8}
# the largest value of a row of input
ROW_LIMIT = 10922


def _padded(size: int) -> int:
    return (size + 15) // 16 * 16


def _limit(weight_RW: np.ndarray, bits: int, width: int) -> np.ndarray:
    """The whole number that the largest weight of each row becomes."""
    if bits == 8:
        return np.full(len(weight_RW), 127)
    # the sum of `width` products of 2047 must fit 32 bit, though each weight is rounded up
    size = np.abs(weight_RW)
    spread_R = size.sum(1) / np.where(size.max(1) > 0, size.max(1), 1)
    room_R = ((2**31 - 1) // 2047 - width / 2) / np.maximum(spread_R, 1)
    return np.minimum(np.floor(room_R), 32767)


def _round_rows(weight_RW: np.ndarray, bits: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as whole numbers and the value of each row's unit."""
    unit_R = np.abs(weight_RW).max(1) / _limit(weight_RW, bits, width)
    unit_R[unit_R == 0] = 1
    return np.rint(weight_RW / unit_R[:, None]), unit_R


def _round_state(h: np.ndarray, bits: int) -> np.ndarray:
    """h in steps; bytes are counted from 1, and are float32 when they are."""
    steps, h = STEPS[bits][0], h.astype(np.float32).astype(np.float64)
    zero = 128 if bits == 8 else 0
    return np.rint((steps * h + zero).astype(np.float32)).astype(np.float64) - zero


class Quantised:
    """The cell and the heads of a voice in format int8, for N states at once."""

    def __init__(self, voice: Checkpoint) -> None:
        w = {name: t.double().numpy() for name, t in voice.tensors.items()}
        H, E = w["R"].shape[1], w["rows"].shape[2]
        self.H, self.w = H, w
        half, P = _padded(H // 2), _padded(len(w["O1.bias"]))
        self.R = []
        for R_HH, scale, bits in zip(np.split(w["R"], 3), GATE_3, BITS["R"], strict=True):
            whole, unit_H = _round_rows(R_HH * scale, bits, 2 * half)
            # back from powers of two
            self.R.append((whole, unit_H / scale / STEPS[bits][0], bits))
        self.heads = {
            name: _round_rows(w[f"{name}.weight"], BITS[name], width)
            for name, width in (("O1", half), ("O2", P), ("O3", half), ("O4", P))
        }
        past = [w["rows"][k] @ w["I_past"][:, k * E : (k + 1) * E].T for k in range(2)]
        now = np.zeros((256, 3, 2, H // 2))
        now[:, :, 1] = (w["rows"][2] @ w["I_now"].T).reshape(256, 3, -1)
        tables = np.stack((*past, now.reshape(256, -1))).reshape(3, 256, 3, H) * GATE_3[:, None]
        # one unit for each gate
        unit_3 = np.abs(tables).max((0, 1, 3)) / ROW_LIMIT
        unit_3[unit_3 == 0] = 1
        self.tables = np.rint(tables / unit_3[:, None])
        self.unit_3 = unit_3 / GATE_3

    def cell(
        self, h_NH: np.ndarray, past_N2: np.ndarray, now_N: np.ndarray, gate_NG: np.ndarray
    ) -> np.ndarray:
        Ru, Rr, Re = (_round_state(h_NH, bits) @ whole.T * unit_H for whole, unit_H, bits in self.R)
        c, f, now = self.tables
        rows_N3H = c[past_N2[:, 0]] + f[past_N2[:, 1]] + now[now_N]
        I_N3H = rows_N3H * self.unit_3[:, None] + gate_NG.reshape(rows_N3H.shape)
        Iu, Ir, Ie = (I_N3H[:, k] for k in range(3))
        u, r = (np.tanh((Ru + Iu) / 2) + 1) / 2, (np.tanh((Rr + Ir) / 2) + 1) / 2
        # a state is float32
        return (u * h_NH + (1 - u) * np.tanh(r * Re + Ie)).astype(np.float32).astype(np.float64)

    def head(self, y_NU: np.ndarray, one: str, two: str) -> np.ndarray:
        whole, unit_P = self.heads[one]
        sums_NP = _round_state(y_NU, BITS[one]) @ whole.T
        unit_P = (unit_P / STEPS[BITS[one]][0]).astype(np.float32)
        hidden_NP = np.maximum(_affine(sums_NP, unit_P, self.w[f"{one}.bias"]), np.float32(0))
        # each state has a unit of its own
        steps = np.float32(STEPS[BITS[two]][1])
        most_N1 = np.maximum(hidden_NP.max(1, keepdims=True), np.float32(2.0**-100))
        x_NP = np.rint(hidden_NP * (steps / most_N1)).astype(np.float64)
        whole, unit_Q = self.heads[two]
        unit_NQ = unit_Q.astype(np.float32) * (most_N1 / steps)
        return _affine(x_NP @ whole.T, unit_NQ, self.w[f"{two}.bias"]).astype(np.float64)


def _affine(sums: np.ndarray, unit: np.ndarray, bias: np.ndarray) -> np.ndarray:
    # rounded once
    return (sums.astype(np.float32).astype(np.float64) * unit + bias).astype(np.float32)
