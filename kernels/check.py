"""What every backend refuses: arrays whose shape or type can't be meant.

Each function raises ValueError with a sentence that says what was expected and what came; a kind
of voice that can't be meant is BackendUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from wavernn.config import ModelConfig
from wavernn.errors import BackendUnavailable


def _require(condition: bool, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"expected {expected}, got {got}")


def check_plain(model: ModelConfig) -> None:
    """Raises BackendUnavailable for subscale and fused voices, where streams are to be plain."""
    if not model.plain:
        kind = f"voice of subscale {model.subscale}" if model.fused == 1 else "fused voice"
        raise BackendUnavailable(
            f"a {kind} is spoken an utterance at a time, not as streams side by side; wavernn "
            "bench says how fast one is"
        )


def check_active(active_B: np.ndarray | None, streams: int) -> np.ndarray:
    """Returns the rows of the active streams, rising; None means all of them."""
    if active_B is None:
        return np.arange(streams)
    active_B = np.asarray(active_B)
    _require(
        active_B.shape == (streams,) and active_B.dtype == bool,
        f"active as bool [{streams}]",
        f"{active_B.dtype} {list(active_B.shape)}",
    )
    return np.flatnonzero(active_B)


def check_gates(
    gates_BNG: torch.Tensor,
    gate_rows: int,
    hop: int,
    sample_B: np.ndarray,
    samples: int,
    rows: np.ndarray,
    types: tuple[torch.dtype, ...] = (torch.float32,),
) -> None:
    """Wants [B, N, G] of one of `types`, with a row for each sample that `rows` are to get."""
    shape = list(gates_BNG.shape)
    _require(
        gates_BNG.dtype in types and gates_BNG.device.type == "cpu",
        "gate input as float32 on the CPU",
        f"{gates_BNG.dtype} on {gates_BNG.device}",
    )
    B = len(sample_B)
    _require(
        len(shape) == 3 and shape[0] == B and shape[2] == gate_rows,
        f"gate input [{B}, rows, {gate_rows}]",
        shape,
    )
    if samples and len(rows):
        needed = int((sample_B[rows] % hop).max() + samples - 1) // hop + 1
        _require(shape[1] >= needed, f"at least {needed} rows of gate input", shape[1])


def check_uniform(uniform_BT2: np.ndarray, streams: int) -> int:
    """Wants float32 draws [B, T, 2] in [0, 1); returns T."""
    shape = list(uniform_BT2.shape)
    _require(
        uniform_BT2.dtype == np.float32 and shape[::2] == [streams, 2] and len(shape) == 3,
        f"draws as float32 [{streams}, samples, 2]",
        f"{uniform_BT2.dtype} {shape}",
    )
    outside = uniform_BT2[~((uniform_BT2 >= 0) & (uniform_BT2 < 1))]
    _require(outside.size == 0, "draws in [0, 1)", float(outside[0]) if outside.size else None)
    return int(shape[1])


def check_codes(codes_BT2: np.ndarray, streams: int) -> int:
    """Wants uint8 codes [B, T, 2]; returns T."""
    shape = list(codes_BT2.shape)
    _require(
        codes_BT2.dtype == np.uint8 and shape[::2] == [streams, 2] and len(shape) == 3,
        f"codes as uint8 [{streams}, samples, 2]",
        f"{codes_BT2.dtype} {shape}",
    )
    return int(shape[1])


def check_seeds(seed_B: np.ndarray, streams: int) -> None:
    """Wants uint64 seeds [B]."""
    _require(
        seed_B.dtype == np.uint64 and seed_B.shape == (streams,),
        f"seeds as uint64 [{streams}]",
        f"{seed_B.dtype} {list(seed_B.shape)}",
    )


def check_temperature(temperature: float | np.ndarray, streams: int) -> np.ndarray:
    """Returns float32 [B]; each must be positive and finite."""
    given = np.asarray(temperature, np.float32)
    _require(given.shape in ((), (streams,)), f"a temperature or [{streams}]", list(given.shape))
    _require(
        # what is smaller still counts as 0 in an engine
        bool((np.isfinite(given) & (given >= np.finfo(np.float32).tiny)).all()),
        "a temperature that is positive and finite",
        temperature,
    )
    return np.ascontiguousarray(np.broadcast_to(given, streams))


def check_state(state: Mapping[str, np.ndarray], streams: int, hidden: int) -> None:
    """Wants h [B, H], code [B, 2], sample [B] and memory [B]."""
    shapes = {"h": (streams, hidden), "code": (streams, 2), "sample": (streams,)}
    for name, shape in (shapes | {"memory": (streams,)}).items():
        _require(name in state, f"a state with {name}", f"one of {', '.join(state)}")
        _require(
            np.shape(state[name]) == shape, f"{name} {list(shape)}", list(np.shape(state[name]))
        )
    code = np.asarray(state["code"])
    _require(bool(((code >= 0) & (code <= 255)).all()), "codes in 0..255", code.tolist())
    sample = np.asarray(state["sample"])
    _require(bool((sample >= 0).all()), "sample indices of at least 0", sample.tolist())
