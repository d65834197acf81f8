"""The kernel for block-sparse voices, one stream a multiprocessor: its host side."""

from __future__ import annotations

import torch

from wavernn import recipe
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config
from wavernn.kernels.gpu.cache import Laid, laid_out
from wavernn.kernels.gpu.call import Call, Configuration
from wavernn.kernels.gpu.resident_kernel import resident_kernel
from wavernn.kernels.gpu.resident_pack import BUFFERS, effective, pack
from wavernn.kernels.gpu.resident_plan import NAMES, Plan, padded, plan_of

WARPS = 8
TYPES = {
    "words": "*i32",
    "pairs": "*i32",
    "past": "*i64",
    "now": "*i64",
    "bias": "*fp32",
    "h_BH": "*fp32",
    "code_B2": "*i32",
    "sample_B": "*i64",
    "memory_B": "*fp64",
    "stream_L": "*i32",
    "steps_L": "*i32",
    "gates_BNG": "*fp32",
    "temperature_B": "*fp32",
    "codes_BT2": "*u8",
    "audio_BT": "*fp32",
    "uniform_BT2": "*fp32",
    "known_BT2": "*u8",
    "logits_BT2Q": "*fp32",
    "start": "i32",
    "length": "i32",
    "gates_stride": "i32",
}


def constants(plan: Plan, hop: int, pre_emphasis: float, score: bool) -> dict[str, object]:
    """What the kernel is compiled for."""
    return {
        "UNITS": plan.units,
        "HP": padded(plan.units),
        "PP": padded(plan.projection),
        "HOP": hop,
        "A": pre_emphasis,
        "SCORE": score,
        "MATRICES": plan.constants,
    }


def _laid_out(voice: Checkpoint) -> Laid:
    tensors, columns = pack(voice)
    return tensors, {"columns": columns}


class Resident:
    """A voice on the resident kernel; see `call.Kernel`."""

    name = "resident"
    format = "bfloat16"

    def __init__(self, voice: Checkpoint, device: torch.device) -> None:
        model = voice.config.model
        tensors, header = laid_out(voice, self.name, lambda: _laid_out(voice))
        self.plan = plan_of(header["columns"], model.hidden // 2, model.projection)
        self._voice = voice
        self._buffers = [tensors[name].to(device) for name in BUFFERS]
        self._hop, self._pre_emphasis = model.conditioning_hop_samples, model.pre_emphasis
        # programs that find no free multiprocessor run after the others
        self.lanes = 65_535

    @property
    def effective(self) -> Checkpoint:
        """The voice with the weights that it has here, for the reference to run."""
        return effective(self._voice)

    def launch(self, call: Call) -> None:
        """Enqueues a call on the current stream of the device."""
        score = call.known_BT2 is not None
        constant = constants(self.plan, self._hop, self._pre_emphasis, score)
        nothing = call.codes_BT2
        resident_kernel[(len(call.stream_L),)](
            *self._buffers,
            call.h_BH,
            call.code_B2,
            call.sample_B,
            call.memory_B,
            call.stream_L,
            call.steps_L,
            call.gates_BNG,
            call.temperature_B,
            call.codes_BT2,
            call.audio_BT,
            nothing if call.uniform_BT2 is None else call.uniform_BT2,
            nothing if call.known_BT2 is None else call.known_BT2,
            nothing if call.logits_BT2Q is None else call.logits_BT2Q,
            call.start,
            call.codes_BT2.shape[1],
            call.gates_BNG.stride(0),
            **constant,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )

    def check(self) -> None:
        """Nothing can go wrong: the programs don't wait for each other."""


# a group has at most this many times the columns of the mean, where pruning isn't balanced
UNBALANCED = 1.6
RECIPES = ("tiny", "sparse-384", "sparse-512", "sparse-1024", "sparse-2048")


def plan_for(config: Config) -> Plan:
    """Where the weights of a voice of this configuration would be, without the voice."""
    model, prune = config.model, config.prune
    H, P = model.hidden, model.projection
    columns = []
    for name, width in zip(NAMES, (H, H, H, H // 2, P, H // 2, P), strict=True):
        density = prune.density.get(name, 1.0)
        if density < 1 and not prune.balanced:
            density = min(density * UNBALANCED, 1.0)
        columns.append(round(density * width))
    return plan_of(columns, H // 2, P)


def configurations() -> list[Configuration]:
    """The recipes' voices, and one that is scored."""
    made = []
    for name, score in (*((name, False) for name in RECIPES), ("sparse-512", True)):
        config = recipe.load(name)
        plan = plan_for(config)
        made.append(
            Configuration(
                f"resident {name}{' scored' if score else ''}",
                resident_kernel,
                TYPES,
                constants(
                    plan, config.model.conditioning_hop_samples, config.model.pre_emphasis, score
                ),
                warps=WARPS,
                gluon=True,
                expected={"MEMBAR": 0, "LDG.STRONG": 0, "polls": 0},
            )
        )
    return made
