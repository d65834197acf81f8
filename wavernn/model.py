"""The dual-softmax WaveRNN and its conditioner as torch modules, teacher-forced.

Kalchbrenner et al. 2018, "Efficient Neural Audio Synthesis", section 2, equation 2:

    x_t = [c_{t-1}, f_{t-1}, c_t]
    u_t = sigmoid(R_u h_{t-1} + I*_u x_t)
    r_t = sigmoid(R_r h_{t-1} + I*_r x_t)
    e_t = tanh(r_t o (R_e h_{t-1}) + I*_e x_t)
    h_t = u_t o h_{t-1} + (1 - u_t) o e_t
    y_c, y_f = split(h_t)
    P(c_t) = softmax(O2 relu(O1 y_c)),   P(f_t) = softmax(O4 relu(O3 y_f))

I* is masked so that c_t reaches the fine half alone; the conditioner's vector, which carries the
biases too, is added inside every gate. What defines the result is `kernels/reference.py`; this
file is the same model in the form that trains fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavernn.config import PRUNABLE, PRUNABLE_CONTEXT, MelConfig, ModelConfig
from wavernn.context import Context
from wavernn.recurrence import recurrence_bf16

LEVELS = 256
# coarse and fine byte of the sample zero, which stands before every stream
SILENT_CODE = (128, 0)


class Conditioner(nn.Module):
    """Turns mel frames into one vector per `conditioning_hop_samples` samples.

    Frame j of the output depends on frames j - history_frames .. j + lookahead_frames alone.
    """

    mean_M: Tensor
    deviation_M: Tensor

    def __init__(self, model: ModelConfig, mel: MelConfig) -> None:
        super().__init__()
        C = model.channels
        self.steps_per_frame = mel.hop_samples // model.conditioning_hop_samples
        self.history_frames = model.history_frames
        self.lookahead_frames = model.lookahead_frames
        self.floor = mel.floor_value
        # statistics of the training mels, set once before training
        self.register_buffer("mean_M", torch.full((mel.bands,), self.floor / 2))
        self.register_buffer("deviation_M", torch.full((mel.bands,), -self.floor / 4))
        self.enter = nn.Conv1d(mel.bands, C, 3 + model.lookahead_frames)
        self.layers = nn.ModuleList(nn.Conv1d(C, C, 3) for _ in range(model.layers))
        self.narrow = nn.ModuleList(nn.Linear(C, C) for _ in range(model.layers))
        self.spread = nn.Linear(C, self.steps_per_frame * C)

    def pad(self, mel_BNM: Tensor) -> Tensor:
        """Puts silence where a whole mel [B, N, M] lacks history and look-ahead."""
        edges = (0, 0, self.history_frames, self.lookahead_frames)
        return F.pad(mel_BNM, edges, value=self.floor)

    def forward(self, mel_BNM: Tensor) -> Tensor:
        """Maps N + history + look-ahead frames to [B, N * steps_per_frame, C]."""
        B = mel_BNM.shape[0]
        x_BNM = (mel_BNM - self.mean_M) / self.deviation_M
        x_BNC = F.relu(_convolve(self.enter, x_BNM))
        for wide, narrow in zip(self.layers, self.narrow, strict=True):
            x_BNC = x_BNC[:, 2:] + narrow(F.relu(_convolve(wide, x_BNC)))
        y = F.relu(self.spread(F.relu(x_BNC)))
        return y.reshape(B, -1, self.enter.out_channels)


def _convolve(layer: nn.Module, x_BNC: Tensor) -> Tensor:
    """Runs a Conv1d over frames as one product: for a few frames more than twice as fast."""
    assert isinstance(layer, nn.Conv1d)
    (size,) = layer.kernel_size
    windows_BNCK = x_BNC.unfold(1, size, 1)
    return F.linear(windows_BNCK.flatten(2), layer.weight.flatten(1), layer.bias)


class Surroundings(NamedTuple):
    """What a voice needs of an utterance around a slice of it that it's to score."""

    # samples from one to the next of a sub-tensor
    stride: int = 1
    before_samples: int = 1
    after_samples: int = 0
    # frames beyond those that the conditioner looks ahead
    more_frames: int = 0


class WaveRNN(nn.Module):
    """Gate weights, input rows, heads and conditioner of one voice."""

    def __init__(self, model: ModelConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config = model
        H, P, G, C = model.hidden, model.projection, model.gate_rows, model.channels
        E = model.embedding if model.input == "embedding" else 1
        self.conditioner = Conditioner(model, mel)
        self.gates = nn.Linear(C, G)
        self.R = nn.Parameter(torch.empty(G, H))
        # rows for c_{t-1}, f_{t-1} and c_t; a scalar input is a table that doesn't learn
        if model.input == "embedding":
            self.rows = nn.Parameter(torch.randn(3, LEVELS, E))
        else:
            scale_Q1 = (torch.arange(LEVELS) / 127.5 - 1)[:, None]
            self.rows = nn.Parameter(scale_Q1.repeat(3, 1, 1), requires_grad=False)
        self.I_past = nn.Parameter(torch.empty(G, 2 * E))
        # the unmasked rows of c_t's columns: the fine half of each gate
        self.I_now = nn.Parameter(torch.empty(G // 2, E))
        self.O1, self.O2 = nn.Linear(H // 2, P), nn.Linear(P, LEVELS)
        self.O3, self.O4 = nn.Linear(H // 2, P), nn.Linear(P, LEVELS)
        if model.subscale > 1:
            self.context = Context(model)
            self.X = nn.Parameter(torch.empty(G, model.context_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts as torch's GRU does, the recurrence with orthogonal gates."""
        H = self.config.hidden
        for part in self.R.chunk(3):
            nn.init.orthogonal_(part)
        inputs = (self.I_past, self.I_now, *([self.X] if self.config.subscale > 1 else []))
        for weight in inputs:
            nn.init.uniform_(weight, -1 / math.sqrt(H), 1 / math.sqrt(H))

    @property
    def surroundings(self) -> Surroundings:
        """What `forward` wants around a slice; `around_BW3` is there where the stride isn't 1."""
        if self.config.subscale == 1:
            return Surroundings()
        context = self.context
        return Surroundings(self.config.subscale, context.before_samples, context.after_samples)

    def matrices(self) -> dict[str, Tensor]:
        """The matrices that can be pruned, as views, by the names of `ModelConfig.prunable`."""
        return matrices({name: value.detach() for name, value in self.named_parameters()})

    def fine_rows(self, weight_GE: Tensor) -> Tensor:
        """Writes the masked matrix out: I_now's rows in the fine halves, zeros in the coarse."""
        E = weight_GE.shape[1]
        fine = weight_GE.view(3, -1, E)
        return torch.cat((torch.zeros_like(fine), fine), dim=1).view(-1, E)

    def gate_input(self, mel_BNM: Tensor) -> Tensor:
        """What conditioning adds to the gates: padded frames to [B, N * steps_per_frame, G]."""
        result: Tensor = self.gates(self.conditioner(mel_BNM))
        return result

    def _inputs(self, previous_TB2: Tensor, codes_TB2: Tensor) -> Tensor:
        c_past, f_past, c_now = self.rows
        index = (previous_TB2[..., 0], previous_TB2[..., 1], codes_TB2[..., 0])
        tables = (c_past, f_past, c_now)
        return torch.cat(
            [F.embedding(i, table) for i, table in zip(index, tables, strict=True)], dim=-1
        )

    def hidden(
        self,
        previous_TB2: Tensor,
        codes_TB2: Tensor,
        cond_BNC: Tensor,
        h_BH: Tensor,
        y_TBC: Tensor | None = None,
    ) -> Tensor:
        """Runs the recurrence over known codes: every state [T, B, H] in the weights' dtype.

        Time comes first. `cond_BNC` holds a vector for each `conditioning_hop_samples` samples of
        the utterance, `y_TBC` what `Context` makes of earlier sub-tensors. Runs on torch's own
        GRU, whose cell is this one with the gates ordered r, u, e.
        """
        x_TBE = self._inputs(previous_TB2, codes_TB2)
        held = self.config.conditioning_hop_samples // self.config.subscale
        cond_TBC = cond_BNC.transpose(0, 1).repeat_interleave(held, dim=0).to(x_TBE.dtype)
        parts, inputs = (
            [self.I_past, self.fine_rows(self.I_now), self.gates.weight],
            [x_TBE, cond_TBC],
        )
        if y_TBC is not None:
            parts, inputs = [*parts, self.X], [*inputs, y_TBC.to(x_TBE.dtype)]
        b_G = self.gates.bias
        weights = (torch.cat(parts, dim=1), self.R, b_G, torch.zeros_like(b_G))
        reordered = [_reset_first(w) for w in weights]
        x_TBE = torch.cat(inputs, dim=-1)
        h_TBH, _ = torch.gru(
            x_TBE, h_BH[None], reordered, True, 1, 0.0, self.training, False, False
        )
        return h_TBH

    def hidden_bf16(
        self,
        previous_TB2: Tensor,
        codes_TB2: Tensor,
        cond_BNC: Tensor,
        h_BH: Tensor,
        y_TBC: Tensor | None = None,
    ) -> Tensor:
        """Does what `hidden` does with bfloat16 products, on a CPU: float32 [T, B, H]."""
        x_TBE = self._inputs(previous_TB2, codes_TB2).bfloat16()
        I_GE = torch.cat((self.I_past, self.fine_rows(self.I_now)), dim=1).bfloat16()
        gates_NBG = self.gates(cond_BNC).bfloat16().transpose(0, 1)
        N, B, G = gates_NBG.shape
        inside = F.linear(x_TBE, I_GE)
        if y_TBC is not None:
            inside = inside + F.linear(y_TBC.bfloat16(), self.X.bfloat16())
        gates = inside.view(N, -1, B, G) + gates_NBG[:, None]
        return recurrence_bf16(gates.view(-1, B, G), self.R, h_BH)

    def heads(self, h_TBH: Tensor) -> tuple[Tensor, Tensor]:
        """Maps states to coarse and fine logits, each [..., Q]."""
        y_c, y_f = h_TBH.chunk(2, dim=-1)
        coarse = self.O2(F.relu(self.O1(y_c)))
        fine = self.O4(F.relu(self.O3(y_f)))
        return coarse, fine

    def forward(
        self,
        mel_BNM: Tensor,
        previous_BT2: Tensor,
        codes_BT2: Tensor,
        h_BH: Tensor,
        precision: str = "float32",
        around_BW3: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores known codes: coarse and fine logits, float32 [T, B, Q], and the last state [B, H].

        `mel_BNM` holds the frames of the slice and the conditioner's context on both sides,
        `previous_BT2` the codes that the network is given as its past, `codes_BT2` the codes
        that it is to predict, whole numbers in 0..255; T is a multiple of the hop. With precision
        "bfloat16" the products are bfloat16; on a GPU the recurrence stays float32.

        A subscale voice runs its sub-tensors as so many streams. Its past is U samples back, its
        state [B, U H], and `around_BW3` is what `Context` sees.
        """
        B, U = len(codes_BT2), self.config.subscale
        previous_TB2, codes_TB2 = (_by_lane(x, U) for x in (previous_BT2, codes_BT2))
        h_BH = h_BH.unflatten(1, (U, -1)).transpose(0, 1).reshape(U * B, -1)
        kind = self.R.device.type
        narrow = precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=narrow):
            cond_BNC = self.conditioner(mel_BNM).repeat(U, 1, 1)
            known: tuple[Tensor, ...] = (previous_TB2, codes_TB2, cond_BNC, h_BH)
            if U > 1:
                assert around_BW3 is not None
                known = (*known, self.context(around_BW3, self.rows[0]))
            if narrow and kind == "cpu":
                h_TBH = self.hidden_bf16(*known)
            else:
                with torch.autocast(kind, enabled=False):
                    h_TBH = self.hidden(*known)
            last_BH = h_TBH[-1].unflatten(0, (U, B)).transpose(0, 1).reshape(B, -1)
            # step by step the sub-tensors lie one after another, as their samples do in time
            coarse_TBQ, fine_TBQ = self.heads(h_TBH.reshape(-1, B, self.config.hidden))
        return coarse_TBQ.float(), fine_TBQ.float(), last_BH


def matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices that can be pruned, as views of a voice's tensors."""
    R, heads = tensors["R"].chunk(3), [tensors[f"O{i}.weight"] for i in (1, 2, 3, 4)]
    found = dict(zip(PRUNABLE, (*R, *heads), strict=True))
    if "X" in tensors:
        found |= zip(PRUNABLE_CONTEXT, tensors["X"].chunk(3), strict=True)
    return found


def nats_of(logits: Tensor, codes_TB: Tensor, reduction: str = "none") -> Tensor:
    """Cross-entropy of bytes: [T, B], or one number where the reduction is "mean".

    Logits are [T, B, Q], or of the two nibbles of each byte [T, B, 2, 16].
    """
    if logits.ndim == 3:
        nats = F.cross_entropy(logits.flatten(0, 1), codes_TB.flatten(), reduction=reduction)
        return nats.view(codes_TB.shape) if reduction == "none" else nats
    nibbles_TB2 = torch.stack((codes_TB >> 4, codes_TB & 15), dim=-1)
    nats = F.cross_entropy(logits.flatten(0, 2), nibbles_TB2.flatten(), reduction="none")
    nats_TB = nats.view(nibbles_TB2.shape).sum(-1)
    return nats_TB if reduction == "none" else nats_TB.mean()


def _by_lane(codes_BT2: Tensor, U: int) -> Tensor:
    """Codes [B, T, 2] by step and sub-tensor: [T / U, U B, 2]."""
    B, T, _ = codes_BT2.shape
    codes_IUB2: Tensor = codes_BT2.unflatten(1, (T // U, U)).permute(1, 2, 0, 3)
    return codes_IUB2.reshape(T // U, U * B, 2)


def _reset_first(gates: Tensor) -> Tensor:
    u, r, e = gates.chunk(3)
    return torch.cat((r, u, e))
