"""An acoustic model in one safetensors file: weights, configuration, alphabet, speakers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavernn import acoustic_config, container
from wavernn.acoustic import AcousticModel
from wavernn.acoustic_config import AcousticConfig
from wavernn.errors import CheckpointError, ConfigError

FORMAT = "wavernn-acoustic"


@dataclass(frozen=True)
class AcousticCheckpoint:
    """A trained acoustic model: `tensors` are float32, by the names of `acoustic.AcousticModel`."""

    config: AcousticConfig
    # phones, breaks and pauses by number, and the speakers' names by number
    symbols: tuple[str, ...]
    speakers: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    def model(self) -> AcousticModel:
        """Builds the torch module in evaluation mode; raises CheckpointError."""
        with torch.device("meta"):
            model = AcousticModel(
                self.config.model, self.config.mel, len(self.symbols), len(self.speakers)
            )
        try:
            weights = {name: tensor.clone() for name, tensor in self.tensors.items()}
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"the weights don't fit their configuration: {reason}") from None
        return model.eval().requires_grad_(False)


def save(path: Path, checkpoint: AcousticCheckpoint) -> None:
    """Writes an acoustic model, whole or not at all; raises CheckpointError where it can't."""
    body = {
        "config": checkpoint.config.to_dict(),
        "symbols": checkpoint.symbols,
        "speakers": checkpoint.speakers,
        "provenance": dict(checkpoint.provenance),
    }
    try:
        container.save(path, FORMAT, json.dumps(body, sort_keys=True), checkpoint.tensors)
    except OSError as error:
        raise CheckpointError(f"can't write checkpoint {path}: {error.strerror}") from None


def load(path: Path) -> AcousticCheckpoint:
    """Reads an acoustic model; raises CheckpointError for a missing, damaged or foreign file."""
    table, tensors = container.load(path, FORMAT)
    try:
        config = acoustic_config.from_dict(table["config"])
        symbols, speakers = (tuple(map(str, table[key])) for key in ("symbols", "speakers"))
        found = AcousticCheckpoint(
            config, symbols, speakers, tensors, dict(table["provenance"]), path
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged in its description; copy it again") from None
    except ConfigError as error:
        raise CheckpointError(
            f"{path} has a configuration this program can't use: {error}"
        ) from None
    try:
        found.model()
    except CheckpointError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from None
    return found
