"""Which matrices are pruned, to which density and on which schedule: a frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wavernn.errors import require

if TYPE_CHECKING:
    from wavernn.config import ModelConfig

# the matrices of every voice
PRUNABLE = ("R_u", "R_r", "R_e", "O1", "O2", "O3", "O4")
# and of a subscale voice besides: what brings the context into each gate
PRUNABLE_CONTEXT = ("X_u", "X_r", "X_e")


@dataclass(frozen=True)
class PruneConfig:
    """Block pruning on a cubic schedule (section 3; Narang et al. 2017)."""

    # R and W: rows and columns of a block
    block_rows: int = 16
    block_columns: int = 4
    # the same number of blocks in every block row
    balanced: bool = False
    # the diagonal of R_u, R_r, R_e survives beside the blocks (LPCNet)
    keep_diagonal: bool = False
    # share of the blocks that is kept in the end, by matrix; one that isn't named stays dense
    density: Mapping[str, float] = field(default_factory=dict)
    # t0, S and the distance of two mask updates, in optimizer steps
    start_step: int = 1_000
    ramp_steps: int = 200_000
    every_steps: int = 500

    def __post_init__(self) -> None:
        require(
            self.block_rows > 0 and self.block_columns > 0,
            f"prune.block_rows and block_columns must be positive, "
            f"got {self.block_rows} x {self.block_columns}",
        )
        for name, value in self.density.items():
            require(
                name in (*PRUNABLE, *PRUNABLE_CONTEXT),
                f"unknown matrix prune.density.{name}; known: "
                f"{', '.join((*PRUNABLE, *PRUNABLE_CONTEXT))}",
            )
            require(0 < value <= 1, f"prune.density.{name} must lie in (0, 1], got {value}")
        require(
            self.start_step >= 0 and self.ramp_steps > 0 and self.every_steps > 0,
            "prune needs start_step >= 0, ramp_steps > 0 and every_steps > 0, "
            f"got {self.start_step}, {self.ramp_steps}, {self.every_steps}",
        )


def matrix_shape(model: ModelConfig, name: str) -> tuple[int, int]:
    """Rows and columns of a prunable matrix."""
    H, P, Q = model.hidden, model.projection, 256
    y = H // 2
    if model.fused == 2:
        # four heads stand one below another, each of a nibble and of an eighth of h
        y, P, Q = H // 8, 4 * P, 4 * 16
    shapes = {"R": (H, H), "X": (H, model.context_channels)}
    shapes |= dict.fromkeys(("O1", "O3"), (P, y))
    return shapes.get(name.split("_")[0], (Q, model.projection))
