"""A voice cut into the slices that the programs of `group.py` hold, one of N each.

Each half of the state is cut into N slices of U units, and the P rows of a head's first layer into
N slices of at most 2 U; what sizes lack is zeros. M = 8 U rows of a program are products with one
half of the state: [u, r, e][coarse, fine][U] of R and then a slice of O1 or O3, up to 2 U rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels.gpu import weights
from wavernn.model import LEVELS

# weights of R, O1 and O3 that a multiprocessor holds in its registers
ROOM = 1 << 16
# the most that a sum of logits reaches, in its whole numbers: a state that a user sets may be
# beyond -1..1, so a factor of 4 is left
MOST = 1 << 29


@dataclass(frozen=True)
class Slices:
    """How a voice of these sizes is cut."""

    hidden: int
    projection: int
    # programs that hold the voice, N
    ctas: int
    # units of each half in a program, U; a power of two
    units: int

    @property
    def columns(self) -> int:
        """Units of a half in all programs, padded to a power of two: HP."""
        # in two parts, each with the 16 that a product sums over at least
        return max(32, power(self.ctas * self.units))

    @property
    def summed(self) -> int:
        """Rows that the second layer sums over, the last ones of the product."""
        return max(16, 2 * self.units)

    @property
    def rows(self) -> int:
        """Rows of a program's product: M."""
        return 8 * self.units

    def shared_bytes(self, lanes: int) -> int:
        """What a program of so many lanes holds in shared memory: weights, and an input of each."""
        products = 2 * self.rows * self.columns + lanes * self.columns
        return 2 * (products + 2 * LEVELS * self.summed)


def slices(hidden: int, projection: int, ctas: int | None) -> Slices:
    """Cuts a voice for `ctas` programs, or for as few as have room for it."""
    half = hidden // 2
    if ctas is None:
        units = min(max(2, ROOM // (16 * power(half))), power(half))
        ctas = -(-half // units)
    units = max(2, power(-(-half // ctas)), power(-(-projection // (2 * ctas))))
    return Slices(hidden, projection, ctas, units)


def fitting(
    hidden: int,
    projection: int,
    lanes: int,
    places: int,
    shared_bytes: int,
    beside: Callable[[Slices], int] = lambda cut: 0,
) -> Slices:
    """Cuts a voice for a device with so many multiprocessors, each with this shared memory.

    `beside` is what a program holds in shared memory beside its slices. Raises BackendUnavailable
    where there is room for none.
    """

    def needed(cut: Slices) -> int:
        return cut.shared_bytes(lanes) + beside(cut)

    cut = slices(hidden, projection, None)
    while needed(cut) > shared_bytes and cut.ctas <= places:
        cut = slices(hidden, projection, 2 * cut.ctas)
    if cut.ctas > places:
        raise BackendUnavailable(
            f"{cut.ctas} programs with {needed(cut)} bytes of shared memory must be on "
            f"the device at once, which has {places} multiprocessors of {shared_bytes} bytes"
        )
    return cut


def power(size: int) -> int:
    """The least power of two that isn't below `size`."""
    return 1 << (size - 1).bit_length()


@dataclass(frozen=True)
class Slabs:
    """The tensors of `group.group_kernel` that a voice decides."""

    # float16 [N, 2, M, HP], float16 [N, 2, Q, M], float32 [N, 2, M]: the products with a half of
    # the state, O2 and O4, and the bias of O1 and O3
    weights: Tensor
    heads: Tensor
    bias: Tensor
    # int32 [2, Q]: the bias of O2 and O4 in whole numbers
    rest: Tensor
    # float16 [N, Q, 2, 3, U] twice and [N, Q, 3, U]: what a code adds to the gates
    past_c: Tensor
    past_f: Tensor
    now: Tensor
    # whole numbers to a logit of 1, powers of two: coarse, fine
    scale: tuple[float, float]

    def to(self, device: torch.device | str) -> Slabs:
        """Moves them to a device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Slabs(**moved, scale=self.scale)


def slabs(voice: Checkpoint, cut: Slices) -> Slabs:
    """Cuts a voice that `weights.rounded` has made float16.

    Raises ValueError where a sum of a product may be beyond float16.
    """
    N, U, M, HP = cut.ctas, cut.units, cut.rows, cut.columns
    w = {name: tensor.double() for name, tensor in voice.tensors.items()}
    half, P = cut.hidden // 2, cut.projection
    # [gate][half of the row][unit][half of the column][unit]
    R = w["R"].view(3, 2, half, 2, half)
    wide = torch.zeros(3, 2, N * U, 2, HP, dtype=torch.float64)
    wide[:, :, :half, :, :half] = R
    per = -(-P // N)
    matrix = torch.zeros(N, 2, 4, 2 * U, HP, dtype=torch.float64)
    matrix[:, :, :3] = (
        wide.view(3, 2, N, U, 2, HP).permute(2, 4, 0, 1, 3, 5).reshape(N, 2, 3, 2 * U, HP)
    )
    bias = torch.zeros(N, 2, M)
    heads = torch.zeros(N, 2, LEVELS, cut.summed, dtype=torch.float64)
    skipped = cut.summed - 2 * U
    rest, scale = [], []
    for side, (one, two) in enumerate((("O1", "O2"), ("O3", "O4"))):
        first = torch.zeros(N * per, HP, dtype=torch.float64)
        first[:P, :half] = w[f"{one}.weight"]
        matrix[:, side, 3, :per] = first.view(N, per, HP)
        first_bias = torch.zeros(N * per)
        first_bias[:P] = w[f"{one}.bias"]
        bias[:, side, 6 * U : 6 * U + per] = first_bias.view(N, per) / 2
        second = torch.zeros(LEVELS, N * per, dtype=torch.float64)
        second[:, :P] = w[f"{two}.weight"]
        heads[:, side, :, skipped : skipped + per] = second.view(LEVELS, N, per).transpose(0, 1)
        # a unit of the state is at most 1
        most_P = w[f"{one}.weight"].abs().sum(1) + w[f"{one}.bias"].abs()
        if float(most_P.max()) > torch.finfo(torch.float16).max:
            raise ValueError(f"{one} may reach {float(most_P.max()):.3g}, which isn't float16")
        most = float((w[f"{two}.weight"].abs() @ most_P + w[f"{two}.bias"].abs()).max())
        scale.append(2.0 ** math.floor(math.log2(MOST / max(most, 2.0**-60))))
        rest.append((w[f"{two}.bias"] * scale[-1]).round().int())
    past_c, past_f, now = (_cut(table, half, N, U) for table in weights.tables(voice))
    return Slabs(
        matrix.view(N, 2, M, HP).half(),
        heads.half(),
        bias,
        torch.stack(rest),
        past_c,
        past_f,
        now,
        (scale[0], scale[1]),
    )


def _cut(table_QG: Tensor, half: int, N: int, U: int) -> Tensor:
    """Rows [Q, 3, halves, H / 2] as float16 [N, Q, halves, 3, U]."""
    halves = table_QG.shape[1] // (3 * half)
    wide = torch.zeros(LEVELS, 3, halves, N * U, dtype=torch.float64)
    wide[..., :half] = table_QG.view(LEVELS, 3, halves, half)
    cut = wide.view(LEVELS, 3, halves, N, U).permute(3, 0, 2, 1, 4)
    return cut.contiguous().half()
