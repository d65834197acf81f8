"""The kernel for many streams of a dense voice: groups of multiprocessors, 8 to 64 lanes each."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels.gpu import group_pack, weights
from wavernn.kernels.gpu.cache import Laid, laid_out
from wavernn.kernels.gpu.call import Call, Configuration
from wavernn.kernels.gpu.group_kernel import group_kernel
from wavernn.model import LEVELS

# lanes of a group
TILES = (8, 16, 32, 64)
# polls of a wait before it is given up; together a second or so
PATIENCE = 1 << 22
# whole numbers of 32 bits to a line of the cache, of which each counter has one
LINE = 32
# from so many lanes on, to draw for all of them takes longer than to hand the codes round
MANY = 64
DRAWN = 8

_NARROW = "weights heads past_c past_f now x"
_FLOATS = "h gates temperature audio uniform bias"
_INTS = "code stream steps rest sums drawn arrived failed"
TYPES = (
    {f"{name}_ptr": "*fp16" for name in _NARROW.split()}
    | {f"{name}_ptr": "*fp32" for name in _FLOATS.split()}
    | {f"{name}_ptr": "*i32" for name in _INTS.split()}
    | {"sample_ptr": "*i64", "memory_ptr": "*fp64", "codes_ptr": "*u8"}
    | dict.fromkeys(("lanes", "start", "T", "gate_rows", "patience"), "i32")
    | dict.fromkeys(("scale_c", "scale_f"), "fp32")
)


def constants(
    cut: group_pack.Slices, lanes: int, hop: int, pre_emphasis: float, known: bool
) -> dict[str, Any]:
    """The constants of `group_kernel`; `known` takes codes instead of drawing."""
    return {
        "N": cut.ctas,
        "L": lanes,
        "S": DRAWN if lanes >= MANY else lanes,
        "HH": cut.hidden // 2,
        "U": cut.units,
        "HP": cut.columns,
        "LINE": LINE,
        "SHARE": group_pack.power(-(-LEVELS * lanes // cut.ctas)),
        "HOP": hop,
        "A": pre_emphasis,
        "SCORE": known,
    }


class Group:
    """A dense voice on groups of N programs, each with `lanes` lanes; see `call.Kernel`.

    Without `ctas`, the fewest programs that have room for the voice are taken, and without
    `groups` as many groups as the device has room for. A wait is given up after `patience` polls.
    """

    name, format = "group", "float16"

    def __init__(
        self,
        voice: Checkpoint,
        device: torch.device | str,
        ctas: int | None = None,
        lanes: int = 16,
        groups: int | None = None,
        patience: int = PATIENCE,
    ) -> None:
        if lanes not in TILES:
            raise ValueError(f"a group has {', '.join(map(str, TILES))} lanes, not {lanes}")
        model = voice.config.model
        self.device, self.patience, self.tile = torch.device(device), patience, lanes
        sizes = (model.hidden, model.projection)
        # programs that are interpreted need no room
        places = shared = 1 << 30
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            about = triton.runtime.driver.active.utils.get_device_properties(index)
            places, shared = about["multiprocessor_count"], about["max_shared_mem"]
        if ctas is None:
            self.cut = group_pack.fitting(*sizes, lanes, places, shared)
        else:
            self.cut = group_pack.slices(*sizes, ctas)
        groups = groups or (max(places // self.cut.ctas, 1) if self.device.type == "cuda" else 1)
        if groups * self.cut.ctas > places:
            raise BackendUnavailable(
                f"{groups} groups of {self.cut.ctas} programs must be on the device at once, "
                f"which has {places} multiprocessors"
            )
        self.lanes, self.programs = lanes * groups, self.cut.ctas * groups
        tensors, header = laid_out(
            voice, f"{self.name}-{self.cut.ctas}", lambda: self._lay_out(voice)
        )
        coarse, fine = header["scale"]
        self.slabs = group_pack.Slabs(**tensors, scale=(coarse, fine)).to(self.device)
        self.hop, self.pre_emphasis = model.conditioning_hop_samples, model.pre_emphasis

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        # columns that no program writes stay 0
        self.x = zeros(groups, 2, lanes, self.cut.columns, dtype=torch.float16)
        self.sums, self.drawn = zeros(groups, 2, lanes, LEVELS), zeros(groups, 2, lanes)
        self.arrived, self.failed = zeros(groups, LINE), zeros(1)

    def _lay_out(self, voice: Checkpoint) -> Laid:
        slabs = group_pack.slabs(weights.rounded(voice, self.format), self.cut)
        tensors = {name: value for name, value in vars(slabs).items() if name != "scale"}
        return tensors, {"scale": slabs.scale}

    def launch(self, call: Call) -> None:
        """Enqueues a call on the current stream of the device."""
        lanes, known = len(call.stream_L), call.known_BT2 is not None
        if lanes > self.lanes:
            raise ValueError(f"expected at most {self.lanes} lanes, got {lanes}")
        if lanes == 0:
            return
        w = self.slabs
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_device:
            # a launch depends on no earlier one, not even on one that gave up
            self.arrived.zero_()
            group_kernel[(self.programs,)](
                *(call.h_BH, call.code_B2, call.sample_B, call.memory_B),
                *(call.stream_L, call.steps_L, call.gates_BNG, call.temperature_B),
                *(call.codes_BT2, call.audio_BT),
                *(call.uniform_BT2, call.known_BT2, call.logits_BT2Q),
                *(w.weights, w.heads, w.bias, w.rest, w.past_c, w.past_f, w.now),
                *(self.x, self.sums, self.drawn, self.arrived, self.failed),
                *(lanes, call.start, call.codes_BT2.shape[1], call.gates_BNG.shape[1]),
                *(*w.scale, self.patience),
                **constants(self.cut, self.tile, self.hop, self.pre_emphasis, known),
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
                "a program of the group kernel waited in vain for the others; the codes of its "
                "streams since are lost"
            )


def configurations() -> list[Configuration]:
    """The shapes that are compiled without a GPU: dense-896 by programs and lanes of a group."""
    result = []
    for ctas, lanes in ((56, 16), (56, 8), (56, 32), (56, 64), (112, 16)):
        cut = group_pack.slices(896, 448, ctas)
        exchanges = 6 if lanes >= MANY else 4
        configuration = Configuration(
            f"group dense-896 {ctas}x{lanes}",
            group_kernel,
            TYPES,
            constants(cut, lanes, 64, 0.85, False) | {"known_ptr": None, "logits_ptr": None},
            cooperative=True,
            expected={
                "MEMBAR": exchanges,
                "polls": exchanges,
                # the sums of 256 threads, and the arrivals
                "RED": 2 * lanes + exchanges,
            },
        )
        result.append(configuration)
    return result
