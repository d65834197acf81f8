"""Which blocks of a matrix are kept: masks, and the schedule on which they shrink.

Kalchbrenner et al. 2018, section 3; Narang et al. 2017 (block pruning).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wavernn.config import PruneConfig


def kept_blocks(rows: int, columns: int, density: float, prune: PruneConfig) -> int:
    """The number of blocks that a matrix of rows x columns keeps at a density in [0, 1]."""
    high, wide = rows // prune.block_rows, columns // prune.block_columns
    return high * round(wide * density) if prune.balanced else round(high * wide * density)


def block_mask(weight_RW: Tensor, density: float, prune: PruneConfig) -> Tensor:
    """Keeps the blocks of largest mean magnitude: a bool mask of the matrix's shape.

    Equal magnitudes are resolved by position, so the same matrix gives the same mask everywhere.
    Raises ValueError where blocks don't divide the matrix.
    """
    magnitude = _block_magnitude(weight_RW, prune)
    rows, columns = weight_RW.shape
    keep = kept_blocks(rows, columns, density, prune)
    groups = magnitude if prune.balanced else magnitude.view(1, -1)
    order = groups.argsort(dim=1, descending=True, stable=True)[:, : keep // len(groups)]
    blocks = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order, True)
    return _spread(blocks.view_as(magnitude), prune)


def _block_magnitude(weight_RW: Tensor, prune: PruneConfig) -> Tensor:
    rows, columns = weight_RW.shape
    R, W = prune.block_rows, prune.block_columns
    if rows % R or columns % W:
        raise ValueError(f"blocks of {R} x {W} don't divide a matrix of {rows} x {columns}")
    weight_RW = weight_RW.detach().abs().double()
    if prune.keep_diagonal and rows == columns:
        # it survives anyway, so it doesn't speak for its blocks
        weight_RW = weight_RW - weight_RW.diag().diag()
    return weight_RW.view(rows // R, R, columns // W, W).mean((1, 3))


def _spread(blocks: Tensor, prune: PruneConfig) -> Tensor:
    """Writes a mask of blocks out as one of elements, with the diagonal where it is kept."""
    mask = blocks.repeat_interleave(prune.block_rows, 0).repeat_interleave(prune.block_columns, 1)
    if prune.keep_diagonal and mask.shape[0] == mask.shape[1]:
        mask |= torch.eye(len(mask), dtype=torch.bool, device=mask.device)
    return mask


def scheduled_density(step: int, final: float, prune: PruneConfig) -> float:
    """The density at an optimizer step: 1 - z(t), z(t) = Z (1 - (1 - (t - t0) / S)^3)."""
    progress = min(max((step - prune.start_step) / prune.ramp_steps, 0.0), 1.0)
    return 1 - (1 - final) * (1 - (1 - progress) ** 3)


class Pruner:
    """Shrinks the masks of some matrices on schedule and keeps the pruned weights at zero.

    `matrices` are views of the weights, by the names of `config.PRUNABLE`.
    """

    def __init__(self, matrices: Mapping[str, Tensor], prune: PruneConfig) -> None:
        self.prune = prune
        self.matrices = {
            name: matrices[name] for name, density in prune.density.items() if density < 1
        }
        self.masks = {
            name: torch.ones_like(weight, dtype=torch.bool)
            for name, weight in self.matrices.items()
        }

    def adopt(self) -> None:
        """Takes blocks that are zero throughout, as in a pruned voice, for pruned."""
        for name, weight in self.matrices.items():
            self.masks[name] = _spread(_block_magnitude(weight, self.prune) > 0, self.prune)

    def step(self, step: int) -> None:
        """Takes the state after optimizer step `step`: new masks where due, zeros put back."""
        prune = self.prune
        last = prune.start_step + prune.ramp_steps
        due = (
            prune.start_step <= step <= last and (step - prune.start_step) % prune.every_steps == 0
        )
        if due or step == last:
            for name, weight in self.matrices.items():
                density = scheduled_density(step, prune.density[name], prune)
                # what was pruned stays so, also where an early density would have room for it
                self.masks[name] = self.masks[name] & block_mask(weight, density, prune)
        self.apply(self.matrices)

    @torch.no_grad()
    def apply(self, matrices: Mapping[str, Tensor]) -> None:
        """Zeroes the pruned blocks of these matrices, in place."""
        for name, mask in self.masks.items():
            matrices[name].mul_(mask)


def density(weight_RW: Tensor) -> float:
    """The share of a matrix that isn't zero."""
    return torch.count_nonzero(weight_RW).item() / weight_RW.numel()
