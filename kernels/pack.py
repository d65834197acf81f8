"""A voice laid out for the native engine: blocks of 16 rows, gates in powers of two, int8 or float.

What each array holds is written in `csrc/api.h`; why, in README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wavernn.checkpoint import Checkpoint
from wavernn.model import LEVELS

FORMATS = ("int8", "float32")
# rows of a block
GROUP = 16
# what a matrix holds: columns of a block, type of a weight
KINDS = {"bytes": (4, np.int8), "words": (4, np.int16), "floats": (1, np.float32)}
# the kind of each matrix, where it isn't that of all
COMMON = {"int8": "bytes", "float32": "floats"}
SPECIAL = {"int8": dict.fromkeys(("candidate0", "candidate1", "O2"), "words"), "float32": {}}
# h in [-1, 1] as activations, by kind: zero point and steps
ZERO_POINT = {"bytes": 128, "words": 0, "floats": 0}
H_STEPS = {"bytes": 127, "words": 2047, "floats": 1}
# above this share of blocks a matrix is stored without an index
DENSE = 0.9
# gates are powers of two: sigmoid(x) = 1 / (1 + 2^(-x log2 e)), tanh likewise with 2x
GATE_SCALE_3 = -math.log2(math.e) * np.array([1.0, 1.0, 2.0])
# largest value of an int16 input row, of which three are added
ROW_LIMIT = 32767 // 3
# largest sum of a row's magnitudes in words, so that no sum of products overflows 32 bit
SUM_LIMIT = (2**31 - 1) // H_STEPS["words"]


@dataclass(frozen=True)
class Packed:
    """The arrays of `csrc/api.h` by name, and the whole numbers beside them."""

    arrays: dict[str, np.ndarray]
    # format, units, half, projection, hop, pre_emphasis
    header: dict[str, Any]


def padded(size: int) -> int:
    """A number of rows or columns, filled up to whole groups."""
    return -(-size // GROUP) * GROUP


def _pad(array: np.ndarray, *shape: int) -> np.ndarray:
    return np.pad(array, [(0, to - now) for now, to in zip(array.shape, shape, strict=True)])


def kind(format: str, name: str) -> str:
    """What a matrix holds in a format: a key of KINDS."""
    return SPECIAL[format].get(name, COMMON[format])


def _blocks(weight_RW: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Cuts a matrix into blocks of GROUP rows and drops those that are zero."""
    (width, dtype), (rows, columns) = KINDS[kind], weight_RW.shape
    split = weight_RW.reshape(rows // GROUP, GROUP, columns // width, width).swapaxes(1, 2)
    kept = (split != 0).any((2, 3))
    indexed = kept.mean() <= DENSE
    if not indexed:
        kept[:] = True
    starts = np.concatenate(([0], kept.sum(1).cumsum())).astype(np.int32)
    arrays = {"blocks": np.ascontiguousarray(split[kept], dtype), "starts": starts}
    if indexed:
        arrays["columns"] = np.nonzero(kept)[1].astype(np.uint16)
    return arrays


def _row_limit(weight_RW: np.ndarray, kind: str) -> np.ndarray:
    """The whole number that each row's largest weight becomes."""
    if kind == "bytes":
        return np.full(len(weight_RW), 127.0)
    magnitude = np.abs(weight_RW)
    spread_R = magnitude.sum(1) / np.maximum(magnitude.max(1), np.finfo(np.float64).tiny)
    # rounding may add a half to each weight
    room_R = (SUM_LIMIT - weight_RW.shape[1] / 2) / np.maximum(spread_R, 1)
    return np.asarray(np.minimum(np.floor(room_R), 32767))


def pack_matrix(
    weight_RW: np.ndarray, kind: str, reads_h: bool, bias_R: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """A matrix that reads h or activations of at least 0, whose unit the engine finds."""
    arrays = {}
    if kind != "floats":
        scale_R = np.abs(weight_RW).max(1) / _row_limit(weight_RW, kind)
        scale_R[scale_R == 0] = 1
        weight_RW = np.rint(weight_RW / scale_R[:, None])
        unit, zero_point = (1 / H_STEPS[kind], ZERO_POINT[kind]) if reads_h else (1, 0)
        arrays["scale"] = (scale_R * unit).astype(np.float32)
        arrays["correction"] = (-zero_point * weight_RW.sum(1)).astype(np.int32)
    if bias_R is not None:
        arrays["bias"] = bias_R.astype(np.float32)
    return arrays | _blocks(weight_RW, kind)


def _recurrent(R_GH: np.ndarray, units: int, half: int) -> dict[str, np.ndarray]:
    """R by name: u and r of a half group by group, and e, over columns [2, half]; float64."""
    R = R_GH.reshape(3, 2, units, 2, units) * GATE_SCALE_3[:, None, None, None, None]
    R = _pad(R, 3, 2, half, 2, half).reshape(3, 2, half // GROUP, GROUP, 2 * half)
    gates, candidate = R[:2].transpose(1, 2, 0, 3, 4), R[2]
    parts = {f"gates{k}": gates[k] for k in range(2)} | {
        f"candidate{k}": candidate[k] for k in range(2)
    }
    return {name: part.reshape(-1, 2 * half) for name, part in parts.items()}


def _rows(I_GE: np.ndarray, table_QE: np.ndarray, units: int, half: int) -> np.ndarray:
    """What each code adds to the gates: [Q, halves, half / 16, 3, 16], float64."""
    rows = (table_QE @ I_GE.T).reshape(LEVELS, 3, -1, units) * GATE_SCALE_3[:, None, None]
    rows = _pad(rows, LEVELS, 3, rows.shape[2], half)
    return rows.reshape(LEVELS, 3, -1, half // GROUP, GROUP).transpose(0, 2, 3, 1, 4)


def pack(
    voice: Checkpoint, format: str = "int8", more: Mapping[str, np.ndarray] | None = None
) -> Packed:
    """Lays a voice out in a format of FORMATS.

    `more` are columns beside those of R's matrices, by their names; see `pack_context`.
    """
    model = voice.config.model
    w = {name: tensor.double().numpy() for name, tensor in voice.tensors.items()}
    units, E = model.hidden // 2, w["rows"].shape[2]
    half, P = padded(units), padded(model.projection)
    beside = {name: (columns,) for name, columns in (more or {}).items()}
    matrices = {
        name: pack_matrix(np.hstack((weight, *beside.get(name, ()))), kind(format, name), True)
        for name, weight in _recurrent(w["R"], units, half).items()
    }
    for one, two in (("O1", "O2"), ("O3", "O4")):
        first = _pad(w[f"{one}.weight"], P, half)
        second = _pad(w[f"{two}.weight"], LEVELS, P)
        matrices[one] = pack_matrix(first, kind(format, one), True, _pad(w[f"{one}.bias"], P))
        matrices[two] = pack_matrix(second, kind(format, two), False, w[f"{two}.bias"])
    past = np.stack(
        [_rows(w["I_past"][:, k * E : (k + 1) * E], w["rows"][k], units, half) for k in range(2)]
    )
    now = _rows(w["I_now"], w["rows"][2], units, half)
    arrays = {f"{m}.{name}": array for m, part in matrices.items() for name, array in part.items()}
    if format == "int8":
        # one unit for each gate, so that rows are added as they are
        gates = (np.abs(table).max((*range(table.ndim - 2), -1)) for table in (past, now))
        scale_3 = np.maximum(*gates) / ROW_LIMIT
        scale_3[scale_3 == 0] = 1
        past, now = (np.rint(table / scale_3[:, None]).astype(np.int16) for table in (past, now))
        arrays["rows_scale"] = scale_3.astype(np.float32)
    else:
        past, now = past.astype(np.float32), now.astype(np.float32)
        arrays["rows_scale"] = np.ones(3, np.float32)
    arrays |= {"past": np.ascontiguousarray(past), "now": np.ascontiguousarray(now)}
    header = {
        "format": format,
        "units": units,
        "half": half,
        "projection": P,
        "hop": model.conditioning_hop_samples,
        "pre_emphasis": model.pre_emphasis,
    }
    return Packed(arrays, header)
