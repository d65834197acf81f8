"""A voice in one safetensors file: weights, configuration, provenance and a digest of all three.

Nothing is ever unpickled. The header's metadata holds four strings: `format` ("wavernn"),
`version`, `body` (JSON: config and provenance) and `sha256` (over body and tensors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wavernn import recipe
from wavernn.config import Config
from wavernn.errors import CheckpointError, ConfigError
from wavernn.files import write_atomic
from wavernn.model import WaveRNN

VERSION = "1"


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
            model = WaveRNN(self.config.model, self.config.mel)
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
        return _digest(self._body(), self.tensors)

    def _body(self) -> str:
        body = {"config": self.config.to_dict(), "provenance": dict(self.provenance)}
        return json.dumps(body, sort_keys=True)


def _digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(body.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save(path: Path | str, checkpoint: Checkpoint) -> None:
    """Writes a voice, whole or not at all; raises CheckpointError where it can't."""
    path = Path(path)
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    metadata = {
        "format": "wavernn",
        "version": VERSION,
        "body": checkpoint._body(),
        "sha256": checkpoint.sha256,
    }
    try:
        write_atomic(path, safetensors.torch.save(tensors, metadata))
    except OSError as error:
        raise CheckpointError(f"can't write checkpoint {path}: {error.strerror}") from None


def _header(content: bytes, path: Path) -> dict[str, Any]:
    """Reads the JSON header of a safetensors file and checks that the file is all there."""
    foreign = CheckpointError(f"{path} is not a wavernn checkpoint; expected a safetensors file")
    if not content:
        raise CheckpointError(f"{path} is empty; copy the checkpoint again")
    size = int.from_bytes(content[:8], "little")
    if len(content) < 9 or content[8:9] != b"{" or size > 100_000_000:
        raise foreign
    if len(content) < 8 + size:
        raise CheckpointError(f"{path} is truncated in its header; copy the checkpoint again")
    try:
        header = json.loads(content[8 : 8 + size])
        ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        missing = 8 + size + max(ends, default=0) - len(content)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise CheckpointError(f"{path} is damaged in its header; copy it again") from None
    if missing > 0:
        raise CheckpointError(f"{path} is truncated by {missing} bytes; copy the checkpoint again")
    return dict(header)


def load(path: Path | str) -> Checkpoint:
    """Reads a voice; raises CheckpointError for a missing, damaged, truncated or foreign file."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"no checkpoint at {path}; give the path of a .safetensors file"
        ) from None
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror}") from None
    metadata = _header(content, path).get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("format") != "wavernn":
        raise CheckpointError(f"{path} is a safetensors file, but not a wavernn checkpoint")
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {metadata.get('version')}, this program reads "
            f"{VERSION}; install the wavernn that made it"
        )
    damaged = CheckpointError(f"{path} is damaged: its sha256 doesn't match; copy it again")
    try:
        tensors = safetensors.torch.load(content)
        body = str(metadata["body"])
        if _digest(body, tensors) != metadata.get("sha256"):
            raise damaged
        table = json.loads(body)
        config, provenance = recipe.from_dict(table["config"]), dict(table["provenance"])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        raise damaged from None
    except ConfigError as error:
        raise CheckpointError(
            f"{path} has a configuration this program can't use: {error}"
        ) from None
    voice = Checkpoint(config, tensors, provenance, path)
    _check_weights(voice, path)
    return voice


def _check_weights(voice: Checkpoint, path: Path) -> None:
    for name, tensor in voice.tensors.items():
        if tensor.dtype != torch.float32:
            raise CheckpointError(
                f"{path} holds {name} as {tensor.dtype}, expected torch.float32; convert it"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{path} holds NaN or infinite weights in {name}; take an earlier save of the run"
            )
    try:
        voice.model()
    except CheckpointError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from None
