"""What the format float16 means on a GPU, in NumPy: `exact.py` with 16-bit inputs of products.

The matrices are those of `weights.rounded`. The state itself isn't rounded, nor are sums.
"""

from __future__ import annotations

import numpy as np

from wavernn.checkpoint import Checkpoint


def _half(x: np.ndarray) -> np.ndarray:
    # the engine rounds a float32
    return x.astype(np.float32).astype(np.float16).astype(np.float64)


class Half:
    """The cell and the heads of a rounded voice, for N states at once."""

    def __init__(self, voice: Checkpoint) -> None:
        w = {name: t.double().numpy() for name, t in voice.tensors.items()}
        self.w, self.H = w, w["R"].shape[1]
        masked = np.zeros((3, 2, self.H // 2, w["I_now"].shape[1]))
        masked[:, 1] = w["I_now"].reshape(3, self.H // 2, -1)
        self.I = np.concatenate((w["I_past"], masked.reshape(3 * self.H, -1)), axis=1)

    def cell(
        self, h_NH: np.ndarray, past_N2: np.ndarray, now_N: np.ndarray, gate_NG: np.ndarray
    ) -> np.ndarray:
        rows = self.w["rows"]
        x = np.concatenate((rows[0, past_N2[:, 0]], rows[1, past_N2[:, 1]], rows[2, now_N]), axis=1)
        Ru, Rr, Re = np.split(_half(h_NH) @ self.w["R"].T, 3, axis=1)
        Iu, Ir, Ie = np.split(x @ self.I.T + gate_NG, 3, axis=1)
        u, r = (np.tanh((Ru + Iu) / 2) + 1) / 2, (np.tanh((Rr + Ir) / 2) + 1) / 2
        return u * h_NH + (1 - u) * np.tanh(r * Re + Ie)

    def head(self, y_NU: np.ndarray, one: str, two: str) -> np.ndarray:
        w = self.w
        sums_NP = _half(y_NU) @ w[f"{one}.weight"].T + w[f"{one}.bias"]
        return _half(np.maximum(sums_NP, 0)) @ w[f"{two}.weight"].T + w[f"{two}.bias"]
