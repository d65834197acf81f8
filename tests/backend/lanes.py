"""The cells of a subscale voice's sub-tensors: those of `exact` and `quantised`, and X y beside h.

The gate input of these has y behind its 3H rows.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.context import Context
from wavernn.kernels.utterance import lane_voice


def beside(name: str) -> ModuleType:
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


exact, half, quantised, oracle = map(beside, ("exact", "half", "quantised", "oracle"))


class Exact(exact.Exact):
    def __init__(self, voice: Checkpoint) -> None:
        super().__init__(lane_voice(voice))
        self.X = voice.tensors["X"].double().numpy()

    def cell(self, h_NH: np.ndarray, past: Any, now: Any, gate_NG: np.ndarray) -> np.ndarray:
        rows_NG, y_NC = np.split(gate_NG, [3 * self.H], axis=1)
        return super().cell(h_NH, past, now, rows_NG + y_NC @ self.X.T)


class Half(half.Half):
    """Of a voice that `weights.rounded` made."""

    def __init__(self, voice: Checkpoint) -> None:
        super().__init__(lane_voice(voice))
        self.X = voice.tensors["X"].double().numpy()

    def cell(self, h_NH: np.ndarray, past: Any, now: Any, gate_NG: np.ndarray) -> np.ndarray:
        rows_NG, y_NC = np.split(gate_NG, [3 * self.H], axis=1)
        return super().cell(h_NH, past, now, rows_NG + half._half(y_NC) @ self.X.T)


def half_context(voice: Checkpoint) -> Context:
    """The context of such a voice, whose layers round what enters them."""
    context = voice.model(torch.float64).context
    for layer in context.layers:
        layer.register_forward_pre_hook(lambda _, given: (given[0].float().half().double(),))
    return context


class Quantised(quantised.Quantised):
    """R's rows of u and r have X's columns beside them; those of e are a matrix of 16 bits."""

    def __init__(self, voice: Checkpoint) -> None:
        super().__init__(lane_voice(voice))
        X_3HC = np.split(voice.tensors["X"].double().numpy(), 3)
        width = 2 * quantised._padded(self.H // 2), quantised._padded(X_3HC[0].shape[1])
        self.beside = []
        for k, (R_HH, X_HC) in enumerate(zip(np.split(self.w["R"], 3), X_3HC, strict=True)):
            scale, bits = quantised.GATE_3[k], quantised.BITS["R"][k]
            both = np.hstack((R_HH, X_HC)) if bits == 8 else X_HC
            columns = sum(width) if bits == 8 else width[1]
            whole, unit_H = quantised._round_rows(both * scale, bits, columns)
            unit_H = unit_H / scale / quantised.STEPS[bits][0]
            if bits == 8:
                self.R[k] = (whole[:, : self.H], unit_H, bits)
            self.beside.append((whole[:, -X_HC.shape[1] :], unit_H, bits))

    def cell(self, h_NH: np.ndarray, past: Any, now: Any, gate_NG: np.ndarray) -> np.ndarray:
        rows_NG, y_NC = np.split(gate_NG, [3 * self.H], axis=1)
        added = [
            quantised._round_state(y_NC, bits) @ whole.T * unit_H
            for whole, unit_H, bits in self.beside
        ]
        return super().cell(h_NH, past, now, rows_NG + np.hstack(added))
