"""Which kernel runs a voice on a device, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels.gpu.call import Kernel

if TYPE_CHECKING:
    from wavernn.kernels.gpu.resident import Resident

# what each kernel holds the weights in; group-64 is the group kernel with 64 lanes a group
FORMATS = {
    "resident": "bfloat16",
    "group": "float16",
    "group-64": "float16",
    "tagged": "bfloat16",
    "graph": "float32",
}
# bytes that a multiprocessor reads from the second-level cache in the time that the group kernel
# needs for its exchanges: 64 a cycle, 10 us
STREAMED_BYTES = 1_200_000


def choose(
    voice: Checkpoint, device: torch.device, format: str | None, kernel: str | None
) -> tuple[Kernel, str]:
    """Packs a voice for a kernel of FORMATS; returns it and a sentence on what was chosen.

    Raises BackendUnavailable for unknown names and for what doesn't fit the device.
    """
    if kernel is not None and kernel not in FORMATS:
        raise BackendUnavailable(f"unknown kernel {kernel}; known: {', '.join(FORMATS)}")
    if format is not None and format not in FORMATS.values():
        known = ", ".join(sorted(set(FORMATS.values())))
        raise BackendUnavailable(f"the gpu engine has no format {format}; known: {known}")
    if kernel is not None and format not in (None, FORMATS[kernel]):
        raise BackendUnavailable(f"the {kernel} kernel has weights in {FORMATS[kernel]} alone")
    if kernel is not None:
        return _build(voice, device, kernel), f"{kernel}: asked for"
    if format is not None and format != "bfloat16":
        kernel = next(name for name, own in FORMATS.items() if own == format)
        return _build(voice, device, kernel), f"{kernel}: it has weights in {format}"
    resident = _build(voice, device, "resident")
    streamed = cast("Resident", resident).plan.streamed_bytes
    if not streamed:
        return resident, "resident: all weights fit the registers of a multiprocessor"
    if streamed <= STREAMED_BYTES or format == "bfloat16":
        return resident, (
            f"resident: {streamed / 1024:.0f} KiB of weights are read from the caches each sample"
        )
    try:
        group = _build(voice, device, "group")
    except BackendUnavailable as error:
        return resident, f"resident: {error}"
    return group, (
        f"group: {streamed / 1024:.0f} KiB of weights don't fit a multiprocessor, "
        "so several share them"
    )


def _build(voice: Checkpoint, device: torch.device, kernel: str) -> Kernel:
    try:
        return _packed(voice, device, kernel)
    except ValueError as error:
        raise BackendUnavailable(f"the {kernel} kernel can't run this voice: {error}") from None


def _packed(voice: Checkpoint, device: torch.device, kernel: str) -> Kernel:
    # all but the first need Triton
    if kernel == "graph":
        from wavernn.kernels.gpu.graph import Graph

        return Graph(voice, device)
    if kernel.startswith("group"):
        from wavernn.kernels.gpu.group import Group

        return Group(voice, device, lanes=64 if kernel == "group-64" else 16)
    if kernel == "tagged":
        from wavernn.kernels.gpu.tagged import Tagged

        return Tagged(voice, device)
    from wavernn.kernels.gpu.resident import Resident

    return Resident(voice, device)
