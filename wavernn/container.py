"""Tensors with a description in one safetensors file that knows when it's damaged.

Nothing is ever unpickled. The header's metadata holds four strings: `format` (what it is),
`version`, `body` (JSON) and `sha256` (over body and tensors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wavernn.errors import CheckpointError
from wavernn.files import write_atomic

VERSION = "1"
# what the formats of this program hold
KINDS = {
    "wavernn": "a vocoder's checkpoint",
    "wavernn-acoustic": "an acoustic model's checkpoint",
    "wavernn-run": "the state of a vocoder's run",
    "wavernn-acoustic-run": "the state of an acoustic model's run",
}


def dumps(body: Mapping[str, Any]) -> str:
    """Writes a description, the same for the same content."""
    return json.dumps(body, sort_keys=True)


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """What comes back of a description: tuples as lists."""
    return dict(json.loads(dumps(body)))


def digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    """Names body and tensors by their sha256."""
    result = hashlib.sha256(body.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        result.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        result.update(tensor.numpy().tobytes())
    return result.hexdigest()


def save(path: Path, format: str, body: str, tensors: Mapping[str, Tensor]) -> None:
    """Writes a file, whole or not at all; raises OSError."""
    cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {"format": format, "version": VERSION, "body": body}
    metadata["sha256"] = digest(body, cpu)
    write_atomic(path, safetensors.torch.save(cpu, metadata))


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


def load(path: Path, format: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads body and tensors, float32 and finite all of them.

    Raises CheckpointError for a missing, damaged, truncated or foreign file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"no checkpoint at {path}; give the path of a .safetensors file"
        ) from None
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror}") from None
    metadata = _header(content, path).get("__metadata__")
    found = metadata.get("format") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or found not in KINDS:
        raise CheckpointError(f"{path} is a safetensors file, but not a wavernn checkpoint")
    if found != format:
        raise CheckpointError(f"expected {KINDS[format]}, but {path} is {KINDS[found]}")
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {metadata.get('version')}, this program reads "
            f"{VERSION}; install the wavernn that made it"
        )
    damaged = CheckpointError(f"{path} is damaged: its sha256 doesn't match; copy it again")
    try:
        tensors = safetensors.torch.load(content)
        body = str(metadata["body"])
        if digest(body, tensors) != metadata.get("sha256"):
            raise damaged
        table = json.loads(body)
        if not isinstance(table, dict):
            raise damaged
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        raise damaged from None
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise CheckpointError(
                f"{path} holds {name} as {tensor.dtype}, expected torch.float32; convert it"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{path} holds NaN or infinite weights in {name}; take an earlier save of the run"
            )
    return table, tensors
