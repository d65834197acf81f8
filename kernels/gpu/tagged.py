"""The kernel of least latency for a dense voice: one lane to a group of CTAs (`tagged_kernel`)."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels.gpu import tagged_pack, weights
from wavernn.kernels.gpu.cache import Laid, laid_out
from wavernn.kernels.gpu.call import Call, Configuration
from wavernn.kernels.gpu.tagged_kernel import tagged_kernel

# looks at a word before a wait gives up: more than half a second
LIMIT = 1 << 20

_FLOATS = "b1 b2 h gates temperature audio uniform logits"
_LONGS = "past_c past_f now words sums failed sample"
_INTS = "R O1 O2 code stream steps"
TYPES = (
    {f"{name}_ptr": "*fp32" for name in _FLOATS.split()}
    | {f"{name}_ptr": "*i64" for name in _LONGS.split()}
    | {f"{name}_ptr": "*i32" for name in _INTS.split()}
    | {"memory_ptr": "*fp64", "codes_ptr": "*u8", "known_ptr": "*u8"}
    | dict.fromkeys(("start", "rows", "samples", "limit"), "i32")
)


def constants(
    sizes: tagged_pack.Sizes, hop: int, pre_emphasis: float, known: bool
) -> dict[str, object]:
    """The constants of `tagged_kernel` for a voice; `known` takes codes instead of drawing."""
    return {
        "HALF": sizes.half,
        "N": sizes.ctas,
        "U": sizes.units,
        "V": sizes.rows,
        "HP": sizes.columns,
        "HOP": hop,
        "A": pre_emphasis,
        "KNOWN": known,
        "WARPS": sizes.warps,
        # words to a thread
        "E": max(sizes.columns // (32 * sizes.warps), 2),
    }


class Tagged:
    """A dense voice on groups of N CTAs, each of which runs one lane; see `call.Kernel`.

    `ctas` is N; without it, 8 units of each half go to a CTA, and without `groups` there are as
    many as the device has room for. A CTA gives up after `limit` looks at a word that it awaits.
    """

    name = "tagged"
    format = tagged_pack.FORMAT

    def __init__(
        self,
        voice: Checkpoint,
        device: torch.device | str,
        ctas: int | None = None,
        groups: int | None = None,
        limit: int = LIMIT,
    ) -> None:
        model = voice.config.model
        self.device, self.limit = torch.device(device), limit
        self.sizes = tagged_pack.sizes(voice, ctas)
        self.lanes = groups = self._groups(groups)
        tensors, _ = laid_out(voice, f"{self.name}-{self.sizes.ctas}", lambda: self._lay_out(voice))
        self.packed = tagged_pack.Packed(**tensors).to(self.device)
        self.hop, self.pre_emphasis = model.conditioning_hop_samples, model.pre_emphasis
        # the gathers' and the sums' words; one tensor, so that one call clears it
        columns = 2 * self.sizes.columns
        self.words = torch.zeros(groups * (columns + 512), dtype=torch.int64, device=self.device)
        self.sums = self.words[groups * columns :]
        self.failed = torch.zeros(1, dtype=torch.int64, device=self.device)

    def _lay_out(self, voice: Checkpoint) -> Laid:
        return vars(tagged_pack.pack(weights.rounded(voice, self.format), self.sizes)), {}

    def _groups(self, groups: int | None) -> int:
        if self.device.type != "cuda":
            return groups or 1
        # a multiprocessor has registers for 8 warps
        places = torch.cuda.get_device_properties(self.device).multi_processor_count
        places *= tagged_pack.WARPS // self.sizes.warps
        if (groups or 1) * self.sizes.ctas > places:
            raise BackendUnavailable(
                f"{groups or 1} groups of {self.sizes.ctas} CTAs must be on the device at once, "
                f"which has room for {places}"
            )
        return groups or places // self.sizes.ctas

    def launch(self, call: Call) -> None:
        """Enqueues a call on the current stream of the device."""
        lanes = len(call.stream_L)
        if lanes > self.lanes:
            raise ValueError(f"expected at most {self.lanes} lanes, got {lanes}")
        if lanes == 0:
            return
        known = call.known_BT2 is not None
        p, grid = self.packed, (lanes * self.sizes.ctas,)
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_device:
            # a launch depends on no earlier one, not even on one that gave up
            self.words.zero_()
            tagged_kernel[grid](
                *(p.R, p.O1, p.O2, p.b1, p.b2, p.c, p.f, p.now),
                *(self.words, self.sums, self.failed),
                *(call.h_BH, call.code_B2, call.sample_B, call.memory_B),
                *(call.stream_L, call.steps_L, call.gates_BNG, call.temperature_B),
                *(
                    call.codes_BT2,
                    call.audio_BT,
                    call.uniform_BT2,
                    call.known_BT2,
                    call.logits_BT2Q,
                ),
                *(call.start, call.gates_BNG.shape[1], call.codes_BT2.shape[1], self.limit),
                **constants(self.sizes, self.hop, self.pre_emphasis, known),
                num_warps=self.sizes.warps,
                num_stages=1,
                enable_fp_fusion=True,
                launch_cooperative_grid=True,
            )

    def check(self) -> None:
        """Raises RuntimeError where an earlier launch gave up; waits for the device."""
        if int(self.failed):
            self.failed.zero_()
            raise RuntimeError(
                "a group of the tagged kernel waited in vain for one of its CTAs; the states of "
                "its streams are lost"
            )


def configurations() -> list[Configuration]:
    """The shapes that are compiled without a GPU: dense-896 on 56 CTAs and on 112."""
    types = {name: kind for name, kind in TYPES.items() if name not in ("known_ptr", "logits_ptr")}
    result = []
    for ctas in (56, 112):
        sizes = tagged_pack.Sizes(448, 448, ctas)
        # 256 sums, and two words of a gather to a load
        sums, pairs = 8 // sizes.warps, sizes.columns // (64 * sizes.warps)
        configuration = Configuration(
            f"tagged dense-896 {ctas}",
            tagged_kernel,
            types,
            constants(sizes, 64, 0.85, False) | {"known_ptr": None, "logits_ptr": None},
            sizes.warps,
            gluon=True,
            cooperative=True,
            expected={
                # one for each of three hops through shared memory, in both halves
                "BAR": 6,
                "MEMBAR": 0,
                "CALL": 0,
                # gate input 6, draws 2, rows of codes 5; no weight
                "LDG": 13,
                "LDG.STRONG": 2 * pairs + 2 * max(sums // 2, 1),
                "RED": 2 * sums,
                "polls": 4,
            },
        )
        result.append(configuration)
    return result
