"""Voices laid out for a kernel, kept as files so that it's done once: versioned and checked.

A safetensors file in the folder of `packfile`, whose metadata holds `header` (JSON, what the kernel
wants to know beside its tensors) and `sha256` over version, header, voice and tensors. What is
damaged, or of another voice or version, is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.files import write_atomic
from wavernn.kernels.packfile import cache_folder

# raise it whenever a kernel changes how it lays a voice out
VERSION = "2"

log = logging.getLogger(__name__)

# tensors by name, and a header of plain numbers, lists and strings
Laid = tuple[Mapping[str, Tensor], Mapping[str, Any]]


def laid_out(voice: Checkpoint, kernel: str, lay_out: Callable[[], Laid]) -> Laid:
    """What `lay_out` gives, from the cache where the voice came from a file.

    `kernel` names the layout, such as "group-56x16". A cache that can't be written is no error.
    """
    if voice.path is None:
        return lay_out()
    sha256 = voice.sha256
    stem = f"{voice.path.stem}.{kernel}"
    path = cache_folder() / f"{stem}.{sha256[:16]}.safetensors"
    found = _load(path, sha256)
    if found is not None:
        return found
    tensors, header = lay_out()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # one for each name and kernel, so that the folder stays small while a voice is trained
        for old in path.parent.glob(f"{stem}.*.safetensors"):
            old.unlink(missing_ok=True)
        metadata = {"header": json.dumps(header, sort_keys=True)}
        metadata["sha256"] = _digest(metadata["header"], sha256, tensors)
        write_atomic(path, safetensors.torch.save(dict(tensors), metadata))
    except OSError as error:
        log.info("the voice's layout isn't kept, %s can't be written: %s", path, error.strerror)
    return tensors, header


def _load(path: Path, voice: str) -> Laid | None:
    """A file's content, or None where it can't be trusted."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        log.warning("%s is damaged: %s; laying the voice out again", path, error)
        return None
    header = metadata.get("header", "")
    if _digest(header, voice, tensors) != metadata.get("sha256"):
        log.warning("%s is damaged or of another version; laying the voice out again", path)
        return None
    return tensors, json.loads(header)


def _digest(header: str, voice: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{VERSION}\n{header}\n{voice}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # a view of bytes, as NumPy has no bfloat16
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
