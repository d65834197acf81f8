"""An acoustic model, its front end and its training as frozen, self-checking records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from wavernn import recipe
from wavernn.config import LARGEST_SIZE, MOST_LAYERS, MelConfig
from wavernn.errors import ConfigError, require
from wavernn.training import check_optimisation


@dataclass(frozen=True)
class AcousticModelConfig:
    """A phoneme-to-mel model in the manner of FastSpeech 2 (Ren et al. 2021) and FastPitch."""

    # C, width of all layers
    channels: int = 192
    # layers of convolution, then of attention, over phones
    encoder_layers: int = 4
    attention_layers: int = 2
    # heads of attention; they divide channels
    heads: int = 2
    # layers of convolution over frames
    decoder_layers: int = 6
    # taps of the convolutions, odd
    encoder_taps: int = 5
    decoder_taps: int = 7
    dropout: float = 0.2
    # P, width of what predicts duration, pitch and energy, even; and its layers of convolution
    prosody_channels: int = 64
    prosody_layers: int = 2
    prosody_dropout: float = 0.3

    def __post_init__(self) -> None:
        sizes = "channels encoder_layers heads decoder_layers prosody_channels prosody_layers"
        for key in sizes.split():
            value = getattr(self, key)
            require(value > 0, f"model.{key} must be positive, got {value}")
        layers = self.encoder_layers, self.attention_layers, self.decoder_layers
        most, widest = max(*layers, self.prosody_layers), max(self.channels, self.prosody_channels)
        require(
            widest <= LARGEST_SIZE and most <= MOST_LAYERS,
            f"model.channels must be at most {LARGEST_SIZE} and layers {MOST_LAYERS}, "
            f"got {widest} and {most}",
        )
        require(
            self.prosody_channels % 2 == 0,
            f"model.prosody_channels must be even, got {self.prosody_channels}",
        )
        require(
            self.attention_layers >= 0 and self.channels % (2 * self.heads) == 0,
            f"model.channels must be a multiple of 2 * heads, got {self.channels} and {self.heads}",
        )
        for key in ("encoder_taps", "decoder_taps"):
            taps = getattr(self, key)
            require(0 < taps < 100 and taps % 2 == 1, f"model.{key} must be odd, got {taps}")
        for key in ("dropout", "prosody_dropout"):
            value = getattr(self, key)
            require(0 <= value < 1, f"model.{key} must lie in [0, 1), got {value}")


@dataclass(frozen=True)
class AcousticTrainConfig:
    """The optimisation of an acoustic model."""

    seed: int = 0
    steps: int = 1_200
    # clips in a step
    batch: int = 16
    learning_rate: float = 1e-3
    # duration, pitch and energy are learnt in the first steps alone, at a rate of their own: there
    # is little of them in a recording, and more would be learnt by heart
    prosody_steps: int = 800
    prosody_learning_rate: float = 2e-3
    # the cosine ends at this share of learning_rate
    final_rate: float = 0.01
    warmup_steps: int = 200
    weight_decay: float = 0.01
    # gradient norm is cut to this
    clip: float = 1.0
    # decay of the averaged weights, which are what a checkpoint holds
    ema: float = 0.995
    # bfloat16: products in bfloat16, the rest in float32
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    # rounds of fitting the aligner's Gaussians
    align_rounds: int = 12
    validate_every_steps: int = 250
    save_every_steps: int = 250
    log_every_steps: int = 10
    # clips held out, evenly spaced over the sorted names
    validation_clips: int = 12
    # steps with a non-finite loss that are skipped before the run is stopped
    nan_patience: int = 10

    def __post_init__(self) -> None:
        check_optimisation(self, "prosody_steps", "prosody_learning_rate", "align_rounds")
        require(
            self.warmup_steps >= 0 and self.weight_decay >= 0,
            "train.warmup_steps and weight_decay must not be negative, "
            f"got {self.warmup_steps}, {self.weight_decay}",
        )


@dataclass(frozen=True)
class AcousticConfig:
    """All that an acoustic checkpoint needs to be understood and a run to be repeated."""

    name: str = "unnamed"
    # tells its recipes from a vocoder's
    kind: Literal["acoustic"] = "acoustic"
    # what makes phones of words; see `wavernn.english.phonemes`
    phonemizer: str = "gruut"
    mel: MelConfig = field(default_factory=MelConfig)
    model: AcousticModelConfig = field(default_factory=AcousticModelConfig)
    train: AcousticTrainConfig = field(default_factory=AcousticTrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain dictionaries, as stored in a checkpoint."""
        return asdict(self)


def from_dict(table: Mapping[str, Any]) -> AcousticConfig:
    """Makes a configuration from nested tables; raises ConfigError for what doesn't fit."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"a configuration must be a table, got {table!r}")
    config: AcousticConfig = recipe.build(AcousticConfig, recipe.with_preset(table))
    return config
