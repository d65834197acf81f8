"""How a voice is shared out among the CTAs of the latency kernel; needs no Triton."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu import tagged_pack, weights


def test_packing_loses_nothing(make_voice: Callable[..., Checkpoint]) -> None:
    voice = weights.rounded(make_voice(hidden=20, projection=7), "bfloat16")
    sizes = tagged_pack.sizes(voice, 3)
    packed = tagged_pack.pack(voice, sizes)
    assert (sizes.units, sizes.rows, sizes.columns, sizes.warps) == (4, 4, 256, 4)

    def unpacked(words: torch.Tensor) -> torch.Tensor:
        low, high = words << 16, words & -65536
        return torch.cat((low, high), -1).view(torch.float32)

    # [row half, unit of all, column half, gate, column]
    R = unpacked(packed.R).permute(1, 0, 4, 2, 3, 5).reshape(2, 12, 2, 3, 256)
    assert torch.equal(
        R[:, :10, :, :, :10].permute(3, 0, 1, 2, 4).reshape(60, 20), voice.tensors["R"]
    )
    assert not R[:, 10:].any()
    assert not R[..., 10:].any()
    O3 = unpacked(packed.O1)[:, 1].reshape(12, 256)
    assert torch.equal(O3[:7, :10], voice.tensors["O3.weight"])
    O4 = unpacked(packed.O2)[:, 1].transpose(0, 1).reshape(256, 12)
    assert torch.equal(O4[:, :7], voice.tensors["O4.weight"])
    assert not O4[:, 7:].any()
    rows = packed.f.view(torch.float16).view(3, 256, 2, 4, 4).permute(1, 4, 2, 0, 3)
    _, f, _ = weights.tables(voice)
    assert torch.equal(rows.reshape(256, 4, 2, 12)[:, :3, :, :10].reshape(256, 60).double(), f)
