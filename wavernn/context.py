"""What a sample of a subscale model sees of earlier sub-tensors, as one vector a sample.

Kalchbrenner et al. 2018, section 4: masked dilated convolutions over the sub-tensors z < s, their
steps up to the horizon F, and the index s. Steps are columns of U samples. With phi(n) for what
is known of sample n, zero where n lies outside the utterance:

    e_s[k]    = l_s + sum over d = 1 .. s of W_d phi(U k + s - d)
    x_s,0[k]  = e_s[k]
    x_s,j[k]  = x_s,j-1[k] + relu(V_j x_s,j-1[k - 2^(j-1)] + V'_j x_s,j-1[k] + b_j)
    y_s[i]    = tanh(x_s,J[i + F] + e_s[i])

W counts from the sample that is to be made, so a neighbour is a neighbour in every sub-tensor; the
sums end at sample U k, which is the mask. The last layer sees 2^J columns up to the horizon, and
e_s[i] the present one directly. y_s[i] enters all gates through a matrix X of `model.WaveRNN`.
It is bounded as h is, so that an engine can hold both in the same steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavernn.config import ModelConfig

# of speech after pre-emphasis the standard deviation is about 1/30 of full scale
GAIN = 16.0


def features(codes: Tensor, rows_QE: Tensor) -> Tensor:
    """What is known of samples: whole codes [..., 2] to phi [..., E + 2].

    The learned row of the coarse byte, the 16-bit value times GAIN, the fine byte in [-1, 1].
    """
    c, f = codes[..., 0], codes[..., 1]
    value = ((c << 8 | f) - 32768).to(rows_QE.dtype) * (GAIN / 32768)
    fine = f.to(rows_QE.dtype) / 127.5 - 1
    return torch.cat((F.embedding(c, rows_QE), value[..., None], fine[..., None]), dim=-1)


class Context(nn.Module):
    """The convolutions over earlier sub-tensors, for all samples of a slice at once."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.factor, self.horizon = model.subscale, model.subscale_horizon
        C = model.context_channels
        E = model.embedding if model.input == "embedding" else 1
        # W: the last of its U - 1 taps is d = 1
        self.enter = nn.Conv1d(E + 2, C, self.factor - 1, bias=False)
        # l
        self.lanes = nn.Parameter(torch.randn(self.factor, C) / 4)
        self.layers = nn.ModuleList(
            nn.Conv1d(C, C, 2, dilation=1 << j) for j in range(model.context_layers)
        )
        # columns that the last layer sees
        self.reach = 1 << model.context_layers

    @property
    def before_samples(self) -> int:
        """Samples before a slice that the context or the past of its first column needs."""
        return self.factor * max(self.reach - 1 - self.horizon, 1)

    @property
    def after_samples(self) -> int:
        """Samples after a slice that its last column sees."""
        return self.factor * self.horizon

    def forward(self, around_BW3: Tensor, rows_QE: Tensor) -> Tensor:
        """Maps codes around a slice of I columns to y: [I, U B, C], sub-tensor by sub-tensor.

        `around_BW3` holds coarse and fine byte and whether the sample lies in the utterance, from
        `before_samples` before the slice to `after_samples` after it.
        """
        U, C = self.factor, self.lanes.shape[1]
        B, W, _ = around_BW3.shape
        K, past = W // U, self.before_samples // U
        columns = K - past - self.horizon
        phi = features(around_BW3[..., :2], rows_QE) * around_BW3[..., 2:]
        # a sample sees those before it in its column: taps end one before it
        phi = F.pad(phi.view(B * K, U, -1).transpose(1, 2)[..., :-1], (U - 1, 0))
        e = self.enter(phi) + self.lanes.t()
        e = e.view(B, K, C, U).permute(3, 0, 2, 1).reshape(U * B, C, K)
        x = e
        for layer in self.layers:
            convolved = F.relu(layer(x))
            x = x[..., -convolved.shape[-1] :] + convolved
        # the first of x is the column `reach` - 1; y_0 wants column past + F
        first = past + self.horizon - (self.reach - 1)
        y = torch.tanh(x[..., first : first + columns] + e[..., past : past + columns])
        return y.permute(2, 0, 1)
