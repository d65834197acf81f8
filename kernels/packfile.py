"""Packed voices as files, so that a voice is laid out once: versioned, checked, cached.

A safetensors file whose metadata holds `format` ("wavernn-packed"), `version`, `header` (JSON),
`voice` (the checkpoint's sha256) and `sha256` (over header, voice and arrays). The native engine
trusts its input, so everything that could lead it astray is checked here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from wavernn.checkpoint import Checkpoint
from wavernn.errors import CheckpointError
from wavernn.files import write_atomic
from wavernn.kernels.pack import FORMATS, GROUP, KINDS, SUM_LIMIT, Packed, kind, pack
from wavernn.kernels.pack_context import pack_subscale, split
from wavernn.model import LEVELS

# raise it whenever `pack`, `pack_context` or `context.features` changes what is written
VERSION = "1"

log = logging.getLogger(__name__)


def _digest(header: str, voice: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{VERSION}\n{header}\n{voice}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def save(path: Path, packed: Packed, voice: str) -> None:
    """Writes a packed voice, whole or not at all; raises OSError where it can't."""
    header = json.dumps(packed.header, sort_keys=True)
    metadata = {
        "format": "wavernn-packed",
        "version": VERSION,
        "header": header,
        "voice": voice,
        "sha256": _digest(header, voice, packed.arrays),
    }
    write_atomic(path, safetensors.numpy.save(packed.arrays, metadata))


def load(path: Path, voice: str | None = None) -> Packed:
    """Reads a packed voice, that of the checkpoint with this sha256 if one is given.

    Raises CheckpointError for a file that is missing, damaged, foreign, of another version or
    voice, or whose arrays don't fit each other.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"no packed voice at {path}") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; delete it") from None
    if metadata.get("format") != "wavernn-packed":
        raise CheckpointError(f"{path} is not a packed voice; give the checkpoint instead")
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a packed voice of version {metadata.get('version')}, expected {VERSION}; "
            "delete it"
        )
    header, of = metadata.get("header", ""), metadata.get("voice", "")
    if _digest(header, of, arrays) != metadata.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its sha256 doesn't match; delete it")
    if voice is not None and of != voice:
        raise CheckpointError(f"{path} was packed from another voice; delete it")
    try:
        packed = Packed(arrays, json.loads(header))
        _check(packed)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{path} holds no voice that can be run: {error}; delete it"
        ) from None
    return packed


def _expect(array: np.ndarray, dtype: type, *shape: int) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")


def _check(packed: Packed) -> None:
    """Raises ValueError, TypeError or KeyError where the native engine would read astray."""
    packed, context = split(packed)
    header, arrays = packed.header, packed.arrays
    C = _check_context(context, header) if context.header else 0
    sizes = ("units", "half", "projection", "hop")
    if header["format"] not in FORMATS or any(type(header[name]) is not int for name in sizes):
        raise ValueError(f"its header is {header}")
    half, P = header["half"], header["projection"]
    whole = half % GROUP == P % GROUP == 0
    if not (whole and 0 < header["units"] <= half <= 1 << 15 and 0 < P <= 1 << 16):
        raise ValueError(f"its header is {header}")
    if header["hop"] < 1 or not 0 <= float(header["pre_emphasis"]) < 1:
        raise ValueError(f"its header is {header}")
    int8 = header["format"] == "int8"
    row, groups = (np.int16 if int8 else np.float32), half // GROUP
    _expect(arrays["past"], row, 2, LEVELS, 2, groups, 3, GROUP)
    _expect(arrays["now"], row, LEVELS, 1, groups, 3, GROUP)
    _expect(arrays["rows_scale"], np.float32, 3)
    shapes = {f"gates{k}": (2 * groups, 2 * half + C) for k in range(2)}
    shapes |= {f"candidate{k}": (groups, 2 * half) for k in range(2)}
    shapes |= dict.fromkeys(("O1", "O3"), (P // GROUP, half))
    shapes |= dict.fromkeys(("O2", "O4"), (LEVELS // GROUP, P))
    for name, (rows, columns) in shapes.items():
        _check_matrix(arrays, name, kind(header["format"], name), rows, columns)


def _check_context(context: Packed, voice: dict[str, Any]) -> int:
    """Does the same for a subscale voice's context; returns its channels."""
    header, arrays = context.header, context.arrays
    limits = {"factor": (2, 64), "horizon": (0, 1023), "layers": (1, 16), "channels": (1, 1 << 15)}
    for name, (low, high) in limits.items():
        if type(header[name]) is not int or not low <= header[name] <= high:
            raise ValueError(f"its context's header is {header}")
    factor, C, layers = header["factor"], header["channels"], header["layers"]
    if C % GROUP or voice["hop"] % factor:
        raise ValueError(f"its context's header is {header}")
    _expect(arrays["coarse"], np.float32, factor - 1, LEVELS, C)
    _expect(arrays["fine"], np.float32, factor - 1, C)
    _expect(arrays["lanes"], np.float32, factor, C)
    for layer in range(layers):
        _check_matrix(arrays, f"taps{layer}", "floats", C // GROUP, 2 * C)
        _expect(arrays[f"taps{layer}.bias"], np.float32, C)
    for k in range(2):
        name = f"candidate{k}"
        _check_matrix(arrays, name, kind(voice["format"], name), voice["half"] // GROUP, C)
    return int(C)


def _check_matrix(
    arrays: dict[str, np.ndarray], name: str, kind: str, groups: int, columns: int
) -> None:
    starts, blocks = arrays[f"{name}.starts"], arrays[f"{name}.blocks"]
    width, dtype = KINDS[kind]
    _expect(starts, np.int32, groups + 1)
    K = int(starts[-1])
    _expect(blocks, dtype, K, GROUP, width)
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise ValueError(f"the blocks of {name} don't follow each other")
    index = arrays.get(f"{name}.columns")
    if index is None:
        if (np.diff(starts) != columns // width).any():
            raise ValueError(f"{name} has no index, yet isn't dense")
    else:
        _expect(index, np.uint16, K)
        if K and int(index.max()) >= columns // width:
            raise ValueError(f"a block of {name} lies outside of it")
    if kind == "words":
        sums_KR = np.abs(blocks.astype(np.int64)).sum(2).cumsum(0)
        until_R = np.concatenate((np.zeros((1, GROUP), np.int64), sums_KR))[starts]
        if (np.diff(until_R, axis=0) > SUM_LIMIT).any():
            raise ValueError(f"the sums of {name} don't fit 32 bit")
    rows = groups * GROUP
    if kind != "floats":
        _expect(arrays[f"{name}.scale"], np.float32, rows)
        _expect(arrays[f"{name}.correction"], np.int32, rows)
    if name.startswith("O"):
        _expect(arrays[f"{name}.bias"], np.float32, rows)


def cache_folder() -> Path:
    """Where packed voices are kept: `wavernn` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wavernn"


def packed(voice: Checkpoint, format: str) -> Packed:
    """A voice laid out for the native engine, from the cache where it came from a file.

    What the cache holds and can't be used is replaced; a cache that can't be written is no error.
    """
    lay_out = pack if voice.config.model.subscale == 1 else pack_subscale
    if voice.path is None:
        return lay_out(voice, format)
    name, sha256 = voice.path.stem, voice.sha256
    path = cache_folder() / f"{name}.{format}.{sha256[:16]}.safetensors"
    try:
        if path.exists():
            return load(path, sha256)
    except CheckpointError as error:
        log.warning("%s; packing %s again", error, voice.path)
    result = lay_out(voice, format)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # one for each name and format, so that the folder stays small while a voice is trained
        for old in path.parent.glob(f"{name}.{format}.*.safetensors"):
            old.unlink(missing_ok=True)
        save(path, result, sha256)
    except OSError as error:
        log.info("the packed voice isn't kept, since %s can't be written: %s", path, error.strerror)
    return result
