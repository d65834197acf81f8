"""Synthesizers on an emulated ARM processor, and small voices for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.errors import BackendUnavailable
from wavernn.kernels import cpu, native
from wavernn.model import WaveRNN
from wavernn.sparse import block_mask


@pytest.fixture
def on(
    remote: Any, absent: Callable[[str, str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., cpu.Synthesizer]:
    """Makes a synthesizer of an ARM instruction set, or of this machine's baseline for None."""
    try:
        here = native.library()
    except BackendUnavailable as error:
        absent("cpu", str(error))

    def make(isa: str | None, voice: Checkpoint, streams: int, format: str) -> cpu.Synthesizer:
        monkeypatch.setattr(native, "library", lambda: remote if isa else here)
        return cpu.Synthesizer(voice, streams, format, isa=isa or "baseline")

    return make


@pytest.fixture(scope="session")
def make_voice() -> Callable[..., Checkpoint]:
    """Makes a voice with random weights, pruned to `density`; fields are those of ModelConfig."""

    def make(density: float = 1.0, **fields: Any) -> Checkpoint:
        sizes = {"embedding": 4, "channels": 4, "layers": 0, "conditioning_hop_samples": 8}
        model = replace(ModelConfig(), **(sizes | fields))
        config = Config(mel=MelConfig(bands=4), model=model)
        rng, tensors = np.random.default_rng(model.hidden), WaveRNN(model, config.mel).state_dict()
        for name, like in sorted(tensors.items()):
            if name.startswith(("R", "I_", "O")) or (name == "rows" and model.input == "embedding"):
                scale = 0.5 if like.ndim == 1 else 2 / like.shape[-1] ** 0.5
                tensors[name] = torch.from_numpy(rng.normal(0, scale, like.shape)).float()
        matrices = [*tensors["R"].chunk(3), *(tensors[f"O{k}.weight"] for k in range(1, 5))]
        for matrix in matrices if density < 1 else []:
            matrix *= block_mask(matrix, density, PruneConfig())
        return Checkpoint(config, tensors)

    return make
