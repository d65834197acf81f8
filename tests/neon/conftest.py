"""The engine on an emulated ARM processor, and small voices for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.errors import BackendUnavailable
from wavernn.kernels import cpu, cpu_subscale, native
from wavernn.model import WaveRNN
from wavernn.sparse import block_mask


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start_remote(
    absent: Callable[[str, str], NoReturn], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """Starts the emulator; arguments are its options."""
    module = _module(Path(__file__).with_name("remote.py"))
    if reason := module.unavailable():
        absent("neon", reason)
    folder, started = tmp_path_factory.getbasetemp(), []
    # workers of one test run have theirs side by side
    program = module.build(folder.parent if "popen-gw" in folder.name else folder)

    def start(*options: str) -> Any:
        started.append(module.Remote(module.EMULATOR, *options, str(program)))
        return started[-1]

    yield start
    for remote in started:
        remote.close()


@pytest.fixture(scope="session")
def remote(start_remote: Callable[..., Any]) -> Any:
    """What `native.library()` is on an ARM processor with every extension."""
    return start_remote("-cpu", "max")


@pytest.fixture
def library(
    remote: Any, absent: Callable[[str, str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str | None], str]:
    """Takes the library of an ARM instruction set, or this machine's for None; says which runs."""
    try:
        here = native.library()
    except BackendUnavailable as error:
        absent("cpu", str(error))

    def take(isa: str | None) -> str:
        monkeypatch.setattr(native, "library", lambda: remote if isa else here)
        return isa or "baseline"

    return take


@pytest.fixture
def on(library: Callable[[str | None], str]) -> Callable[..., cpu.Synthesizer]:
    """Makes a synthesizer of an ARM instruction set, or of this machine's baseline for None."""

    def make(isa: str | None, voice: Checkpoint, streams: int, format: str) -> cpu.Synthesizer:
        return cpu.Synthesizer(voice, streams, format, isa=library(isa))

    return make


@pytest.fixture
def utterance_on(library: Callable[[str | None], str]) -> Callable[..., cpu_subscale.Synthesizer]:
    """Does the same for a subscale voice."""

    def make(isa: str | None, voice: Checkpoint, format: str) -> cpu_subscale.Synthesizer:
        return cpu_subscale.Synthesizer(voice, format, isa=library(isa))

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
            learned = ("R", "I_", "O", "X", "context.")
            if name.startswith(learned) or (name == "rows" and model.input == "embedding"):
                scale = 0.5 if like.ndim == 1 else 2 / like.shape[-1] ** 0.5
                tensors[name] = torch.from_numpy(rng.normal(0, scale, like.shape)).float()
        matrices = [*tensors["R"].chunk(3), *(tensors[f"O{k}.weight"] for k in range(1, 5))]
        for matrix in matrices if density < 1 else []:
            matrix *= block_mask(matrix, density, PruneConfig())
        return Checkpoint(config, tensors)

    return make
