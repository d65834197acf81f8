"""A voice in one safetensors file: weights, configuration, provenance and a digest of all three."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavernn import container, recipe
from wavernn.config import Config
from wavernn.errors import CheckpointError, ConfigError
from wavernn.fused import network
from wavernn.model import WaveRNN

FORMAT = "wavernn"


@dataclass(frozen=True)
class Checkpoint:
    """A trained voice: `tensors` are float32, by the names of `model.WaveRNN`."""

    config: Config
    tensors: Mapping[str, Tensor]
    # commit, data hash, steps, metrics, licence of the data, names of the held-out clips
    provenance: Mapping[str, Any] = field(default_factory=dict)
    # the file that it was read from
    path: Path | None = field(default=None, compare=False)

    def model(self, dtype: torch.dtype = torch.float32) -> WaveRNN:
        """Builds the voice as a torch module in evaluation mode; raises CheckpointError."""
        # without storage, so that no time goes into values that are then replaced, and a
        # configuration of other weights can't ask for more memory than there is
        with torch.device("meta"):
            model = network(self.config.model, self.config.mel)
        try:
            weights = {name: tensor.clone() for name, tensor in self.tensors.items()}
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"the weights don't fit their configuration: {reason}") from None
        return model.to(dtype).eval().requires_grad_(False)

    @property
    def sha256(self) -> str:
        """The digest that names this voice."""
        return container.digest(self._body(), self.tensors)

    def _body(self) -> str:
        body = {"config": self.config.to_dict(), "provenance": dict(self.provenance)}
        return json.dumps(body, sort_keys=True)


def save(path: Path | str, checkpoint: Checkpoint) -> None:
    """Writes a voice, whole or not at all; raises CheckpointError where it can't."""
    try:
        container.save(Path(path), FORMAT, checkpoint._body(), checkpoint.tensors)
    except OSError as error:
        raise CheckpointError(f"can't write checkpoint {path}: {error.strerror}") from None


def load(path: Path | str) -> Checkpoint:
    """Reads a voice; raises CheckpointError for a missing, damaged, truncated or foreign file."""
    path = Path(path)
    table, tensors = container.load(path, FORMAT)
    try:
        config, provenance = recipe.from_dict(table["config"]), dict(table["provenance"])
    except (KeyError, ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged in its description; copy it again") from None
    except ConfigError as error:
        raise CheckpointError(
            f"{path} has a configuration this program can't use: {error}"
        ) from None
    voice = Checkpoint(config, tensors, provenance, path)
    try:
        voice.model()
    except CheckpointError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from None
    return voice
