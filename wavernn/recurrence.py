"""The teacher-forced recurrence with bfloat16 products, for training on a CPU.

torch's own GRU multiplies in float32, several times slower than bfloat16 on a core that has the dot
product for it. Here products and their sums with the gate input are bfloat16, gates and state
float32, and the gradient of R is one product over all steps. Everything else about the cell is as
in `model.WaveRNN`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _tanh_(x: Tensor) -> Tensor:
    # torch's tanh on a CPU takes ten times as long as its sigmoid
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_TBG: Tensor, R_GH: Tensor, h_BH: Tensor) -> Tensor:
        T, B, G = gates_TBG.shape
        H = G // 3
        R_HG = R_GH.bfloat16().t().contiguous()
        # one row more than steps: the state before each step and the one after the last
        state = torch.empty(T + 1, B, H)
        state[0] = h_BH
        narrow = torch.empty(T + 1, B, H, dtype=torch.bfloat16)
        narrow[0] = h_BH
        gates = torch.empty(T, B, G)
        inner = torch.empty(T, B, H, dtype=torch.bfloat16)
        product = torch.empty(B, G, dtype=torch.bfloat16)
        for t in range(T):
            torch.mm(narrow[t], R_HG, out=product)
            u_r, e = gates[t, :, : 2 * H], gates[t, :, 2 * H :]
            u, r = u_r[:, :H], u_r[:, H:]
            torch.add(gates_TBG[t, :, : 2 * H], product[:, : 2 * H], out=u_r)
            u_r.sigmoid_()
            inner[t].copy_(product[:, 2 * H :])
            torch.mul(r, inner[t], out=e)
            _tanh_(e.add_(gates_TBG[t, :, 2 * H :]))
            # h' = u h + (1 - u) e
            torch.lerp(e, state[t], u, out=state[t + 1])
            narrow[t + 1].copy_(state[t + 1])
        ctx.save_for_backward(state, narrow, gates, inner, R_GH)
        return state[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state, narrow, gates, inner, R_GH = ctx.saved_tensors
        (d_out,) = grads
        T, B, H = d_out.shape
        G = 3 * H
        R_bf16 = R_GH.bfloat16()
        d_gates = torch.empty(T, B, G, dtype=torch.bfloat16)
        d_product = torch.empty(T, B, G, dtype=torch.bfloat16)
        d_h = torch.zeros(B, H)
        through_R = torch.empty(B, H, dtype=torch.bfloat16)
        d_pre, scratch, one = torch.empty(B, G), torch.empty(B, H), torch.ones(())
        d_u, d_r, d_e = d_pre[:, :H], d_pre[:, H : 2 * H], d_pre[:, 2 * H :]
        for t in reversed(range(T)):
            d_h += d_out[t]
            u, r, e = gates[t, :, :H], gates[t, :, H : 2 * H], gates[t, :, 2 * H :]
            # through tanh: d_h (1 - u) (1 - e^2)
            torch.addcmul(one, e, e, value=-1, out=scratch)
            torch.addcmul(d_h, d_h, u, value=-1, out=d_e)
            d_e.mul_(scratch)
            # through the update gate: d_h (h - e) u (1 - u)
            torch.sub(state[t], e, out=scratch)
            scratch.mul_(d_h).mul_(u)
            torch.addcmul(scratch, scratch, u, value=-1, out=d_u)
            # through the reset gate: d_e (R_e h) r (1 - r)
            torch.mul(d_e, inner[t], out=scratch)
            scratch.mul_(r)
            torch.addcmul(scratch, scratch, r, value=-1, out=d_r)
            d_gates[t].copy_(d_pre)
            d_e.mul_(r)
            d_product[t].copy_(d_pre)
            torch.mm(d_product[t], R_bf16, out=through_R)
            d_h.mul_(u).add_(through_R)
        d_R = d_product.view(T * B, G).t() @ narrow[:-1].view(T * B, H)
        return d_gates, d_R.float(), d_h


def recurrence_bf16(gates_TBG: Tensor, R_GH: Tensor, h_BH: Tensor) -> Tensor:
    """Runs h' = u h + (1 - u) e over T steps and returns every state: float32 [T, B, H].

    `gates_TBG` is all that enters the gates but R h, float32 or bfloat16, order u, r, e; `R_GH`
    and `h_BH` are float32. Source: Kalchbrenner et al. 2018, equation 2.
    """
    result: Tensor = _Recurrence.apply(gates_TBG, R_GH, h_BH)  # type: ignore[no-untyped-call]
    return result
