"""The record of how a model is trained, and what such records have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from wavernn.errors import require

# what must be positive in the training of any model
POSITIVE = (
    *("steps", "batch", "learning_rate", "clip", "validation_clips", "nan_patience"),
    *("validate_every_steps", "save_every_steps", "log_every_steps"),
)


def check_optimisation(train: Any, *positive: str) -> None:
    """Checks the fields that all records of training have, and others that must be positive.

    Raises ConfigError.
    """
    require(0 <= train.seed < 1 << 63, f"train.seed must lie in 0..2^63-1, got {train.seed}")
    for key in (*POSITIVE, *positive):
        value = getattr(train, key)
        require(value > 0, f"train.{key} must be positive, got {value}")
    require(0 <= train.ema < 1, f"train.ema must lie in [0, 1), got {train.ema}")
    require(
        0 <= train.final_rate <= 1, f"train.final_rate must lie in [0, 1], got {train.final_rate}"
    )


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation: how much, how fast, from which seed."""

    seed: int = 0
    steps: int = 10_000
    # B, slices in a step, over all processes
    batch: int = 128
    # T, samples in a slice; a multiple of mel.hop_samples
    slice_samples: int = 256
    # a slice goes on where the lane's last one ended, with its state; else it starts anywhere at 0
    carry_state: bool = True
    learning_rate: float = 2e-3
    # the cosine ends at this share of learning_rate
    final_rate: float = 0.02
    warmup_steps: int = 200
    # gradient norm is cut to this
    clip: float = 1.0
    # decay of the averaged weights, which are what a checkpoint holds
    ema: float = 0.999
    # standard deviation of noise on the input codes, in steps of 1/32768; targets stay clean
    input_noise: float = 0.0
    # bfloat16: products and gate inputs in bfloat16, gates and state in float32
    precision: Literal["float32", "bfloat16"] = "float32"
    validate_every_steps: int = 1_000
    save_every_steps: int = 500
    log_every_steps: int = 20
    # clips held out, evenly spaced over the sorted names
    validation_clips: int = 12
    # of each held-out clip, how much is scored during training; `wavernn eval` scores all
    validation_seconds_per_clip: float = 4.0
    # steps with a non-finite loss that are skipped before the run is stopped
    nan_patience: int = 10

    def __post_init__(self) -> None:
        check_optimisation(self, "slice_samples", "validation_seconds_per_clip")
        require(
            self.warmup_steps >= 0 and self.input_noise >= 0,
            "train.warmup_steps and input_noise must not be negative, "
            f"got {self.warmup_steps}, {self.input_noise}",
        )
        require(
            self.precision in ("float32", "bfloat16"),
            f"train.precision is float32 or bfloat16, not {self.precision}",
        )
