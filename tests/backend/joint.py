"""The steps of a fused voice in NumPy, its masked matrices written out: exact, and as int8."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wavernn.checkpoint import Checkpoint

GAIN = 16.0


def _beside(name: str) -> ModuleType:
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


quantised, oracle = map(_beside, ("quantised", "oracle"))


class Exact:
    """One step of the equations: state, known samples, the two samples and gate input."""

    def __init__(self, voice: Checkpoint) -> None:
        self.w = {name: t.double().numpy() for name, t in voice.tensors.items()}
        self.H, self.P = voice.config.model.hidden, voice.config.model.projection
        self.U = self.H // 8

    def _at(self, gate: int, k: int, s: int) -> slice:
        """The rows of a gate for nibble k of sample s."""
        first = gate * self.H + (2 * k + s) * self.U
        return slice(first, first + self.U)

    def _known(self, c: int, f: int) -> np.ndarray:
        value = (256 * c + f - 32768) / 32768 * GAIN
        return np.array([*self.w["rows"][0, c], value, f / 127.5 - 1])

    def _past(self, known: list[tuple[int, int]]) -> np.ndarray:
        return self.w["I_past"] @ np.concatenate([self._known(*code) for code in known])

    def _made(self, name: str, row_E: np.ndarray, first: int, k: int, s: int) -> np.ndarray:
        """What a row adds to part (k, s): [3, U]; the matrix has parts `first` and one more."""
        parts = self.w[name].reshape(3, 2, 2, self.U, -1)
        return parts[:, int(k != first), s] @ row_E

    def _added(self, codes: list[tuple[int, int]]) -> np.ndarray:
        """What the nibbles of a step's own samples add: [G]."""
        added = np.zeros(3 * self.H)
        for s, (c, f) in enumerate(codes):
            rows = {
                1: [("I_upper", self.w["upper"][0, c // 16], 1)],
                2: [("I_now", self.w["rows"][1, c], 2)],
                3: [
                    ("I_now", self.w["rows"][1, c], 2),
                    ("I_upper", self.w["upper"][1, f // 16], 1),
                ],
            }
            for k, terms in rows.items():
                for name, row_E, first in terms:
                    for gate, more in enumerate(self._made(name, row_E, first, k, s)):
                        added[self._at(gate, k, s)] += more
        return added

    def _recurrent(self, h: np.ndarray) -> np.ndarray:
        return self.w["R"] @ h

    def step(self, h: np.ndarray, known: Any, codes: Any, gate_G: np.ndarray) -> np.ndarray:
        Ru, Rr, Re = np.split(self._recurrent(h), 3)
        Iu, Ir, Ie = np.split(self._past(known) + self._added(codes) + gate_G, 3)
        u, r = (np.tanh((Ru + Iu) / 2) + 1) / 2, (np.tanh((Rr + Ir) / 2) + 1) / 2
        return u * h + (1 - u) * np.tanh(r * Re + Ie)

    def logits(self, h: np.ndarray, k: int, s: int) -> np.ndarray:
        part = 2 * (k % 2) + s
        names = ("O1", "O2") if k < 2 else ("O3", "O4")
        rows = slice(part * self.P, (part + 1) * self.P), slice(part * 16, part * 16 + 16)
        return self._head(h[self._at(0, k, s)], names, rows)

    def _head(self, y: np.ndarray, names: tuple[str, str], rows: tuple[slice, slice]) -> np.ndarray:
        for name, own in zip(names, rows, strict=True):
            y = self.w[f"{name}.weight"][own] @ y + self.w[f"{name}.bias"][own]
            y = np.maximum(y, 0) if name == names[0] else y
        return y


class Quantised(Exact):
    """The same of rounded weights and activations, as the format int8 has them."""

    def __init__(self, voice: Checkpoint) -> None:
        super().__init__(voice)
        part = quantised._padded(self.U)
        self.R = []
        for R_HH, scale, bits in zip(
            np.split(self.w["R"], 3), quantised.GATE_3, quantised.BITS["R"], strict=True
        ):
            whole, unit_H = quantised._round_rows(R_HH * scale, bits, 8 * part)
            self.R.append((whole, unit_H / scale / quantised.STEPS[bits][0], bits))
        # each of what is added as an integer row, in a unit that all rows of a gate share
        E = self.w["rows"].shape[2]
        taps = np.split(self.w["I_past"], 4, axis=1)
        coarse = [np.array([self._known(c, 0) for c in range(256)]) @ tap.T for tap in taps]
        own = [self.w["rows"][1] @ self.w["I_now"].T]
        own += [rows @ self.w["I_upper"].T for rows in self.w["upper"]]
        self.unit_3 = np.zeros(3)
        for gate in range(3):
            most = max(np.abs(t[:, gate * self.H :][:, : self.H]).max() for t in coarse)
            half = self.H // 2
            # of the upper nibbles' rows each byte has its own parts
            mine = [t[:, gate * half :][:, :half] for t in own]
            upper = [mine[1][:, : half // 2], mine[2][:, half // 2 :]]
            most = max(most, *(np.abs(t).max() for t in (mine[0], *upper)))
            self.unit_3[gate] = most / (32767 // 2)
        self.coarse, self.taps, self.E = coarse, taps, E

    def _whole(self, row_G: np.ndarray) -> np.ndarray:
        unit_G = np.repeat(self.unit_3, len(row_G) // 3)
        return np.rint(row_G / unit_G) * unit_G

    def _past(self, known: list[tuple[int, int]]) -> np.ndarray:
        total = np.zeros(3 * self.H)
        for (c, f), table, tap in zip(known, self.coarse, self.taps, strict=True):
            total += self._whole(table[c])
            # what is linear isn't rounded
            total += f * (tap[:, self.E] * GAIN / 32768 + tap[:, self.E + 1] / 127.5)
        return total

    def _made(self, name: str, row_E: np.ndarray, first: int, k: int, s: int) -> np.ndarray:
        return self._whole(super()._made(name, row_E, first, k, s).ravel()).reshape(3, -1)

    def _recurrent(self, h: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [whole @ quantised._round_state(h, bits) * unit_H for whole, unit_H, bits in self.R]
        )

    def step(self, h: np.ndarray, known: Any, codes: Any, gate_G: np.ndarray) -> np.ndarray:
        return super().step(h, known, codes, gate_G).astype(np.float32).astype(np.float64)

    def _head(self, y: np.ndarray, names: tuple[str, str], rows: tuple[slice, slice]) -> np.ndarray:
        bits = [quantised.BITS[name] for name in names]
        w, b = ([self.w[f"{name}.{what}"] for name in names] for what in ("weight", "bias"))
        part, P = quantised._padded(self.U), quantised._padded(self.P)
        whole, unit_P = quantised._round_rows(w[0][rows[0]], bits[0], part)
        sums_P = whole @ quantised._round_state(y, bits[0])
        unit_P = (unit_P / quantised.STEPS[bits[0]][0]).astype(np.float32)
        hidden_P = np.maximum(quantised._affine(sums_P, unit_P, b[0][rows[0]]), np.float32(0))
        steps = np.float32(quantised.STEPS[bits[1]][1])
        most = np.maximum(hidden_P.max(), np.float32(2.0**-100))
        x_P = np.rint(hidden_P * (steps / most)).astype(np.float64)
        whole, unit_Q = quantised._round_rows(w[1][rows[1]], bits[1], P)
        unit_Q = unit_Q.astype(np.float32) * (most / steps)
        return quantised._affine(whole @ x_P, unit_Q, b[1][rows[1]]).astype(np.float64)


def teacher_forced(voice: Checkpoint, work: Any, codes_T2: np.ndarray, kind: type) -> np.ndarray:
    """Logits [T, 4, 16] of known codes, step by step."""
    T, judge = len(codes_T2), kind(voice)
    logits_T4Q, h = np.empty((T, 4, 16)), np.zeros(judge.H)

    def code(n: int) -> tuple[int, int]:
        return (int(codes_T2[n, 0]), int(codes_T2[n, 1])) if 0 <= n < T else (128, 0)

    for t in range(-(-T // 2) + 3):
        row_G = work.gates_NG[min(2 * t, T - 1) // work.hop].double().numpy()
        own = (2 * t, 2 * t - 5)
        h = judge.step(h, [code(2 * t - d) for d in (2, 4, 6, 7)], [code(n) for n in own], row_G)
        for s, n in enumerate(own):
            if 0 <= n < T:
                logits_T4Q[n] = [judge.logits(h, k, s) for k in range(4)]
    return logits_T4Q


def draw(logits_T4Q: np.ndarray, uniform_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nibbles that each sample's draws give under its logits, and how near to an edge: [T, 4].

    A lower nibble is drawn by where the draw lies within the share of the upper one; so is how
    near it is, as a share of the byte's.
    """
    nibbles = np.empty(logits_T4Q.shape[:2], np.int64)
    distance = np.empty(logits_T4Q.shape[:2])
    for t, sample in enumerate(logits_T4Q):
        for half in range(2):
            low, high = 0.0, 1.0
            for k in (2 * half, 2 * half + 1):
                edges = low + (high - low) * np.concatenate(([0], oracle.cdf(sample[k])))
                u = float(uniform_T2[t, half])
                level = int(np.clip((edges[1:] <= u).sum(), 0, 15))
                nibbles[t, k] = level
                distance[t, k] = np.abs(edges[1:-1] - u).min()
                low, high = edges[level], edges[level + 1]
    return nibbles, distance
