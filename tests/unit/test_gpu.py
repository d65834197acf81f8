"""What the GPU engine says of a machine and of a voice, without a GPU."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn import kernels, recipe
from wavernn.errors import BackendUnavailable
from wavernn.kernels import gpu
from wavernn.kernels.bench import random_voice
from wavernn.kernels.gpu.graph import Graph
from wavernn.kernels.gpu.launcher import Synthesizer
from wavernn.rng import uniforms

CPU = torch.device("cpu")
TINY = ["model.channels=4", "model.layers=0"]


@pytest.fixture(scope="module")
def voice():
    return random_voice(recipe.load("tiny", TINY))


@pytest.fixture
def device(monkeypatch):
    """Pretends that there is a GPU; arguments are its name and its compute capability."""

    def pretend(name, capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return pretend


def test_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = kernels.unavailable("gpu")
    assert reason.startswith("the gpu engine needs an NVIDIA GPU, and torch ")
    assert reason.endswith(" sees none")
    assert ("without CUDA" in reason) == (torch.version.cuda is None)
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA GPU"):
        kernels.load("gpu")


def test_a_gpu_that_is_too_old(device):
    device("Tesla P100", (6, 0))
    assert gpu.unavailable() == (
        "the gpu engine needs a GPU of compute capability 8.0, Tesla P100 has 6.0"
    )


def test_a_gpu_without_triton(device, monkeypatch):
    device("NVIDIA H200", (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu.unavailable() == "the gpu engine needs Triton: pip install 'wavernn[gpu]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert gpu.unavailable() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kernel": "fast"},
            "unknown kernel fast; known: resident, group, group-64, tagged, graph",
        ),
        ({"format": "int8"}, "the gpu engine has no format int8; known: bfloat16, float16, float3"),
        (
            {"kernel": "group", "format": "bfloat16"},
            "the group kernel has weights in float16 alone",
        ),
    ],
    ids=str,
)
def test_what_no_kernel_is(voice, options, message):
    with pytest.raises(BackendUnavailable, match=message):
        Synthesizer(voice, 1, device="cpu", **options)


def test_a_voice_that_a_kernel_cant_hold(voice):
    pytest.importorskip("triton", reason="Triton isn't installed: pip install 'wavernn[gpu]'")
    loud = replace(voice, tensors={**voice.tensors, "rows": voice.tensors["rows"] * 1e6})
    for kernel in ("resident", "group", "tagged"):
        with pytest.raises(
            BackendUnavailable, match=f"the {kernel} kernel can't run this voice: .* of float16"
        ):
            Synthesizer(loud, 1, kernel=kernel, device="cpu")


def test_threads_are_at_least_one(voice):
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Synthesizer(voice, 1, threads=0, kernel="graph", device="cpu")


def chosen(caplog, recipe_name, overrides, **options):
    caplog.clear()
    caplog.set_level(logging.INFO)
    voice = random_voice(recipe.load(recipe_name, [*TINY, *overrides]))
    synthesizer = Synthesizer(voice, 1, device="cpu", **options)
    (message,) = caplog.messages
    return synthesizer.kernel.name, synthesizer.format, message


def test_the_voice_decides(caplog):
    pytest.importorskip("triton", reason="Triton isn't installed: pip install 'wavernn[gpu]'")
    name, format, why = chosen(caplog, "sparse-512", [])
    assert (name, format) == ("resident", "bfloat16")
    assert why == "kernel resident: all weights fit the registers of a multiprocessor"
    name, format, why = chosen(caplog, "sparse-1024", [])
    assert (name, format) == ("resident", "bfloat16")
    assert "KiB of weights are read from the caches each sample" in why
    name, format, why = chosen(caplog, "dense-896", [])
    assert (name, format) == ("group", "float16")
    assert "don't fit a multiprocessor" in why


def test_the_format_decides(caplog):
    pytest.importorskip("triton", reason="Triton isn't installed: pip install 'wavernn[gpu]'")
    assert chosen(caplog, "tiny", [], format="float32") == (
        "graph",
        "float32",
        "kernel graph: it has weights in float32",
    )
    assert chosen(caplog, "tiny", [], format="float16")[0] == "group"
    assert chosen(caplog, "dense-896", [], format="bfloat16")[0] == "resident"
    assert chosen(caplog, "tiny", [], kernel="tagged")[2] == "kernel tagged: asked for"


@pytest.mark.parametrize("count", [1, 255, 256, 257])
def test_draws_are_those_of_rng(count):
    pytest.importorskip("triton", reason="Triton isn't installed: pip install 'wavernn[gpu]'")
    from wavernn.kernels.gpu import draws

    seeds = np.array([0, 1, 2**64 - 1, 2**32, 0x0123456789ABCDEF], np.uint64)
    samples = torch.tensor([0, 5, 2**32 - 3, 2**40, 7])
    expected = [
        uniforms(int(seed), int(start), count) for seed, start in zip(seeds, samples, strict=True)
    ]
    assert (draws.uniforms(seeds, samples, count).numpy() == np.stack(expected)).all()


def test_runs_longer_than_a_launch_are_one(voice, monkeypatch):
    gates = torch.randn(3, 2, voice.config.model.gate_rows)
    seeds = np.arange(3, dtype=np.uint64)
    # fewer lanes than streams
    whole, cut = (
        Synthesizer(voice, 3, kernel=Graph(voice, "cpu", lanes=2), device="cpu") for _ in range(2)
    )
    audio = whole.speak(gates, 100, seeds)
    monkeypatch.setattr("wavernn.kernels.gpu.launcher.CHUNK", 33)
    assert (cut.speak(gates, 100, seeds) == audio).all()
    assert all((cut.state()[name] == array).all() for name, array in whole.state().items())
