"""The kernel for subscale voices: one utterance's sub-tensors on a group of multiprocessors."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.config import ModelConfig
from wavernn.kernels.gpu import group_pack, subscale_pack, weights
from wavernn.kernels.gpu.cache import Laid, laid_out
from wavernn.kernels.gpu.call import Configuration
from wavernn.kernels.gpu.group import LINE, PATIENCE
from wavernn.kernels.gpu.subscale_kernel import subscale_kernel
from wavernn.model import LEVELS

# the voice in the order of the kernel's arguments
VOICE = "weights heads bias rest past_c past_f now X present earlier taps_bias coarse fine lanes"
_NARROW = "columns weights heads past_c past_f now X present earlier x"
_FLOATS = "h e gates uniform bias taps_bias coarse fine lanes ahead"
_INTS = "made rest sums arrived failed"
TYPES = (
    {f"{name}_ptr": "*fp16" for name in _NARROW.split()}
    | {f"{name}_ptr": "*fp32" for name in _FLOATS.split()}
    | {f"{name}_ptr": "*i32" for name in _INTS.split()}
    | {"codes_ptr": "*u8"}
    | dict.fromkeys(("tick", "ticks", "at", "window", "phase", "patience"), "i32")
    | dict.fromkeys(("temperature", "scale_c", "scale_f"), "fp32")
)


def constants(
    cut: group_pack.Slices, size: subscale_pack.Sizes, hop: int, known: bool
) -> dict[str, Any]:
    """The constants of `subscale_kernel`; `known` takes codes instead of drawing."""
    L, C, N = size.lanes, size.channels, cut.ctas
    return {
        "N": N,
        "FACTOR": size.factor,
        "F": size.horizon,
        "MADE": size.remembered,
        "L": L,
        "C": C,
        "J": size.layers,
        "TILE": size.tile(N),
        "E": group_pack.power(-(-L * C // N)),
        "D": group_pack.power(max(size.factor - 2, 1)),
        "HH": cut.hidden // 2,
        "U": cut.units,
        "HP": cut.columns,
        "SHARE": group_pack.power(-(-LEVELS * L // N)),
        "HOP": hop,
        "SCORE": known,
    }


@dataclass(frozen=True)
class Window:
    """Samples that a launch may make, all on the kernel's device; see `utterance.Utterance`."""

    # float32 [N, G] from the row of the first sample on
    gates_NG: Tensor
    # uint8 [W, 2], read and written
    codes_W2: Tensor
    # the first sample of the utterance
    base: int
    # float32 [W, 2], where codes are drawn
    uniform_W2: Tensor | None = None
    # uint8 [W, 2], the codes to take instead, with room for the logits, float32 [W, 2, Q]
    known_W2: Tensor | None = None
    logits_W2Q: Tensor | None = None


class Lanes:
    """One utterance of a voice on N programs: its state, and ticks of it.

    Without `ctas`, the fewest programs that have room for the voice are taken. A wait is given up
    after `patience` polls. Raises BackendUnavailable for a voice that the device has no room for,
    ValueError for one that the kernel can't hold.
    """

    name, format = "subscale", "float16"

    def __init__(
        self,
        voice: Checkpoint,
        device: torch.device | str,
        ctas: int | None = None,
        patience: int = PATIENCE,
    ) -> None:
        self.device, self.patience = torch.device(device), patience
        self.model = voice.config.model
        self.size = subscale_pack.sizes(self.model)
        self.cut = _cut(self.model, self.size, self.device, ctas)
        self.programs = self.cut.ctas
        tensors, header = laid_out(
            voice, f"{self.name}-{self.cut.ctas}", lambda: self._lay_out(voice)
        )
        self.voice = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self.scale: tuple[float, float] = tuple(header["scale"])
        L, C, H = self.size.lanes, self.size.channels, self.model.hidden

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        # columns that no program writes stay 0
        self.x = zeros(2, L, self.cut.columns, dtype=torch.float16)
        self.sums, self.arrived, self.failed = zeros(2, L, LEVELS), zeros(LINE), zeros(1)
        self.ahead = zeros(self.size.layers + 1, L, C, dtype=torch.float32)
        self.h = zeros(L, H, dtype=torch.float32)
        self.made = zeros(self.size.remembered, L)
        self.e = zeros(self.size.horizon + 1, L, C, dtype=torch.float32)
        self.columns = zeros(self.size.columns, L, C, dtype=torch.float16)
        self.reset()

    def _lay_out(self, voice: Checkpoint) -> Laid:
        rounded = weights.rounded(voice, self.format)
        tensors, scale = subscale_pack.pack(rounded, self.cut, self.size)
        return tensors, {"scale": scale}

    def reset(self) -> None:
        """Puts the utterance back to its start: no samples, and columns that have seen none."""
        self.h.zero_()
        self.made.fill_(-1)
        self.e.copy_(self.voice["lanes"])
        self.columns.copy_(self.voice["columns"])

    def run(self, window: Window, tick: int, ticks: int, temperature: float = 1.0) -> None:
        """Enqueues ticks from `tick` on, on the current stream of the device."""
        model, known = self.model, window.known_W2 is not None
        hop = model.conditioning_hop_samples
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_device:
            # a launch depends on no earlier one, not even on one that gave up
            self.arrived.zero_()
            subscale_kernel[(self.programs,)](
                *(self.h, self.made, self.e, self.columns),
                *(window.gates_NG, window.uniform_W2, window.known_W2, window.logits_W2Q),
                *(window.codes_W2, *(self.voice[name] for name in VOICE.split())),
                *(self.x, self.sums, self.ahead, self.arrived, self.failed),
                *(tick, ticks, model.subscale * tick - window.base, len(window.codes_W2)),
                *(window.base % hop, temperature, *self.scale, self.patience),
                **constants(self.cut, self.size, hop, known),
                num_warps=8,
                num_stages=1,
                enable_fp_fusion=True,
                launch_cooperative_grid=True,
            )

    def check(self) -> None:
        """Raises RuntimeError where an earlier launch gave up; waits for the device."""
        if int(self.failed):
            self.failed.zero_()
            raise RuntimeError(
                "a program of the subscale kernel waited in vain for the others; the utterance is "
                "lost from there on"
            )


def _cut(
    model: ModelConfig, size: subscale_pack.Sizes, device: torch.device, ctas: int | None
) -> group_pack.Slices:
    """Cuts a voice for a device; programs that are interpreted need no room."""
    sizes, places, shared = (model.hidden, model.projection), 1 << 30, 1 << 30
    if ctas is not None:
        return group_pack.slices(*sizes, ctas)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        about = triton.runtime.driver.active.utils.get_device_properties(index)
        places, shared = about["multiprocessor_count"], about["max_shared_mem"]
    return group_pack.fitting(*sizes, size.lanes, places, shared, size.shared_bytes)


def configurations() -> list[Configuration]:
    """The voices that are compiled without a GPU: dense ones, most of a recipe's sizes."""
    result = []
    for name, model in (
        ("subscale-16", ModelConfig(hidden=1024, projection=512, subscale=16)),
        ("subscale-16 of 8", ModelConfig(hidden=1024, projection=512, subscale=8)),
        (
            "subscale-8-384",
            ModelConfig(hidden=384, projection=192, subscale=8, context_channels=32),
        ),
        # as tests have it: the least that products sum over
        ("subscale small", ModelConfig(hidden=32, projection=16, subscale=4, context_channels=8)),
    ):
        size = subscale_pack.sizes(model)
        cut = group_pack.slices(model.hidden, model.projection, None)
        known = {"known_ptr": None, "logits_ptr": None}
        configuration = Configuration(
            f"{name} {cut.ctas}x{size.lanes}",
            subscale_kernel,
            TYPES,
            constants(cut, size, model.conditioning_hop_samples, False) | known,
            cooperative=True,
            expected={"MEMBAR": 4, "polls": 4, "RED": 2 * size.lanes + 4},
        )
        result.append(configuration)
    return result
