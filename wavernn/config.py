"""A model, its mel spectrogram, its pruning and its training as frozen, self-checking records.

Recipes are TOML files that overlay these defaults (see `wavernn.recipe`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from wavernn.errors import require
from wavernn.pruning import PRUNABLE as PRUNABLE
from wavernn.pruning import PRUNABLE_CONTEXT as PRUNABLE_CONTEXT
from wavernn.pruning import PruneConfig as PruneConfig
from wavernn.pruning import matrix_shape as matrix_shape
from wavernn.training import TrainConfig as TrainConfig

# a slip of a digit is refused before it asks for memory
LARGEST_SIZE = 65_536
MOST_LAYERS = 64


@dataclass(frozen=True)
class MelConfig:
    """A log-mel spectrogram, completely: two equal records give two equal spectrograms."""

    rate_hz: int = 22_050
    # length of the Fourier transform, even
    fft_samples: int = 1024
    # length of the Hann window, at most fft_samples
    window_samples: int = 1024
    # distance of two frames
    hop_samples: int = 256
    # M, number of mel bands
    bands: int = 80
    # lower and upper edge of the filterbank
    low_hz: float = 0.0
    high_hz: float = 8_000.0
    # the mel curve, and whether each filter has unit area (slaney) or unit peak (none)
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney", "none"] = "slaney"
    # log base of the stored values
    log: Literal["ln", "log10"] = "ln"
    # magnitudes below this are raised to it before the logarithm
    floor: float = 1e-5

    def __post_init__(self) -> None:
        require(self.rate_hz > 0, f"mel.rate_hz must be positive, got {self.rate_hz}")
        require(
            self.fft_samples > 0 and self.fft_samples % 2 == 0,
            f"mel.fft_samples must be positive and even, got {self.fft_samples}",
        )
        require(
            0 < self.window_samples <= self.fft_samples,
            f"mel.window_samples must lie in 1..fft_samples ({self.fft_samples}), "
            f"got {self.window_samples}",
        )
        require(
            0 < self.hop_samples <= self.fft_samples
            and (self.fft_samples - self.hop_samples) % 2 == 0,
            f"mel.hop_samples must be at most fft_samples ({self.fft_samples}) and differ from it "
            f"by an even number, got {self.hop_samples}",
        )
        require(self.bands > 0, f"mel.bands must be positive, got {self.bands}")
        require(
            0 <= self.low_hz < self.high_hz <= self.rate_hz / 2,
            f"mel needs 0 <= low_hz < high_hz <= rate_hz / 2, got {self.low_hz}, {self.high_hz} "
            f"at {self.rate_hz} Hz",
        )
        require(self.scale in ("slaney", "htk"), f"mel.scale is slaney or htk, not {self.scale}")
        require(self.norm in ("slaney", "none"), f"mel.norm is slaney or none, not {self.norm}")
        require(self.log in ("ln", "log10"), f"mel.log is ln or log10, not {self.log}")
        require(self.floor > 0, f"mel.floor must be positive, got {self.floor}")

    @property
    def floor_value(self) -> float:
        """The lowest value that a spectrogram of this kind holds."""
        return math.log(self.floor) if self.log == "ln" else math.log10(self.floor)


_FULL_BAND = MelConfig(
    rate_hz=44_100,
    fft_samples=2048,
    window_samples=2048,
    hop_samples=512,
    bands=128,
    high_hz=16_000.0,
)
MEL_PRESETS: Mapping[str, MelConfig] = {
    "hifigan-22k": MelConfig(),
    "16k": MelConfig(rate_hz=16_000, fft_samples=1024, window_samples=800, hop_samples=200),
    "24k": MelConfig(rate_hz=24_000, bands=100, high_hz=12_000.0),
    "44k": _FULL_BAND,
    "48k": replace(_FULL_BAND, rate_hz=48_000),
}


@dataclass(frozen=True)
class ModelConfig:
    """A dual-softmax WaveRNN (Kalchbrenner et al. 2018, section 2) and its conditioner."""

    # H, both halves together, even
    hidden: int = 384
    # P, width of the hidden output layers O1 and O3
    projection: int = 192
    # how a byte enters the gates: a learned row (embedding) or its value in [-1, 1] (scalar)
    input: Literal["embedding", "scalar"] = "embedding"
    # E, length of a learned row
    embedding: int = 32
    # C, channels of the conditioner
    channels: int = 128
    # residual layers of the conditioner, each of which sees two frames further back
    layers: int = 2
    # frames after the current one that the conditioner sees, 0..3
    lookahead_frames: int = 2
    # samples that share one conditioning vector; divides mel.hop_samples
    conditioning_hop_samples: int = 64
    # a of y[n] = x[n] - a x[n-1], the signal that is modelled; 0 turns it off
    pre_emphasis: float = 0.85
    # U, interleaved sub-tensors (section 4); 1 is the plain model
    subscale: int = 1
    # F, future steps of earlier sub-tensors that a later one sees
    subscale_horizon: int = 8
    # channels of the convolutions over earlier sub-tensors, and layers, which see 2^layers steps
    context_channels: int = 64
    context_layers: int = 4
    # samples that one step makes, by 4-bit softmaxes; 2 is a variant of subscale (section 4)
    fused: int = 1

    def __post_init__(self) -> None:
        sizes = ("hidden", "projection", "embedding", "channels", "conditioning_hop_samples")
        limits = dict.fromkeys(sizes, (1, LARGEST_SIZE))
        limits |= {"layers": (0, MOST_LAYERS), "lookahead_frames": (0, 3)}
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            require(low <= value <= high, f"model.{key} must lie in {low}..{high}, got {value}")
        require(self.hidden % 2 == 0, f"model.hidden must be even, got {self.hidden}")
        require(
            self.input in ("embedding", "scalar"),
            f"model.input is embedding or scalar, not {self.input}",
        )
        require(
            0 <= self.pre_emphasis < 1,
            f"model.pre_emphasis must lie in [0, 1), got {self.pre_emphasis}",
        )
        self._check_subscale()

    def _check_subscale(self) -> None:
        limits = {"subscale": (1, 64), "subscale_horizon": (0, 1023)}
        limits |= {"context_channels": (1, 4096), "context_layers": (1, 16)}
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            require(low <= value <= high, f"model.{key} must lie in {low}..{high}, got {value}")
        hop = self.conditioning_hop_samples
        require(
            self.fused == 1
            or (self.fused, self.subscale, self.hidden % 8, hop % 2) == (2, 1, 0, 0),
            "model.fused is 1, or 2 with subscale 1, a hidden that 8 divides and an even "
            f"conditioning_hop_samples; got {self.fused}, {self.subscale}, {self.hidden}, {hop}",
        )
        require(
            hop % self.subscale == 0,
            f"model.subscale must divide model.conditioning_hop_samples ({hop}), "
            f"got {self.subscale}",
        )
        require(
            self.subscale == 1 or 1 << self.context_layers > self.subscale_horizon,
            f"model.context_layers of {self.context_layers} see {1 << self.context_layers} steps, "
            f"but the horizon alone is {self.subscale_horizon}; set "
            f"model.context_layers to {self.subscale_horizon.bit_length()} or more",
        )

    @property
    def plain(self) -> bool:
        """Whether samples are made one by one, so that streams can run side by side."""
        return self.subscale == self.fused == 1

    @property
    def history_frames(self) -> int:
        """Frames before the current one that the conditioner sees."""
        return 2 + 2 * self.layers

    @property
    def gate_rows(self) -> int:
        """G = 3H, the rows of R: update, reset, candidate; coarse half first in each."""
        return 3 * self.hidden

    @property
    def state_size(self) -> int:
        """Units of an utterance's state: each sub-tensor has H of its own."""
        return self.subscale * self.hidden

    @property
    def prunable(self) -> tuple[str, ...]:
        """The names of the matrices that can be pruned."""
        return PRUNABLE if self.subscale == 1 else (*PRUNABLE, *PRUNABLE_CONTEXT)


@dataclass(frozen=True)
class Config:
    """All that a checkpoint needs to be understood and a run to be repeated."""

    name: str = "unnamed"
    mel: MelConfig = MelConfig()
    model: ModelConfig = ModelConfig()
    prune: PruneConfig = field(default_factory=PruneConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        hop, step = self.mel.hop_samples, self.model.conditioning_hop_samples
        require(
            hop % step == 0,
            f"model.conditioning_hop_samples must divide mel.hop_samples ({hop}), got {step}",
        )
        require(
            self.train.slice_samples % hop == 0,
            f"train.slice_samples must be a multiple of mel.hop_samples ({hop}), "
            f"got {self.train.slice_samples}",
        )
        rows, columns = self.prune.block_rows, self.prune.block_columns
        for name, density in self.prune.density.items():
            require(
                name in self.model.prunable,
                f"prune.density.{name} is of a subscale voice, but model.subscale is 1",
            )
            R, W = matrix_shape(self.model, name)
            if density < 1:
                require(
                    R % rows == 0 and W % columns == 0,
                    f"prune blocks of {rows} x {columns} don't divide {name} ({R} x {W})",
                )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain dictionaries, as stored in a checkpoint."""
        table = asdict(self)
        if self.model.subscale == 1:
            # a plain voice has no context, and its digest is that of before there was one
            del table["model"]["context_channels"], table["model"]["context_layers"]
        if self.model.fused == 1:
            del table["model"]["fused"]
        return table
