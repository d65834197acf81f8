"""A subscale voice laid out for the native engine: its lanes and their context; see `csrc/api.h`.

Both are in one `Packed`: what is the context's has the names of `PREFIX`, in the header too.
"""

from __future__ import annotations

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.context import features
from wavernn.kernels.pack import GATE_SCALE_3, GROUP, Packed, kind, pack, pack_matrix, padded
from wavernn.kernels.utterance import lane_voice
from wavernn.model import LEVELS

PREFIX = "context."


def pack_subscale(voice: Checkpoint, format: str) -> Packed:
    """Lays a subscale voice out in a format of `pack.FORMATS`."""
    lanes, context = (
        pack(lane_voice(voice), format, columns_beside_R(voice)),
        pack_context(voice, format),
    )
    return Packed(
        lanes.arrays | {PREFIX + name: array for name, array in context.arrays.items()},
        lanes.header | {PREFIX + name: number for name, number in context.header.items()},
    )


def split(packed: Packed) -> tuple[Packed, Packed]:
    """The plain voice that each lane is, and the context, of a packed subscale voice."""

    def part(wanted: bool) -> Packed:
        of = [
            {k.removeprefix(PREFIX): v for k, v in d.items() if k.startswith(PREFIX) == wanted}
            for d in (packed.arrays, packed.header)
        ]
        return Packed(*of)

    return part(False), part(True)


def code_tables(voice: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """What an earlier sample adds to e, by its distance d = 1 .. U - 1, float64.

    [U - 1, Q, C] for its coarse byte with a fine one of 0, [U - 1, C] for each unit of the fine
    one: all of it is linear in that.
    """
    rows_QE = voice.tensors["rows"][0].double()
    code_Q2 = torch.stack((torch.arange(LEVELS), torch.zeros(LEVELS, dtype=torch.long)), dim=-1)
    phi_QE = features(code_Q2, rows_QE).numpy()
    one, none = (features(torch.tensor([0, f]), rows_QE).numpy() for f in (1, 0))
    # the last tap is d = 1
    W_CEd = voice.tensors["context.enter.weight"].double().numpy()
    W_dCE = W_CEd[:, :, ::-1].transpose(2, 0, 1)
    return phi_QE @ W_dCE.transpose(0, 2, 1), W_dCE @ (one - none)


def pack_context(voice: Checkpoint, format: str) -> Packed:
    """Lays out what sub-tensors see of each other: float32, but X in a format of `pack.FORMATS`."""
    config = voice.config.model
    w = {name: tensor.double().numpy() for name, tensor in voice.tensors.items()}
    C, padded_C = config.context_channels, padded(config.context_channels)
    more = padded_C - C
    coarse_dQC, fine_dC = code_tables(voice)
    arrays = {
        "coarse": np.pad(coarse_dQC, ((0, 0), (0, 0), (0, more))),
        "fine": np.pad(fine_dC, ((0, 0), (0, more))),
        "lanes": np.pad(w["context.lanes"], ((0, 0), (0, more))),
    }
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    matrices = {
        name: pack_matrix(weight, kind(format, name), True)
        for name, weight in _rows_of_X(voice).items()
        if name.startswith("candidate")
    }
    for layer in range(config.context_layers):
        V_CC2 = np.pad(w[f"context.layers.{layer}.weight"], ((0, more), (0, more), (0, 0)))
        bias_C = np.pad(w[f"context.layers.{layer}.bias"], (0, more))
        taps = np.concatenate((V_CC2[:, :, 0], V_CC2[:, :, 1]), axis=1)
        matrices[f"taps{layer}"] = pack_matrix(taps, "floats", True, bias_C)
    arrays |= {f"{m}.{name}": array for m, part in matrices.items() for name, array in part.items()}
    header = {
        "factor": config.subscale,
        "horizon": config.subscale_horizon,
        "layers": config.context_layers,
        "channels": padded_C,
    }
    return Packed(arrays, header)


def columns_beside_R(voice: Checkpoint) -> dict[str, np.ndarray]:
    """X's rows of u and r, to stand beside R's in the matrices of those names."""
    return {k: rows for k, rows in _rows_of_X(voice).items() if k.startswith("gates")}


def _rows_of_X(voice: Checkpoint) -> dict[str, np.ndarray]:
    """X by the names of the matrices of R and in the order of their rows: [rows, C], float64."""
    X_GC = voice.tensors["X"].double().numpy()
    G, C = X_GC.shape
    units = G // 6
    half = padded(units)
    X = X_GC.reshape(3, 2, units, C) * GATE_SCALE_3[:, None, None, None]
    X = np.pad(X, ((0, 0), (0, 0), (0, half - units), (0, padded(C) - C)))
    X = X.reshape(3, 2, half // GROUP, GROUP, padded(C))
    gates, candidate = X[:2].transpose(1, 2, 0, 3, 4), X[2]
    parts = {f"gates{k}": gates[k] for k in range(2)}
    parts |= {f"candidate{k}": candidate[k] for k in range(2)}
    return {name: part.reshape(-1, padded(C)) for name, part in parts.items()}
