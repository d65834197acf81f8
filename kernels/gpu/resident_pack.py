"""A voice for the resident kernel: its weights in the order in which threads hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu.resident_plan import GROUP, NAMES, padded, plan_of
from wavernn.kernels.gpu.weights import folded, narrow_tables
from wavernn.model import LEVELS

# the buffers of `resident_kernel`, in the order of its arguments
BUFFERS = ("words", "pairs", "past", "now", "bias")


def pack(voice: Checkpoint) -> tuple[dict[str, Tensor], list[int]]:
    """Lays a voice out: BUFFERS, and the columns for `resident_plan.plan_of`.

    Raises ValueError where a row of its input exceeds float16.
    """
    model = voice.config.model
    units, P = model.hidden // 2, model.projection
    HP = padded(units)
    columns, words, orders = _words(voice)
    pairs = [order[:, ::2] | order[:, 1::2] << 16 for order in orders]
    past_c, past_f, now = (
        table.half().view(LEVELS, 3, -1, units) for table in narrow_tables(voice)
    )
    biases = [voice.tensors[f"{name}.bias"].float() for name in NAMES[3:]]
    sizes = (padded(P), LEVELS) * 2
    parts = (
        torch.from_numpy(np.concatenate([part.ravel() for part in words])),
        torch.from_numpy(np.concatenate([part.ravel() for part in pairs])),
        torch.stack((_as_rows(past_c, HP), _as_rows(past_f, HP))),
        _as_rows(now, HP),
        torch.cat([_to_size(bias, size) for bias, size in zip(biases, sizes, strict=True)]),
    )
    return dict(zip(BUFFERS, parts, strict=True)), columns


def effective(voice: Checkpoint) -> Checkpoint:
    """The voice that `pack` makes of one."""
    model = voice.config.model
    units, P = model.hidden // 2, model.projection
    columns, words, orders = _words(voice)
    plan = plan_of(columns, units, P)
    parts = iter(zip(words, orders, strict=True))
    whole = {}
    for (name, weight), matrix in zip(_matrices(voice).items(), plan.matrices, strict=True):
        made = np.zeros((len(weight) // GROUP, GROUP, weight.shape[1]), np.float32)
        for _ in matrix.parts:
            cut, order = next(parts)
            # a tile may be wider than the matrix
            inside = np.repeat(order[:, None], GROUP, axis=1) < weight.shape[1]
            g, r, k = np.nonzero(inside)
            # the filling has columns that are there already
            np.add.at(made, (g, r, order[g, k]), values(cut)[g, r, k])
        whole[name] = made.reshape(weight.shape)
    R = [
        whole[name].reshape(2, -1, padded(units), 2)[:, :units, :units].swapaxes(2, 3)
        for name in NAMES[:3]
    ]
    result = {"R": torch.from_numpy(np.concatenate(R).reshape(6 * units, 2 * units))}
    for name, (rows, width) in zip(NAMES[3:], ((P, units), (LEVELS, P)) * 2, strict=True):
        result[f"{name}.weight"] = torch.from_numpy(whole[name][:rows, :width].copy())
    return folded(voice, result, narrow_tables(voice))


def _words(voice: Checkpoint) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    """The columns that are planned for, and of each tile the words [G, 8, K] and columns [G, K]."""
    model, matrices = voice.config.model, _matrices(voice)
    used = {
        name: (weight.reshape(-1, GROUP, weight.shape[1]) != 0).any(1)
        for name, weight in matrices.items()
    }
    columns = [int(used[name].sum(1).max()) for name in NAMES]
    plan = plan_of(columns, model.hidden // 2, model.projection)
    words, orders = [], []
    for (name, weight), matrix in zip(matrices.items(), plan.matrices, strict=True):
        parts = matrix.parts
        # the columns that a group needs, then others, whose weights are zeros
        order = np.argsort(~used[name], axis=1, kind="stable")[:, : sum(parts)]
        kept = np.take_along_axis(weight.reshape(len(order), GROUP, -1), order[:, None], axis=2)
        missing = sum(parts) - order.shape[1]
        # columns beyond the last are zeros of the first
        kept, order = (np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, missing)]) for a in (kept, order))
        ends = np.cumsum(parts)
        words += np.split(as_words(kept), ends[:-1], axis=2)
        orders += np.split(order.astype(np.int32), ends[:-1], axis=1)
    return columns, words, orders


def _matrices(voice: Checkpoint) -> dict[str, np.ndarray]:
    """The matrices by NAMES in padded rows and columns, float32."""
    model = voice.config.model
    units, P = model.hidden // 2, model.projection
    HP, PP = padded(units), padded(P)
    w = {name: tensor.float().numpy() for name, tensor in voice.tensors.items()}
    result = {}
    for name, R_HH in zip(NAMES[:3], np.split(w["R"], 3), strict=True):
        whole = np.zeros((2, HP, HP, 2), np.float32)
        # columns are unit * 2 + half
        whole[:, :units, :units] = R_HH.reshape(2, units, 2, units).swapaxes(2, 3)
        result[name] = whole.reshape(2 * HP, 2 * HP)
    for name, (rows, columns) in zip(NAMES[3:], ((PP, HP), (LEVELS, PP)) * 2, strict=True):
        weight = w[f"{name}.weight"]
        result[name] = np.pad(weight, ((0, rows - len(weight)), (0, columns - weight.shape[1])))
    return result


def as_words(weight_GRK: np.ndarray) -> np.ndarray:
    """Pairs of rows as words [G, 8, K]: the lower half rounded first, then the word to the upper.

    The upper weight is the whole word as a float32, so that it costs nothing to unpack: its last
    16 bits happen to be the other weight. It's rounded with them in mind, so that its error stays
    within that of a bfloat16.
    """
    low, high = (np.ascontiguousarray(weight_GRK[:, part::2], np.float32) for part in range(2))
    bits = torch.from_numpy(low).bfloat16().view(torch.int16).numpy().astype(np.int64) & 0xFFFF
    magnitude = np.abs(high).view(np.uint32).astype(np.int64)
    upper = np.maximum((magnitude - bits + 0x8000) >> 16, 0)
    sign = high.view(np.uint32).astype(np.int64) >> 31
    words_G8K: np.ndarray = (sign << 31 | upper << 16 | bits).astype(np.uint32).view(np.int32)
    return words_G8K


def values(words_G8K: np.ndarray) -> np.ndarray:
    """The weights [G, 16, K], float32, that words stand for."""
    words_G8K = np.ascontiguousarray(words_G8K)
    low = (words_G8K.view(np.uint32) << np.uint32(16)).view(np.float32)
    weights = np.stack((low, words_G8K.view(np.float32)), axis=2)
    weights_GRK: np.ndarray = weights.reshape(len(low), GROUP, -1)
    return weights_GRK


def _as_rows(table_Q3U: Tensor, width: int) -> Tensor:
    """Three float16 of a unit in one word: [Q, 3, halves, units] as int64 [Q, halves, width]."""
    Q, _, halves, units = table_Q3U.shape
    words = torch.zeros(Q, halves, width, 4, dtype=torch.float16)
    words[:, :, :units, :3] = table_Q3U.movedim(1, -1)
    return words.view(torch.int64).squeeze(-1)


def _to_size(bias: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(bias, (0, size - len(bias)))
