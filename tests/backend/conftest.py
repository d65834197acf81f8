"""The backends, what each is held to, and voices to run on them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig
from wavernn.fused import network
from wavernn.kernels import native
from wavernn.kernels.gpu import resident_pack, weights
from wavernn.rng import uniforms

State = dict[str, np.ndarray]
MEL = MelConfig(bands=4)
ISAS = ("avx512vnni", "avx512", "avx2", "neon", "baseline")


def _beside(name: str) -> ModuleType:
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


exact, half, quantised, oracle = map(_beside, ("exact", "half", "quantised", "oracle"))
# what a format makes of a voice, where it's more than other weights
MODELS = {"int8": quantised.Quantised, "float16": half.Half}


@dataclass(frozen=True)
class Backend:
    """One backend in one format, and what it is held to."""

    name: str
    # what its weights are held in
    format: str
    # what its Synthesizer takes
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> torch.dtype:
        """The numbers that it computes with, where they aren't whole."""
        return torch.float64 if self.format == "float64" else torch.float32

    def unavailable(self) -> str | None:
        if self.options.get("device") == "cpu":
            return None
        return kernels.unavailable(self.name)

    def synthesizer(self, voice: Checkpoint, streams: int, **options: Any) -> kernels.Synthesizer:
        module = importlib.import_module(kernels.BACKENDS[self.name])
        return module.Synthesizer(voice, streams, **{**self.options, **options})

    def allowed(self, plain_error: float = 0.0) -> float:
        """The error that may remain where a plain program has `plain_error`."""
        # 1e-5 is rounding noise of float32; float64 has no claim to it
        return 2 * plain_error + (1e-10 if self.precision == torch.float64 else 1e-5)

    def plain(
        self, voice: Checkpoint, work: Work, codes_BT2: np.ndarray, state: State | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores known codes plainly in this format: logits [B, T, 2, Q] and h [B, H].

        Plain PyTorch at this precision, or the quantised model in NumPy.
        """
        if self.format not in MODELS:
            voice = self.runs(voice)
            return oracle.plain_torch(voice, work, codes_BT2, self.precision, state)
        _, logits, after = self.oracle(voice)(work, state, codes_BT2)
        return logits, after["h"]

    def oracle(self, voice: Checkpoint) -> Any:
        """What this backend would be without rounding: an oracle of the model that it runs."""
        model = MODELS.get(self.format, exact.Exact)
        return oracle.Oracle(voice, model(self.runs(voice)))

    def runs(self, voice: Checkpoint) -> Checkpoint:
        """The voice with the weights that this backend really has, where they are rounded."""
        if self.options.get("kernel") == "resident":
            return resident_pack.effective(voice)
        if self.format in ("bfloat16", "float16"):
            return weights.rounded(voice, self.format)
        return voice

    def misdrawn(
        self,
        logits: np.ndarray,
        uniform: np.ndarray,
        codes: np.ndarray,
        temperature: float = 1.0,
    ) -> int:
        """Counts codes that an edge within rounding of the draw explains; others are refused."""
        expected = oracle.draw(logits, uniform)
        # an error of the logits moves an edge by half of it at most; the sum rounds as well
        slack = 0 if self.precision == torch.float64 else 2 * self.allowed() / temperature
        wrong = np.argwhere(expected != codes)
        for place in map(tuple, wrong):
            edges = oracle.cdf(logits[place])
            low, high = sorted((int(expected[place]), int(codes[place])))
            assert np.abs(edges[low:high] - uniform[place]).max() <= slack
        return len(wrong)


BACKENDS = {
    "gpu-resident": Backend("gpu", "bfloat16", {"kernel": "resident"}),
    "gpu-group": Backend("gpu", "float16", {"kernel": "group"}),
    "gpu-group-64": Backend("gpu", "float16", {"kernel": "group-64"}),
    "gpu-tagged": Backend("gpu", "bfloat16", {"kernel": "tagged"}),
    "gpu-graph": Backend("gpu", "float32", {"kernel": "graph"}),
    # the same step as it is captured for a GPU
    "gpu-graph-eager": Backend("gpu", "float32", {"kernel": "graph", "device": "cpu"}),
    "reference": Backend("reference", "float64"),
    "reference-float32": Backend("reference", "float32", {"format": "float32"}),
} | {
    f"cpu-{format}-{isa}": Backend("cpu", format, {"format": format, "isa": isa})
    for format in ("int8", "float32")
    for isa in ISAS
}


@pytest.fixture(scope="session", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, absent: Callable[[str, str], NoReturn]) -> Backend:
    wanted: Backend = BACKENDS[request.param]
    reason = wanted.unavailable()
    if reason is not None:
        absent(wanted.name, reason)
    isa = wanted.options.get("isa")
    if isa and isa not in native.isas():
        # no machine has them all
        pytest.skip(f"this machine doesn't run {isa}")
    return wanted


@pytest.fixture(scope="session")
def isas(absent: Callable[[str, str], NoReturn]) -> tuple[str, ...]:
    """The instruction sets of the native engine that run here, best first."""
    reason = kernels.unavailable("cpu")
    if reason is not None:
        absent("cpu", reason)
    return native.isas()


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
        tensors = network(config.model, config.mel).state_dict()
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


@pytest.fixture(scope="session")
def make_oracle() -> Callable[[Checkpoint], Any]:
    """The equations of the paper for a voice, in float64, whatever the backend's format."""
    return lambda voice: oracle.Oracle(voice, exact.Exact(voice))


@pytest.fixture(scope="session")
def plain_torch() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return oracle.plain_torch


@pytest.fixture
def check_draws(backend: Backend) -> Callable[..., np.ndarray]:
    """Runs sample by sample and holds each to the oracle, from the state that the backend had.

    A draw within rounding of an edge is counted, no more.
    """

    def compare(voice: Checkpoint, work: Work, temperature: float = 1.0) -> np.ndarray:
        B, T, _ = work.uniform_BT2.shape
        synthesizer = backend.synthesizer(voice, B)
        before, codes, h = synthesizer.state(), np.empty((B, T, 2), np.uint8), []
        for t in range(T):
            rows, draws = work.rows(t, t + 1), work.uniform_BT2[:, t : t + 1]
            drawn = synthesizer.run(rows, draws, temperature=temperature)
            assert drawn.dtype == np.uint8
            codes[:, t] = drawn[:, 0]
            h.append(synthesizer.state()["h"])
        h_TBH = np.stack(h)
        exact_TBH, logits = backend.oracle(voice).steps(work, before, h_TBH, codes)
        # one step makes little of the noise that is allowed
        assert np.abs(h_TBH - exact_TBH).max() <= backend.allowed() / 10
        on_edges = backend.misdrawn(logits / temperature, work.uniform_BT2, codes, temperature)
        assert on_edges <= codes.size // 1000
        whole = backend.synthesizer(voice, B)
        drawn = whole.run(work.gates_BNG, work.uniform_BT2, temperature=temperature)
        assert (drawn == codes).all()
        return codes

    return compare
