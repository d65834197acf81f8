"""A dense voice as the group of `tagged` holds it: N equal shares of bfloat16 pairs.

CTA j has units j U .. j U + U - 1 of both halves, rows j V .. of O1 and O3 and the columns of O2
and O4 that belong to them. Sizes are padded to powers of two with zeros. A word holds two columns
that lie half a row apart, the lower one in its lower bits:

    R   [N, 2 rows coarse, fine, 2 columns coarse, fine, 3 u, r, e, U, HP / 2]
    O1  [N, 2, V, HP / 2], of O1 and O3; O2 [N, 2, 256, V / 2], of O2 and O4
    b1  [N, 2, V], b2 [2, 256] float32
    c, f [N, 256, 2, U], now [N, 256, U]: float16 u, r, e, 0 of a code, as int64
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu import weights
from wavernn.model import LEVELS

FORMAT = "bfloat16"
WARPS = 8
# 16-bit weights that one warp keeps in its registers
WARP_WEIGHTS = 8192
# sums of logits lie in 48 bits with 20 after the point; half of that is for what states may exceed
LARGEST_LOGIT = 2.0**26


@dataclass(frozen=True)
class Sizes:
    """How a voice is shared out: N CTAs of `warps` warps."""

    # H / 2, P
    half: int
    projection: int
    # N
    ctas: int

    @property
    def units(self) -> int:
        """U, units of each half in a CTA."""
        return max(_power(-(-self.half // self.ctas)), 2)

    @property
    def rows(self) -> int:
        """V, rows of O1 and of O3 in a CTA."""
        return max(_power(-(-self.projection // self.ctas)), 2)

    @property
    def columns(self) -> int:
        """HP, columns of a half; a warp's lanes have 4 words each at least."""
        return max(_power(self.units * self.ctas), 256)

    @property
    def warps(self) -> int:
        """A warp has at least one unit."""
        return min(WARPS, self.units)

    def check(self) -> None:
        """Raises ValueError where the registers of a CTA don't hold its share."""
        U, V, HP = self.units, self.rows, self.columns
        share = 12 * U * HP + 2 * V * HP + 2 * LEVELS * V
        if share > WARP_WEIGHTS * self.warps:
            raise ValueError(
                f"{self.ctas} CTAs of {self.warps} warps keep {WARP_WEIGHTS * self.warps} weights "
                f"each, and a share of this voice has {share}; give more CTAs"
            )


def sizes(voice: Checkpoint, ctas: int | None = None) -> Sizes:
    """The sizes for a voice; without `ctas`, 8 units of each half go to a CTA.

    Raises ValueError for a number of CTAs that can't hold the voice.
    """
    model = voice.config.model
    half = model.hidden // 2
    if ctas is not None and ctas < 1:
        raise ValueError(f"a group has at least 1 CTA, got {ctas}")
    result = Sizes(half, model.projection, ctas or -(-half // WARPS))
    result.check()
    return result


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _padded(tensor: Tensor, *shape: int) -> Tensor:
    result = torch.zeros(shape, dtype=tensor.dtype)
    result[tuple(slice(n) for n in tensor.shape)] = tensor
    return result


def _pairs(matrix: Tensor) -> Tensor:
    """[..., K] to int32 [..., K / 2], exactly; column k's partner is k + K / 2."""
    narrow = matrix.to(torch.bfloat16)
    if not torch.equal(narrow.to(matrix.dtype), matrix):
        raise ValueError("expected weights rounded to bfloat16")
    low, high = narrow.view(torch.int16).to(torch.int32).chunk(2, dim=-1)
    return ((high << 16) | (low & 0xFFFF)).contiguous()


def _quads(table: Tensor, sizes: Sizes, halves: int) -> Tensor:
    """Rows [256, 3 * halves * H / 2] to int64 [N, 256, halves, U] of float16 u, r, e, 0."""
    N, U = sizes.ctas, sizes.units
    x = table.half().view(LEVELS, 3, halves, sizes.half)
    x = _padded(x, LEVELS, 4, halves, N * U).view(LEVELS, 4, halves, N, U)
    return x.permute(3, 0, 2, 4, 1).contiguous().view(torch.int64).squeeze(-1)


@dataclass(frozen=True)
class Packed:
    """The tensors of the module's docstring."""

    R: Tensor
    O1: Tensor
    O2: Tensor
    b1: Tensor
    b2: Tensor
    c: Tensor
    f: Tensor
    now: Tensor

    def to(self, device: torch.device) -> Packed:
        """A copy on a device."""
        return replace(self, **{x.name: getattr(self, x.name).to(device) for x in fields(self)})


def pack(voice: Checkpoint, sizes: Sizes) -> Packed:
    """Shares out a voice that `weights.rounded` made.

    Raises ValueError for one whose logits may leave the range of their sums.
    """
    w, (HH, N, U, V, HP) = voice.tensors, _letters(sizes)
    _check_logits(voice)
    # [gate, row half, unit, column half, column]
    R = _padded(w["R"].view(3, 2, HH, 2, HH), 3, 2, N * U, 2, HP).view(3, 2, N, U, 2, HP)
    first = [_padded(w[f"{name}.weight"], N * V, HP).view(N, V, HP) for name in ("O1", "O3")]
    second = [
        _padded(w[f"{name}.weight"], LEVELS, N * V).view(LEVELS, N, V).transpose(0, 1)
        for name in ("O2", "O4")
    ]
    bias = [_padded(w[f"{name}.bias"], N * V).view(N, V) for name in ("O1", "O3")]
    c, f, now = weights.tables(voice)
    return Packed(
        R=_pairs(R.permute(2, 1, 4, 0, 3, 5)),
        O1=_pairs(torch.stack(first, dim=1)),
        O2=_pairs(torch.stack(second, dim=1)),
        b1=torch.stack(bias, dim=1).float(),
        b2=torch.stack((w["O2.bias"], w["O4.bias"])).float(),
        c=_quads(c, sizes, 2),
        f=_quads(f, sizes, 2),
        now=_quads(now, sizes, 1),
    )


def _letters(sizes: Sizes) -> tuple[int, int, int, int, int]:
    return sizes.half, sizes.ctas, sizes.units, sizes.rows, sizes.columns


def _check_logits(voice: Checkpoint) -> None:
    """A state lies in [-1, 1], so that the weights bound the logits."""
    for one, two in (("O1", "O2"), ("O3", "O4")):
        w1, b1, w2, b2 = (
            voice.tensors[f"{name}.{kind}"].double().abs()
            for name in (one, two)
            for kind in ("weight", "bias")
        )
        bound = float((w2 @ (w1.sum(1) + b1) + b2).max())
        if not bound < LARGEST_LOGIT:
            raise ValueError(
                f"the logits of {two} may reach {bound:.3g}, and this kernel sums them in fixed "
                f"point below {LARGEST_LOGIT:.3g}; use another kernel for this voice"
            )
