"""The backends, voices to run on them, and two oracles that share no code with the reference."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import nn

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig
from wavernn.model import WaveRNN
from wavernn.rng import uniforms

State = dict[str, np.ndarray]
MEL = MelConfig(bands=4)


@dataclass(frozen=True)
class Backend:
    """One backend and what it is held to."""

    name: str
    # the numbers that it computes with
    precision: torch.dtype

    def synthesizer(self, voice: Checkpoint, streams: int) -> kernels.Synthesizer:
        return kernels.load(self.name)(voice, streams)

    def allowed(self, plain_error: float) -> float:
        """The error that may remain where plain PyTorch at this precision has `plain_error`."""
        # 1e-5 is rounding noise of float32; float64 has no claim to it
        return 2 * plain_error + (1e-10 if self.precision == torch.float64 else 1e-5)


@pytest.fixture(scope="session", params=list(kernels.BACKENDS))
def backend(request: pytest.FixtureRequest, absent: Callable[[str, str], NoReturn]) -> Backend:
    reason = kernels.unavailable(request.param)
    if reason is not None:
        absent(request.param, reason)
    module = importlib.import_module(kernels.BACKENDS[request.param])
    return Backend(request.param, getattr(module, "PRECISION", torch.float64))


def _weight(name: str, like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    # livelier than a fresh model: peaked distributions, states that move, no chaos
    if name.endswith("bias"):
        scale = 0.5
    elif name == "rows":
        scale = 1.0
    else:
        scale = (1.0 if name[0] in "RI" else 2.0) / like.shape[1] ** 0.5
    return torch.from_numpy(rng.normal(0, scale, like.shape)).float()


@pytest.fixture(scope="session")
def make_voice() -> Callable[..., Checkpoint]:
    """Makes a voice with random weights; arguments are fields of ModelConfig."""

    def make(seed: int = 0, **fields: object) -> Checkpoint:
        sizes = {"hidden": 32, "projection": 16, "embedding": 4, "channels": 4, "layers": 0}
        config = Config(mel=MEL, model=replace(ModelConfig(), **(sizes | fields)))
        rng = np.random.default_rng(seed)
        tensors = WaveRNN(config.model, config.mel).state_dict()
        for name in sorted(tensors):
            if name.startswith(("R", "I_", "O")) or (
                name == "rows" and config.model.input == "embedding"
            ):
                tensors[name] = _weight(name, tensors[name], rng)
        return Checkpoint(config, tensors)

    return make


@dataclass(frozen=True)
class Work:
    """Gate input and draws for B streams of T samples."""

    gates_BNG: torch.Tensor
    uniform_BT2: np.ndarray
    hop: int

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The gate input that `run` wants for samples start .. stop - 1."""
        return self.gates_BNG[:, start // self.hop : max(stop - 1, start) // self.hop + 1]


@pytest.fixture(scope="session")
def make_work() -> Callable[..., Work]:
    def make(
        voice: Checkpoint,
        streams: int,
        samples: int,
        seed: int = 1,
        gates_BNG: torch.Tensor | None = None,
    ) -> Work:
        hop, G = voice.config.model.conditioning_hop_samples, voice.config.model.gate_rows
        if gates_BNG is None:
            noise = np.random.default_rng(seed).normal(0, 1, (streams, -(-samples // hop), G))
            gates_BNG = torch.from_numpy(noise).float()
        uniform = np.stack([uniforms(seed * 1000 + b, 0, samples) for b in range(streams)])
        return Work(gates_BNG, uniform, hop)

    return make


def start(streams: int, hidden: int) -> State:
    """The state of streams before their first sample."""
    return {
        "h": np.zeros((streams, hidden)),
        "code": np.tile(np.array([128, 0]), (streams, 1)),
        "sample": np.zeros(streams, np.int64),
    }


class Oracle:
    """The equations of the paper (section 2) in NumPy, float64, the masked matrix written out."""

    def __init__(self, voice: Checkpoint) -> None:
        w = {name: t.double().numpy() for name, t in voice.tensors.items()}
        self.w, self.hop = w, voice.config.model.conditioning_hop_samples
        self.H = w["R"].shape[1]
        masked = np.zeros((3, 2, self.H // 2, w["I_now"].shape[1]))
        masked[:, 1] = w["I_now"].reshape(3, self.H // 2, -1)
        self.I = np.concatenate((w["I_past"], masked.reshape(3 * self.H, -1)), axis=1)

    def cell(self, h: np.ndarray, c_past: int, f_past: int, c: int, gate: np.ndarray) -> np.ndarray:
        rows = self.w["rows"]
        x = np.concatenate((rows[0, c_past], rows[1, f_past], rows[2, c]))
        Ru, Rr, Re = np.split(self.w["R"] @ h, 3)
        Iu, Ir, Ie = np.split(self.I @ x + gate, 3)
        u, r = (np.tanh((Ru + Iu) / 2) + 1) / 2, (np.tanh((Rr + Ir) / 2) + 1) / 2
        return u * h + (1 - u) * np.tanh(r * Re + Ie)

    def head(self, y: np.ndarray, one: str, two: str) -> np.ndarray:
        w = self.w
        hidden = np.maximum(w[f"{one}.weight"] @ y + w[f"{one}.bias"], 0)
        return w[f"{two}.weight"] @ hidden + w[f"{two}.bias"]

    @staticmethod
    def cdf(logits_Q: np.ndarray) -> np.ndarray:
        mass_Q = np.exp(logits_Q - logits_Q.max())
        return np.cumsum(mass_Q) / mass_Q.sum()

    def draw(self, logits_Q: np.ndarray, uniform: float) -> int:
        return min(int(np.searchsorted(self.cdf(logits_Q), uniform, side="right")), 255)

    def __call__(
        self,
        work: Work,
        state: State | None = None,
        codes_BT2: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray, State]:
        """Samples, or takes known codes: codes [B, T, 2], logits [B, T, 2, Q] and the state."""
        B, T, _ = (work.uniform_BT2 if codes_BT2 is None else codes_BT2).shape
        state = state or start(B, self.H)
        after = {name: np.array(array) for name, array in state.items()}
        codes, logits = np.empty((B, T, 2), np.uint8), np.empty((B, T, 2, 256))
        for b in range(B):
            h, (c, f) = after["h"][b].astype(np.float64), after["code"][b]
            phase = after["sample"][b] % self.hop
            for t in range(T):
                gate = work.gates_BNG[b, (phase + t) // self.hop].double().numpy()
                # the coarse half's rows of c_t are zero, so that any c will do
                y_c = self.cell(h, c, f, 0, gate)[: self.H // 2]
                logits[b, t, 0] = self.head(y_c, "O1", "O2")
                now = self.draw(logits[b, t, 0] / temperature, work.uniform_BT2[b, t, 0])
                now = now if codes_BT2 is None else int(codes_BT2[b, t, 0])
                h = self.cell(h, c, f, now, gate)
                logits[b, t, 1] = self.head(h[self.H // 2 :], "O3", "O4")
                f = self.draw(logits[b, t, 1] / temperature, work.uniform_BT2[b, t, 1])
                f = f if codes_BT2 is None else int(codes_BT2[b, t, 1])
                c = now
                codes[b, t] = c, f
            after["h"][b], after["code"][b] = h, (c, f)
            after["sample"][b] += T
        return codes, logits, after


@pytest.fixture(scope="session")
def make_oracle() -> Callable[[Checkpoint], Oracle]:
    return Oracle


@pytest.fixture(scope="session")
def plain_torch() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Scores known codes on torch's own GRU: logits [B, T, 2, Q] and h after the last [B, H]."""

    @torch.no_grad()
    def score(
        voice: Checkpoint,
        work: Work,
        codes_BT2: np.ndarray,
        dtype: torch.dtype,
        state: State | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
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

    return score
