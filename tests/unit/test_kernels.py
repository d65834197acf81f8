import logging
import sys
from types import ModuleType

import pytest
import torch

from wavernn import kernels
from wavernn.errors import BackendUnavailable
from wavernn.kernels import reference


@pytest.fixture
def plant(monkeypatch):
    """Puts a backend of this name in place that can't run for a reason, or can."""

    def put(name, reason):
        module = ModuleType(f"wavernn.kernels.{name}")
        module.unavailable = lambda: reason
        module.Synthesizer = type("Synthesizer", (), {})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module.Synthesizer

    return put


def test_the_reference_always_runs():
    assert kernels.unavailable("reference") is None
    assert kernels.load("reference") is reference.Synthesizer


def test_backends_are_tried_from_the_fastest_on():
    assert list(kernels.BACKENDS) == ["gpu", "cpu", "reference"]


@pytest.mark.parametrize("ask", [kernels.load, kernels.unavailable])
def test_an_unknown_name_is_refused(ask):
    with pytest.raises(BackendUnavailable, match="unknown backend cuda; known: gpu, cpu, ref"):
        ask("cuda")


def test_a_backend_that_cant_run_is_refused_with_its_reason(plant):
    plant("gpu", "no GPU was found; choose cpu")
    assert kernels.unavailable("gpu") == "no GPU was found; choose cpu"
    with pytest.raises(BackendUnavailable, match="no GPU was found; choose cpu"):
        kernels.load("gpu")


def test_a_backend_that_isnt_there_is_refused(monkeypatch):
    monkeypatch.setitem(kernels.BACKENDS, "cpu", "wavernn.kernels.of_another_release")
    assert "this release has no cpu engine" in kernels.unavailable("cpu")
    with pytest.raises(BackendUnavailable, match="this release has no cpu engine, use reference"):
        kernels.load("cpu")


def test_a_broken_backend_isnt_called_absent(monkeypatch, tmp_path):
    # its own import fails, which is a fault and not a choice
    (tmp_path / "half_installed.py").write_text("import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(kernels.BACKENDS, "cpu", "half_installed")
    for ask in (kernels.load, kernels.unavailable):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
            ask("cpu")


def test_auto_takes_the_first_that_runs_and_says_why(plant, caplog):
    plant("gpu", "no GPU was found")
    expected = plant("cpu", None)
    with caplog.at_level(logging.INFO):
        assert kernels.load("auto") is expected
    assert caplog.messages == ["backend cpu; not gpu: no GPU was found"]


def test_auto_names_every_reason(plant, caplog):
    plant("gpu", "no GPU was found")
    plant("cpu", "no AVX2")
    with caplog.at_level(logging.INFO):
        assert kernels.load("auto") is reference.Synthesizer
    assert caplog.messages == ["backend reference; not gpu: no GPU was found; not cpu: no AVX2"]


def test_auto_takes_the_fastest_without_excuses(plant, caplog):
    expected = plant("gpu", None)
    with caplog.at_level(logging.INFO):
        assert kernels.load("auto") is expected
    assert caplog.messages == ["backend gpu"]


def test_a_named_backend_is_loaded_in_silence(caplog):
    with caplog.at_level(logging.INFO):
        kernels.load("reference")
    assert caplog.messages == []


def test_a_draw_stays_in_range_where_the_sum_rounds_below_it():
    draw = 1 - 2**-24
    normal = (torch.randn(256, generator=torch.Generator().manual_seed(i)) for i in range(500))
    short = next(x for x in normal if torch.softmax(x, dim=0).cumsum(0)[-1] < draw)
    assert reference.inverse_cdf(short, draw) == 255
