"""A fused voice laid out for the native engine; see `wavernn_fused` of `csrc/api.h`."""

from __future__ import annotations

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.context import features
from wavernn.fused import KNOWN, NIBBLES
from wavernn.kernels.pack import GATE_SCALE_3, GROUP, Packed, kind, pack_matrix, padded
from wavernn.model import LEVELS

# largest value of an int16 input row, of which two are added before they are widened
ROW_LIMIT = 32767 // 2


def pack_fused(voice: Checkpoint, format: str) -> Packed:
    """Lays a voice out in a format of `pack.FORMATS`; the eight parts of h are padded to groups."""
    model = voice.config.model
    w = {name: tensor.double().numpy() for name, tensor in voice.tensors.items()}
    U = model.hidden // 8
    part, P = padded(U), padded(model.projection)
    R = w["R"].reshape(3, 8, U, 8, U) * GATE_SCALE_3[:, None, None, None, None]
    R = np.pad(R, ((0, 0), (0, 0), (0, part - U), (0, 0), (0, part - U)))
    R = R.reshape(3, 8 * part // GROUP, GROUP, 8 * part).swapaxes(0, 1)
    gates, candidate = (rows.reshape(-1, 8 * part) for rows in (R[:, :2], R[:, 2]))
    matrices = {
        "gates": pack_matrix(gates, kind(format, "gates0"), True),
        "candidate": pack_matrix(candidate, kind(format, "candidate0"), True),
    }
    for k in range(4):
        one, two = ("O1", "O2") if k < 2 else ("O3", "O4")
        first = w[f"{one}.weight"].reshape(2, 2, model.projection, U)[k % 2]
        first = np.pad(first, ((0, 0), (0, P - model.projection), (0, part - U)))
        bias = w[f"{one}.bias"].reshape(2, 2, -1)[k % 2]
        bias = np.pad(bias, ((0, 0), (0, P - model.projection)))
        second = w[f"{two}.weight"].reshape(2, 2 * NIBBLES, -1)[k % 2]
        second = np.pad(second, ((0, 0), (0, P - model.projection)))
        matrices[f"first{k}"] = pack_matrix(
            first.reshape(2 * P, part), kind(format, one), True, bias.ravel()
        )
        matrices[f"second{k}"] = pack_matrix(
            second, kind(format, two), False, w[f"{two}.bias"].reshape(2, -1)[k % 2]
        )
    arrays = {f"{m}.{name}": array for m, part in matrices.items() for name, array in part.items()}
    past, fine, now, upper = _tables(voice)
    scale_3 = np.ones(3)
    if format == "int8":
        # one unit for each gate, so that rows are added as they are
        tables = (past, now, upper)
        scale_3 = np.max(
            [np.abs(rows).max((*range(rows.ndim - 4), -3, -2, -1)) for rows in tables], 0
        )
        scale_3 = np.where(scale_3 > 0, scale_3, 1) / ROW_LIMIT
        past, now, upper = (np.rint(rows / scale_3[:, None, None, None]) for rows in tables)
    row = np.int16 if format == "int8" else np.float32
    arrays |= {
        "past": _by_group(past, part, row),
        "now": _by_group(now, part, row),
        "upper": _by_group(upper, part, row),
        "fine": _by_group(fine, part, np.float32),
        "rows_scale": scale_3.astype(np.float32),
    }
    header = {
        "format": format,
        "units": U,
        "part": part,
        "projection": P,
        "hop": model.conditioning_hop_samples,
    }
    return Packed(arrays, header)


def _tables(voice: Checkpoint) -> tuple[np.ndarray, ...]:
    """What codes add to the gates: float64 [..., 3, parts, 2, H / 8] in powers of two.

    Of each known sample the coarse byte and what a unit of the fine one adds, [4, Q] and [4]; of a
    sample that is being made the coarse byte [Q], and the upper nibbles of both bytes [2, 16].
    """
    U = voice.config.model.hidden // 8
    w = {k: v.double().numpy() for k, v in voice.tensors.items() if k[0] in "Iru"}
    rows_QE = voice.tensors["rows"][0].double()
    code_Q2 = torch.stack((torch.arange(LEVELS), torch.zeros(LEVELS, dtype=torch.long)), dim=-1)
    # phi is linear in the fine byte
    phi_QE = features(code_Q2, rows_QE).numpy()
    unit_E = (features(torch.tensor([0, 1]), rows_QE) - features(code_Q2[0], rows_QE)).numpy()
    taps = np.stack(np.split(w["I_past"], len(KNOWN), axis=1))
    scale = GATE_SCALE_3[:, None, None, None]
    past = (phi_QE @ taps.swapaxes(1, 2)).reshape(len(KNOWN), LEVELS, 3, 4, 2, U)
    fine = (taps @ unit_E).reshape(len(KNOWN), 3, 4, 2, U)
    now = (w["rows"][1] @ w["I_now"].T).reshape(LEVELS, 3, 2, 2, U)
    J = w["I_upper"].reshape(3, 2, 2, U, -1)
    upper = np.einsum("jqe,gjsue->jqgsu", w["upper"], J)[:, :, :, None]
    return past * scale, fine * scale, now * scale, upper * scale


def _by_group(rows: np.ndarray, part: int, dtype: type) -> np.ndarray:
    """[..., 3, parts, 2, H / 8] to [..., parts, 2, part / 16, 3, 16]."""
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, part - rows.shape[-1])])
    rows = rows.reshape(*rows.shape[:-1], part // GROUP, GROUP)
    return np.ascontiguousarray(np.moveaxis(rows, -5, -2), dtype)
