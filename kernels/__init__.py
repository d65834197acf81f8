"""Backends that run a voice sample by sample, by name.

A backend is a module with two names: `unavailable() -> str | None`, the reason why it can't run
here, and `Synthesizer`, which the protocol of that name describes. For a subscale voice it has
another module, whose `Synthesizer` is a `SubscaleSynthesizer`.
"""

from __future__ import annotations

import importlib
import logging
from typing import Protocol

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable

log = logging.getLogger(__name__)

BACKENDS = {
    "gpu": "wavernn.kernels.gpu",
    "cpu": "wavernn.kernels.cpu",
    "reference": "wavernn.kernels.reference",
}

# the same for subscale voices, and for those that make two samples a step
SUBSCALE_BACKENDS = {
    "gpu": "wavernn.kernels.gpu.subscale",
    "cpu": "wavernn.kernels.cpu_subscale",
    "reference": "wavernn.kernels.reference_subscale",
}

# what its subscale kernel has room for
GPU_MOST_LANES = 16

FUSED_BACKENDS = {
    "cpu": "wavernn.kernels.cpu_fused",
    "reference": "wavernn.kernels.reference_fused",
}


class Synthesizer(Protocol):
    """The sample loop of B streams; the state of each lives in the object.

    Every function raises ValueError for arrays of the wrong shape or type; `kernels.check`.
    """

    # what the weights are held in
    format: str

    def __init__(
        self, checkpoint: Checkpoint, streams: int, format: str | None = None, threads: int = 1
    ) -> None: ...

    def run(
        self,
        gates_BNG: torch.Tensor,
        uniform_BT2: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Draws the next T samples of each active stream: uint8 codes [B, T, 2], coarse and fine.

        `gates_BNG` begins with the conditioner's row that holds the stream's next sample,
        `uniform_BT2` are the draws in [0, 1). Streams that aren't active keep their state and
        get the code of the sample zero. Logits are divided by `temperature`, one or [B].
        """

    def speak(
        self,
        gates_BNG: torch.Tensor,
        samples: int,
        seed_B: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Does what `run` does and gives audio: float32 [B, T] in [-1, 1), 0 where not active.

        The draws are those of `rng.uniforms` for each stream's seed, uint64 [B], and its samples.
        """

    def score(
        self, gates_BNG: torch.Tensor, codes_BT2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes known codes instead of drawing: coarse and fine logits [B, T, Q]."""

    def reset(self, active_B: np.ndarray | None = None) -> None:
        """Puts streams back to the start: zero state, silence before it."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all streams' state: h [B, H], code [B, 2], sample [B], memory [B].

        `memory` is that of the de-emphasis: the last sample of the audio, before it was clipped.
        """

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state."""


class SubscaleSynthesizer(Protocol):
    """The sample loop of one utterance of a subscale voice, whose sub-tensors are its lanes.

    What is given comes back later: codes or audio of sample n once more than
    n + `Order.lookahead_samples` samples are given, or the last one is. How an utterance is cut
    changes no bit of it.
    """

    # what the weights are held in
    format: str

    def __init__(
        self, checkpoint: Checkpoint, format: str | None = None, threads: int = 1
    ) -> None: ...

    def run(
        self,
        gates_NG: torch.Tensor,
        uniform_T2: np.ndarray,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning and draws of the next T samples; uint8 codes [*, 2] that came due.

        `gates_NG` begins with the conditioner's row that holds the first of them. After `last`
        all samples are due, and only `reset` may follow.
        """

    def speak(
        self,
        gates_NG: torch.Tensor,
        samples: int,
        seed: int,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Does what `run` does with the draws of `rng.uniforms`; float32 audio [*] in [-1, 1)."""

    def score(self, gates_NG: torch.Tensor, codes_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes an utterance's codes instead of drawing, from its start: logits [T, Q] each."""

    def reset(self) -> None:
        """Puts the utterance back to its start: zero states, silence before it."""


def unavailable(name: str, subscale: int = 1, fused: int = 1) -> str | None:
    """Says why a backend can't run a voice of this kind here, or None if it can.

    Raises BackendUnavailable for a name that isn't in BACKENDS.
    """
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend {name}; known: {', '.join(BACKENDS)}, auto")
    kind, modules = _modules(subscale, fused)
    if name not in modules:
        return f"the {name} engine doesn't run {kind} voices; use {' or '.join(modules)}"
    if name == "gpu" and subscale > GPU_MOST_LANES:
        return f"the gpu engine runs up to {GPU_MOST_LANES} sub-tensors, not {subscale}; use cpu"
    try:
        module = importlib.import_module(modules[name])
    except ModuleNotFoundError as error:
        if error.name != modules[name]:
            raise
        return f"this release has no {name} engine, use reference"
    reason: str | None = module.unavailable()
    return reason


def load(name: str) -> type[Synthesizer]:
    """Returns a backend's `Synthesizer`; "auto" takes the first that runs and logs which and why.

    Raises BackendUnavailable with the reason where the backend that is asked for can't run.
    """
    module = importlib.import_module(BACKENDS[_choose(name, 1)])
    synthesizer: type[Synthesizer] = module.Synthesizer
    return synthesizer


def load_subscale(name: str, subscale: int, fused: int = 1) -> type[SubscaleSynthesizer]:
    """Does what `load` does for voices of a subscale above 1, and for fused ones."""
    _, modules = _modules(subscale, fused)
    module = importlib.import_module(modules[_choose(name, subscale, fused)])
    synthesizer: type[SubscaleSynthesizer] = module.Synthesizer
    return synthesizer


def _modules(subscale: int, fused: int) -> tuple[str, dict[str, str]]:
    """What a kind of voice is called, and the modules that run it."""
    if fused > 1:
        return "fused", FUSED_BACKENDS
    return ("subscale", SUBSCALE_BACKENDS) if subscale > 1 else ("plain", BACKENDS)


def _choose(name: str, subscale: int, fused: int = 1) -> str:
    if name == "auto":
        reasons: dict[str, str] = {}
        for candidate in BACKENDS:
            reason = unavailable(candidate, subscale, fused)
            if reason is None:
                others = "".join(f"; not {k}: {v}" for k, v in reasons.items())
                log.info("backend %s%s", candidate, others)
                return candidate
            reasons[candidate] = reason
    reason = unavailable(name, subscale, fused)
    if reason is not None:
        raise BackendUnavailable(reason)
    return name
