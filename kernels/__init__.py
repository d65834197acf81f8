"""Backends that run a voice sample by sample, by name.

A backend is a module with two names: `unavailable() -> str | None`, the reason why it can't run
here, and `Synthesizer`, which the `Backend` protocol describes.
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


def unavailable(name: str) -> str | None:
    """Says why a backend can't run here, or None if it can.

    Raises BackendUnavailable for a name that isn't in BACKENDS.
    """
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend {name}; known: {', '.join(BACKENDS)}, auto")
    try:
        module = importlib.import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        if error.name != BACKENDS[name]:
            raise
        return f"this release has no {name} engine, use reference"
    reason: str | None = module.unavailable()
    return reason


def load(name: str) -> type[Synthesizer]:
    """Returns a backend's `Synthesizer`; "auto" takes the first that runs and logs which and why.

    Raises BackendUnavailable with the reason where the backend that is asked for can't run.
    """
    if name == "auto":
        reasons: dict[str, str] = {}
        for candidate in BACKENDS:
            reason = unavailable(candidate)
            if reason is None:
                others = "".join(f"; not {k}: {v}" for k, v in reasons.items())
                log.info("backend %s%s", candidate, others)
                return load(candidate)
            reasons[candidate] = reason
    reason = unavailable(name)
    if reason is not None:
        raise BackendUnavailable(reason)
    synthesizer: type[Synthesizer] = importlib.import_module(BACKENDS[name]).Synthesizer
    return synthesizer
