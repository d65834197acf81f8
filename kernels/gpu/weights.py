"""The voice that a kernel really runs: weights rounded to 16 bits, and the input rows folded.

Rounding makes another model, near the voice. It is written as a checkpoint again, so that the
reference can run it and a kernel can be judged by it without a tolerance for its format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.model import LEVELS

FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
MATRICES = ("R", "O1.weight", "O2.weight", "O3.weight", "O4.weight")


def matrices(voice: Checkpoint) -> tuple[str, ...]:
    """The names of the matrices that are rounded: MATRICES, and those of a subscale voice."""
    layers = (name for name in voice.tensors if name.startswith("context.layers."))
    more = ("X", *(name for name in layers if name.endswith(".weight")))
    return (*MATRICES, *(more if "X" in voice.tensors else ()))


def tables(voice: Checkpoint) -> tuple[Tensor, Tensor, Tensor]:
    """What a code adds to the gates, float64: c_{t-1} and f_{t-1} [Q, G], c_t [Q, G / 2].

    The rows of c_t are the fine halves alone, [u, r, e][H / 2].
    """
    w = {name: voice.tensors[name].double() for name in ("rows", "I_past", "I_now")}
    past_c, past_f = w["I_past"].chunk(2, dim=1)
    c, f, now = w["rows"]
    return c @ past_c.T, f @ past_f.T, now @ w["I_now"].T


def folded(
    voice: Checkpoint, matrices: Mapping[str, Tensor], rows: tuple[Tensor, Tensor, Tensor]
) -> Checkpoint:
    """The voice with these matrices and with `rows`, which `tables` gives, for its input."""
    past_c, past_f, now = rows
    tensors = {
        name: tensor.float() for name, tensor in (dict(voice.tensors) | dict(matrices)).items()
    }
    if "X" in tensors:
        # the rest of what is known of a sample isn't learned
        W_CEd, rows_QE = tensors["context.enter.weight"].double(), voice.tensors["rows"][0].double()
        E = rows_QE.shape[1]
        folded_CQd = torch.einsum("qe,ced->cqd", rows_QE, W_CEd[:, :E])
        both = torch.cat((folded_CQd, W_CEd[:, E:]), dim=1)
        tensors["context.enter.weight"] = both.float().contiguous()
    # a code's embedding is one of Q unit vectors, which picks its row
    tensors["rows"] = torch.eye(LEVELS).repeat(3, 1, 1)
    tensors["I_past"] = torch.cat((past_c.T, past_f.T), dim=1).float().contiguous()
    tensors["I_now"] = now.T.float().contiguous()
    model = replace(voice.config.model, input="embedding", embedding=LEVELS)
    return replace(voice, config=replace(voice.config, model=model), tensors=tensors)


def rounded(voice: Checkpoint, format: str) -> Checkpoint:
    """The voice in a format of FORMATS: matrices in it, the input's rows in float16 or float32.

    What a code adds to the context of a subscale voice stays float32. Raises
    ValueError for a weight or a row beyond the range of its format.
    """
    kind = FORMATS[format]
    narrow = {name: _round(voice.tensors[name], kind) for name in matrices(voice)}
    return folded(voice, narrow, tables(voice) if format == "float32" else narrow_tables(voice))


def narrow_tables(voice: Checkpoint) -> tuple[Tensor, Tensor, Tensor]:
    """What `tables` gives, rounded to float16; raises ValueError where it exceeds its range."""
    past_c, past_f, now = (_round(table, torch.float16) for table in tables(voice))
    return past_c, past_f, now


def _round(tensor: Tensor, kind: torch.dtype) -> Tensor:
    result = tensor.to(kind)
    if not torch.isfinite(result).all():
        name, most = str(kind).removeprefix("torch."), float(tensor.abs().max())
        raise ValueError(f"a weight of {most:.3g} exceeds the range of {name}")
    return result.double()
