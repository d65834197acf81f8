"""A WaveRNN that makes two samples a step, as eight softmaxes of 4 bits, teacher-forced.

Kalchbrenner et al. 2018, section 4, "Fused Subscale WaveRNN". Of two sub-tensors with a horizon
F = 2, step t makes a_t, which is sample 2t, and b_{t-3}, sample 2t - 5, with one state for both. A
sample is four nibbles of 16 levels, most significant first. With phi of a sample as in
`wavernn.context`, c and f learned rows of its bytes' upper nibbles and d one of its coarse byte,
part (k, s) of the gates, which is for nibble k of sample s, sees

    x_t      = [phi(a_{t-1}), phi(a_{t-2}), phi(a_{t-3}), phi(b_{t-4})]
    k = 0:     I x_t
    k = 1:     I x_t + J c_s
    k = 2:     I x_t + K d_s
    k = 3:     I x_t + K d_s + J f_s
    u, r, e and h_t of that as in equation 2
    y_k,s    = split(h_t), k = 0 .. 3 and in each s = a, b
    P(nibble k of s) = softmax(O2_k,s relu(O1_k,s y_k,s))

for k = 0, 1; O3 and O4 for k = 2, 3. So a step takes four turns of a quarter of the rows, and R is
read once for two samples. All that earlier steps made is seen, through x_t and h; of the two
samples of a step neither sees the other. Conditioning is that of sample 2t, or of the last sample
once that is past.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavernn.config import MelConfig, ModelConfig
from wavernn.context import features
from wavernn.model import LEVELS, Surroundings, WaveRNN, _reset_first
from wavernn.recurrence import recurrence_bf16
from wavernn.subscale import Order

NIBBLES = 16
# where the known samples lie, counted from 2t: a_{t-1}, a_{t-2}, a_{t-3} and b_{t-4}
KNOWN = (-2, -4, -6, -7)
# and the second sample of a step
SECOND = -5


def network(model: ModelConfig, mel: MelConfig) -> WaveRNN:
    """The torch module of a voice: plain, subscale or fused."""
    return FusedWaveRNN(model, mel) if model.fused == 2 else WaveRNN(model, mel)


class FusedWaveRNN(WaveRNN):
    """The weights of a fused voice by the names of `WaveRNN`; heads are stacked by part."""

    def __init__(self, model: ModelConfig, mel: MelConfig) -> None:
        super().__init__(model, mel)
        H, P, G = model.hidden, model.projection, model.gate_rows
        E = self.rows.shape[2]
        # those of phi and d; c and f
        self.rows, self.upper = (_rows(model, levels, E) for levels in (LEVELS, NIBBLES))
        self.I_past = nn.Parameter(torch.empty(G, len(KNOWN) * (E + 2)))
        # J: its rows are those of the parts k = 1 and 3, as I_now, which is K, has k = 2 and 3
        self.I_upper = nn.Parameter(torch.empty(G // 2, E))
        self.O1, self.O2 = nn.Linear(H // 8, 4 * P), nn.Linear(P, 4 * NIBBLES)
        self.O3, self.O4 = nn.Linear(H // 8, 4 * P), nn.Linear(P, 4 * NIBBLES)
        for weight in (self.I_past, self.I_upper):
            nn.init.uniform_(weight, -1 / math.sqrt(H), 1 / math.sqrt(H))

    @property
    def surroundings(self) -> Surroundings:
        """The known samples of the first step, and the steps that the last samples come of."""
        lag = Order.of(self.config).lag_steps
        # whole columns of two samples, and conditioning of the steps after the slice
        return Surroundings(2, -min(KNOWN) + 1, 2 * lag, 1)

    def now_rows(self) -> Tensor:
        """Writes the masked matrix out: [G, 6E] over d, c and f, of a and b each."""
        E, U = self.I_now.shape[1], self.config.hidden // 8
        K, J = (I.view(3, 2, 2, U, E) for I in (self.I_now, self.I_upper))
        full = K.new_zeros(3, 4, 2, U, 3, 2, E)
        for s in range(2):
            full[:, 2:, s, :, 0, s] = K[:, :, s]
            full[:, 1, s, :, 1, s] = J[:, 0, s]
            full[:, 3, s, :, 2, s] = J[:, 1, s]
        return full.view(24 * U, 6 * E)

    def _rows_of(self, given_BW2: Tensor, clean_BW2: Tensor, steps: int) -> Tensor:
        """x_t and what the samples of a step add to it: [steps, B, 4 (E + 2) + 6E].

        Codes are those of `surroundings`, as they are given and as they are to be predicted.
        """
        first = self.surroundings.before_samples

        def at(codes_BW2: Tensor, offset: int) -> Tensor:
            begin = first + offset
            return codes_BW2[:, begin : begin + 2 * steps : 2].transpose(0, 1)

        known = [at(given_BW2, offset) for offset in KNOWN]
        now = [at(clean_BW2, offset) for offset in (0, SECOND)]
        rows = [features(x, self.rows[0]) for x in known]
        rows += [F.embedding(x[..., 0], self.rows[1]) for x in now]
        rows += [F.embedding(x[..., i] >> 4, self.upper[i]) for i in range(2) for x in now]
        return torch.cat(rows, dim=-1)

    def _gru(self, x_IBE: Tensor, cond_IBC: Tensor, h_BH: Tensor) -> Tensor:
        """Runs the recurrence on torch's own GRU: every state [steps, B, H]."""
        b_G = self.gates.bias
        inputs = torch.cat((self.I_past, self.now_rows(), self.gates.weight), dim=1)
        weights = [_reset_first(w) for w in (inputs, self.R, b_G, torch.zeros_like(b_G))]
        x = torch.cat((x_IBE, cond_IBC.to(x_IBE.dtype)), dim=-1)
        h_IBH, _ = torch.gru(x, h_BH[None], weights, True, 1, 0.0, self.training, False, False)
        return h_IBH

    def heads(self, h_TBH: Tensor) -> tuple[Tensor, Tensor]:
        """Maps states to the logits of coarse and fine nibbles, [..., k, s, 16] each."""
        coarse, fine = (y.unflatten(-1, (2, 2, -1)) for y in h_TBH.chunk(2, dim=-1))
        return _stacked(self.O1, self.O2, coarse), _stacked(self.O3, self.O4, fine)

    def forward(
        self,
        mel_BNM: Tensor,
        previous_BT2: Tensor,
        codes_BT2: Tensor,
        h_BH: Tensor,
        precision: str = "float32",
        around_BW3: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores known codes as `WaveRNN.forward` does, but by nibbles: logits [T, B, 2, 16].

        `mel_BNM` has a frame more, and the past is in `around_BW3`. The last state is that before
        the step of the sample after the slice, though three steps more are run for its odd samples.
        """
        assert around_BW3 is not None
        B, T, _ = codes_BT2.shape
        first, lag = self.surroundings.before_samples, Order.of(self.config).lag_steps
        steps = T // 2 + lag
        # inputs may be noisy, what a step makes isn't
        given_BW2, inside_BW = around_BW3[..., :2], around_BW3[..., 2]
        clean_BW2 = torch.cat((given_BW2[:, :first], codes_BT2, given_BW2[:, first + T :]), dim=1)
        kind = self.R.device.type
        narrow = precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=narrow):
            cond_BNC = self.conditioner(mel_BNM)
            # the row of sample 2t, or of the last that there is
            row_I = 2 * torch.arange(steps, device=cond_BNC.device)
            row_I = row_I // self.config.conditioning_hop_samples
            row_BI = (row_I * inside_BW[:, first::2][:, :steps]).cummax(dim=1).values
            x_IBE = self._rows_of(given_BW2, clean_BW2, steps)
            stream_B1 = torch.arange(B, device=row_BI.device)[:, None]
            if narrow and kind == "cpu":
                gates_BIG = self.gates(cond_BNC)[stream_B1, row_BI].bfloat16()
                I_GE = torch.cat((self.I_past, self.now_rows()), dim=1).bfloat16()
                gates = F.linear(x_IBE.bfloat16(), I_GE) + gates_BIG.transpose(0, 1)
                h_IBH = recurrence_bf16(gates, self.R, h_BH)
            else:
                with torch.autocast(kind, enabled=False):
                    h_IBH = self._gru(x_IBE, cond_BNC[stream_B1, row_BI].transpose(0, 1), h_BH)
            # a sample's logits come of the state of the step that made it
            a, b = (h.unflatten(-1, (4, 2, -1)) for h in (h_IBH[: T // 2], h_IBH[lag:]))
            y = torch.stack((a[..., 0, :], b[..., 1, :]), dim=-2)
            coarse, fine = (_by_sample(x) for x in self.heads(y.flatten(-3)))
        return coarse.float(), fine.float(), h_IBH[T // 2 - 1]


def _rows(model: ModelConfig, levels: int, E: int) -> nn.Parameter:
    """Two learned tables of rows, or the levels in [-1, 1]: [2, levels, E]."""
    if model.input == "embedding":
        return nn.Parameter(torch.randn(2, levels, E))
    scale_Q1 = (torch.arange(levels) / (levels - 1) * 2 - 1)[:, None]
    return nn.Parameter(scale_Q1.repeat(2, 1, 1), requires_grad=False)


def _stacked(first: nn.Linear, second: nn.Linear, y: Tensor) -> Tensor:
    """Four heads at once, each of its own part: y [..., k, s, H / 8] to logits [..., k, s, 16]."""
    shape, parts = y.shape[:-3], 4
    y_4NU = y.reshape(-1, parts, y.shape[-1]).transpose(0, 1)
    O1, b1, O2, b2 = (
        w.unflatten(0, (parts, -1)) for w in (first.weight, first.bias, second.weight, second.bias)
    )
    hidden = F.relu(torch.baddbmm(b1[:, None], y_4NU, O1.transpose(1, 2)))
    logits_4NQ = torch.baddbmm(b2[:, None], hidden, O2.transpose(1, 2))
    return logits_4NQ.transpose(0, 1).reshape(*shape, 2, 2, NIBBLES)


def _by_sample(logits: Tensor) -> Tensor:
    """Logits [steps, B, k, s, 16] as the samples lie in time: [T, B, k, 16]."""
    return logits.permute(0, 3, 1, 2, 4).flatten(0, 1)
