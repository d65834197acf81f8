"""Mel spectrograms in files, with the specification they were made to where the file says it.

.npy holds an array; .npz an array `mel` and, as further scalars, its specification by the keys of
`MelConfig`; .safetensors a tensor `mel` and the specification as metadata.
"""

from __future__ import annotations

import io
import json
import tokenize
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
from safetensors import SafetensorError

from wavernn.config import MelConfig
from wavernn.errors import MelError
from wavernn.files import write_atomic

SUFFIXES = (".npy", ".npz", ".safetensors")


# what numpy, zipfile and safetensors raise for bytes that aren't what they should be
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)


def read_mel(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads an array and the specification the file declares, {} if none; raises MelError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MelError(f"{path} doesn't exist; give the path of a mel or an audio file") from None
    except OSError as error:
        raise MelError(f"can't read {path}: {error.strerror or error}") from None
    return parse_mel(content, path.suffix.lower(), str(path))


def parse_mel(
    content: bytes, suffix: str, name: str, most_bytes: int | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Does what `read_mel` does with the bytes of a file, which errors call `name`.

    Refuses an .npz whose arrays would take more than `most_bytes`.
    """
    try:
        if suffix == ".safetensors":
            arrays, declared = _safetensors(content)
        else:
            if most_bytes is not None and unfolded_bytes(content) > most_bytes:
                raise MelError(
                    f"{name} unfolds to more than {most_bytes} bytes; send a shorter one"
                )
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, {}
            with loaded:
                # a member that is no array comes as bytes
                members = {name: np.asarray(loaded[name]) for name in loaded.files}
            arrays = {k: v for k, v in members.items() if v.dtype.kind != "S"}
            declared = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
    except _DAMAGE:
        raise MelError(
            f"{name} is not a mel file that can be read (damaged, or it holds Python objects); "
            f"expected {', '.join(SUFFIXES)} with an array of numbers"
        ) from None
    if "mel" not in arrays:
        names = ", ".join(arrays) or "no array"
        raise MelError(f"{name} holds {names}; expected an array called mel")
    if not isinstance(declared, dict):
        raise MelError(f"the mel_config of {name} must be a JSON object, got {declared!r}")
    return arrays["mel"], declared


def unfolded_bytes(content: bytes) -> int:
    """The bytes that a zip archive's members say they have, and are read to have at most."""
    if not content.startswith(b"PK"):
        return len(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sum(member.file_size for member in archive.infolist())


def _safetensors(content: bytes) -> tuple[dict[str, np.ndarray], Any]:
    tensors = safetensors.torch.load(content)
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    # numpy has no bfloat16
    arrays = {
        name: (t.float() if t.is_floating_point() and t.element_size() < 4 else t).numpy()
        for name, t in tensors.items()
    }
    return arrays, json.loads(metadata.get("mel_config", "{}"))


def write_mel(path: Path, mel_NM: np.ndarray, config: MelConfig) -> None:
    """Writes a mel [N, M] with its specification; raises MelError where it can't."""
    mel_NM = np.ascontiguousarray(mel_NM, np.float32)
    buffer = io.BytesIO()
    match path.suffix.lower():
        case ".npy":
            np.save(buffer, mel_NM)
        case ".npz":
            np.savez_compressed(buffer, mel=mel_NM, **asdict(config))
        case ".safetensors":
            metadata = {"mel_config": json.dumps(asdict(config))}
            buffer.write(safetensors.numpy.save({"mel": mel_NM}, metadata))
        case suffix:
            raise MelError(f"unknown mel format {suffix!r}; known: {', '.join(SUFFIXES)}")
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise MelError(f"{path} can't be written: {error.strerror or error}") from None
