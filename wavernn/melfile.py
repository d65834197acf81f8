"""Mel spectrograms in files, with the specification they were made to where the file says it.

.npy holds an array; .npz an array `mel` and, as further scalars, its specification by the keys of
`MelConfig`; .safetensors a tensor `mel` and the specification as metadata.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from wavernn.config import MelConfig
from wavernn.errors import MelError
from wavernn.files import write_atomic

SUFFIXES = (".npy", ".npz", ".safetensors")


def read_mel(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads an array and the specification the file declares, {} if none; raises MelError."""
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, {}
        with loaded:
            if "mel" not in loaded.files:
                names = ", ".join(loaded.files) or "nothing"
                raise MelError(f"{path} holds {names}; expected an array called mel")
            declared = {k: loaded[k].item() for k in loaded.files if loaded[k].ndim == 0}
            return loaded["mel"], declared
    except FileNotFoundError:
        raise MelError(f"{path} doesn't exist; give the path of a mel or an audio file") from None
    except OSError as error:
        raise MelError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, SafetensorError):
        raise MelError(
            f"{path} is not a mel file that can be read (damaged, or it holds Python objects); "
            f"expected {', '.join(SUFFIXES)} with an array of numbers"
        ) from None


def _read_safetensors(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    with safe_open(path, framework="np") as file:
        if "mel" not in file.keys():  # noqa: SIM118
            names = ", ".join(file.keys()) or "nothing"
            raise MelError(f"{path} holds {names}; expected a tensor called mel")
        declared = json.loads((file.metadata() or {}).get("mel_config", "{}"))
        return file.get_tensor("mel"), declared


def write_mel(path: Path, mel_NM: np.ndarray, config: MelConfig) -> None:
    """Writes a mel [N, M] with its specification; raises MelError for other suffixes."""
    mel_NM = np.ascontiguousarray(mel_NM, np.float32)
    if path.suffix == ".safetensors":
        metadata = {"mel_config": json.dumps(asdict(config))}
        write_atomic(path, safetensors.numpy.save({"mel": mel_NM}, metadata))
        return
    if path.suffix not in SUFFIXES:
        raise MelError(f"unknown mel format {path.suffix}; known: {', '.join(SUFFIXES)}")
    import io

    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(buffer, mel=mel_NM, **asdict(config))
    else:
        np.save(buffer, mel_NM)
    write_atomic(path, buffer.getvalue())
