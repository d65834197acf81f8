"""Runs a model's equations sample by sample, and torch's own GRU, to judge a backend by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from wavernn.checkpoint import Checkpoint

State = dict[str, np.ndarray]


def start(streams: int, hidden: int) -> State:
    """The state of streams before their first sample, as far as an oracle has one."""
    return {
        "h": np.zeros((streams, hidden)),
        "code": np.tile(np.array([128, 0]), (streams, 1)),
        "sample": np.zeros(streams, np.int64),
    }


def cdf(logits_Q: np.ndarray) -> np.ndarray:
    mass_Q = np.exp(logits_Q - logits_Q.max(-1, keepdims=True))
    return np.cumsum(mass_Q, axis=-1) / mass_Q.sum(-1, keepdims=True)


def draw(logits_Q: np.ndarray, uniform: np.ndarray | float) -> np.ndarray:
    below = cdf(logits_Q) <= np.asarray(uniform)[..., None]
    return np.minimum(below.sum(-1), 255)


class Oracle:
    """The sample loop over a model's `cell` and `head`: `exact.Exact`, `quantised.Quantised`."""

    def __init__(self, voice: Checkpoint, model: Any) -> None:
        self.model, self.hop = model, voice.config.model.conditioning_hop_samples

    def _logits(self, h: np.ndarray, half: int) -> np.ndarray:
        y = np.split(h, 2, axis=-1)[half]
        return self.model.head(y, *(("O1", "O2"), ("O3", "O4"))[half])

    def _gates(self, work: Any, state: State, t: np.ndarray | int) -> np.ndarray:
        """The gate input of each stream's sample t from a state on."""
        row = (state["sample"] % self.hop + t) // self.hop
        return work.gates_BNG.double().numpy()[np.arange(len(state["sample"])), row]

    def __call__(
        self,
        work: Any,
        state: State | None = None,
        codes_BT2: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray, State]:
        """Samples, or takes known codes: codes [B, T, 2], logits [B, T, 2, Q] and the state."""
        B, T, _ = (work.uniform_BT2 if codes_BT2 is None else codes_BT2).shape
        state = state or start(B, self.model.H)
        h, past = state["h"].astype(np.float64), state["code"].astype(np.int64)
        codes, logits = np.empty((B, T, 2), np.uint8), np.empty((B, T, 2, 256))
        for t in range(T):
            gate_BG = self._gates(work, state, t)
            # the coarse half's rows of c_t are zero, so that any c will do
            now, before = np.zeros(B, np.int64), h
            for half in range(2):
                h = self.model.cell(before, past, now, gate_BG)
                logits[:, t, half] = self._logits(h, half)
                if codes_BT2 is None:
                    warm = logits[:, t, half] / temperature
                    codes[:, t, half] = draw(warm, work.uniform_BT2[:, t, half])
                else:
                    codes[:, t, half] = codes_BT2[:, t, half]
                now = codes[:, t, 0].astype(np.int64)
            past = codes[:, t].astype(np.int64)
        return codes, logits, {"h": h, "code": past, "sample": state["sample"] + T}

    def steps(
        self, work: Any, state: State, h_TBH: np.ndarray, codes_BT2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each sample is to be after the one before it: h [T, B, H], logits [B, T, 2, Q].

        `h_TBH` are the states that a backend went through, so that errors don't add up.
        """
        T, B, H = h_TBH.shape
        past_TB2 = np.concatenate((state["code"][None], codes_BT2.swapaxes(0, 1)[:-1]))
        before_TBH = np.concatenate((state["h"][None], h_TBH[:-1])).astype(np.float64)
        gates_TBG = np.stack([self._gates(work, state, t) for t in range(T)])
        flat = (before_TBH, past_TB2.astype(np.int64), gates_TBG)
        h, past, gates = (array.reshape(T * B, -1) for array in flat)
        next_NH = self.model.cell(h, past, codes_BT2[..., 0].T.ravel().astype(np.int64), gates)
        after_NH = h_TBH.reshape(T * B, H).astype(np.float64)
        logits = np.stack([self._logits(after_NH, half) for half in range(2)], axis=1)
        return next_NH.reshape(T, B, H), logits.reshape(T, B, 2, 256).swapaxes(0, 1)


@torch.no_grad()
def plain_torch(
    voice: Checkpoint,
    work: Any,
    codes_BT2: np.ndarray,
    dtype: torch.dtype,
    state: State | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores known codes on torch's own GRU: logits [B, T, 2, Q] and h after the last [B, H]."""
    model, G = voice.model(dtype), voice.config.model.gate_rows
    # the conditioning is the gate input itself, a row a sample
    model.config = replace(model.config, conditioning_hop_samples=1)
    model.gates = nn.Linear(G, G).to(dtype)
    model.gates.weight.copy_(torch.eye(G))
    model.gates.bias.zero_()
    B, T, _ = codes_BT2.shape
    state = state or start(B, model.config.hidden)
    time_BT = torch.from_numpy(state["sample"][:, None] % work.hop + np.arange(T)) // work.hop
    gates_BTG = work.gates_BNG[torch.arange(B)[:, None], time_BT].to(dtype)
    codes_TB2 = torch.from_numpy(codes_BT2).long().transpose(0, 1)
    past_1B2 = torch.from_numpy(state["code"]).long()[None]
    previous_TB2 = torch.cat((past_1B2, codes_TB2[:-1]))
    h_BH = torch.from_numpy(state["h"]).to(dtype)
    h_TBH = model.hidden(previous_TB2, codes_TB2, gates_BTG, h_BH)
    logits_BT2Q = torch.stack(model.heads(h_TBH), dim=2).transpose(0, 1)
    return logits_BT2Q.double().numpy(), h_TBH[-1].double().numpy()
