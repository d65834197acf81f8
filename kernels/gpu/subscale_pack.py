"""A subscale voice as the group of `subscale_group` holds it: lanes as `group_pack` cuts them.

C and the lanes are padded with zeros to powers of two, which a product wants. Of the context each
program holds what it computes for all lanes, the present taps of all layers, and its rows of X; the
earlier taps are shared out by tiles of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.config import ModelConfig
from wavernn.kernels import GPU_MOST_LANES
from wavernn.kernels.gpu import group_pack
from wavernn.kernels.gpu.group_pack import Slices, power
from wavernn.kernels.pack_context import code_tables
from wavernn.kernels.utterance import lane_voice


@dataclass(frozen=True)
class Sizes:
    """What the context of a voice and its lanes take."""

    # U, F, C as it is, J
    factor: int
    horizon: int
    width: int
    layers: int

    @property
    def lanes(self) -> int:
        """L: U, but 8 at least."""
        return max(8, power(self.factor))

    @property
    def channels(self) -> int:
        """C, padded; a product sums over 16 at least."""
        return max(2 * self.lanes, power(self.width))

    @property
    def remembered(self) -> int:
        """Ticks whose codes later lanes still see: a power of two."""
        return power(max((self.factor - 2) * (self.horizon + 1), 1))

    @property
    def columns(self) -> int:
        """Columns of the layers' inputs that are kept, all layers together."""
        return (1 << self.layers) - 1

    def tile(self, ctas: int) -> int:
        """Rows of the earlier taps that a program computes at once."""
        # where rows are no more than lanes, every warp would compute all of a product
        share = power(-(-self.layers * self.channels // ctas))
        return min(self.channels, max(2 * self.lanes, share))

    def shared_bytes(self, cut: Slices) -> int:
        """What a program holds of the context in shared memory."""
        C, tile = self.channels, self.tile(cut.ctas)
        tiles = -(-self.layers * C // (tile * cut.ctas))
        rows = cut.rows + self.layers * C + tiles * tile
        return 2 * (rows * C + 2 * self.lanes * C)


def sizes(model: ModelConfig) -> Sizes:
    """The sizes of a voice; raises ValueError for a subscale that the lanes don't hold."""
    if not 1 < model.subscale <= GPU_MOST_LANES:
        raise ValueError(f"it has 2 to {GPU_MOST_LANES} lanes, not {model.subscale}")
    return Sizes(
        model.subscale, model.subscale_horizon, model.context_channels, model.context_layers
    )


def pack(voice: Checkpoint, cut: Slices, size: Sizes) -> tuple[dict[str, Tensor], list[float]]:
    """The tensors of `subscale_group.Voice` for a voice that `weights.rounded` made float16.

    Returns them and the scales of the logits. Raises ValueError as `group_pack.slabs` does.
    """
    slabs = group_pack.slabs(lane_voice(voice), cut)
    tensors = {name: value for name, value in vars(slabs).items() if name != "scale"}
    J, C, more = size.layers, size.channels, size.channels - size.width
    w = {name: tensor.double().numpy() for name, tensor in voice.tensors.items()}
    taps_JCC2 = np.stack([w[f"context.layers.{j}.weight"] for j in range(J)])
    taps_JCC2 = np.pad(taps_JCC2, ((0, 0), (0, more), (0, more), (0, 0)))
    bias_JC = np.pad(
        np.stack([w[f"context.layers.{j}.bias"] for j in range(J)]), ((0, 0), (0, more))
    )
    coarse_dQC, fine_dC = code_tables(voice)
    lanes_LC = np.pad(w["context.lanes"], ((0, size.lanes - size.factor), (0, more)))
    narrow = {
        "earlier": taps_JCC2[..., 0],
        "present": taps_JCC2[..., 1],
        "X": _rows_of_X(w["X"], cut, C),
        "columns": _empty_columns(lanes_LC, taps_JCC2, bias_JC),
    }
    wide = {
        "taps_bias": bias_JC,
        "coarse": np.pad(coarse_dQC, ((0, 0), (0, 0), (0, more))),
        "fine": np.pad(fine_dC, ((0, 0), (0, more))),
        "lanes": lanes_LC,
    }
    tensors |= {name: torch.from_numpy(array.copy()).half() for name, array in narrow.items()}
    tensors |= {name: torch.from_numpy(array.copy()).float() for name, array in wide.items()}
    return tensors, list(slabs.scale)


def _rows_of_X(X_GC: np.ndarray, cut: Slices, channels: int) -> np.ndarray:
    """[N, M, C]: rows of u and r where R has them, those of e where the head's are."""
    N, U, half = cut.ctas, cut.units, cut.hidden // 2
    wide = np.zeros((4, 2, N * U, channels))
    wide[[0, 1, 3], :, :half, : X_GC.shape[1]] = X_GC.reshape(3, 2, half, -1)
    return (
        wide.reshape(4, 2, N, U, channels).transpose(2, 0, 1, 3, 4).reshape(N, cut.rows, channels)
    )


def _empty_columns(e_LC: np.ndarray, taps_JCC2: np.ndarray, bias_JC: np.ndarray) -> np.ndarray:
    """Inputs of the layers in columns without samples, [2^J - 1, L, C]: 2^j of layer j."""
    x, columns = e_LC, []
    for j, (taps_CC2, bias_C) in enumerate(zip(taps_JCC2, bias_JC, strict=True)):
        narrow = x.astype(np.float16)
        columns.append(np.repeat(narrow[None], 1 << j, axis=0))
        x = x + np.maximum(narrow.astype(np.float64) @ taps_CC2.sum(-1).T + bias_C, 0)
    return np.concatenate(columns).astype(np.float64)
