"""Voices laid out for a kernel, kept as files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wavernn import checkpoint, recipe
from wavernn.kernels.bench import random_voice
from wavernn.kernels.gpu import cache
from wavernn.kernels.packfile import cache_folder

TENSORS = {
    "words": torch.arange(6, dtype=torch.int32).view(2, 3),
    "narrow": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, dtype=torch.int64),
}


@pytest.fixture
def voice(tmp_path, monkeypatch):
    """A voice that came from a file, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "anna.safetensors"
    checkpoint.save(path, random_voice(recipe.load("tiny", ["model.channels=4"])))
    return checkpoint.load(path)


@pytest.fixture
def lay_out():
    """Gives what it's asked for, and counts."""

    def make():
        make.calls += 1
        return TENSORS, {"columns": [1, 2]}

    make.calls = 0
    return make


def same(laid):
    tensors, header = laid
    assert header == {"columns": [1, 2]}
    assert tensors.keys() == TENSORS.keys()
    return all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def files():
    return sorted(path.name for path in cache_folder().iterdir())


def test_a_voice_is_laid_out_once(voice, lay_out):
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert lay_out.calls == 1
    assert files() == [f"anna.resident.{voice.sha256[:16]}.safetensors"]
    # another kernel has a file of its own
    cache.laid_out(voice, "group-56x16", lay_out)
    assert lay_out.calls == 2 and len(files()) == 2


def test_a_voice_in_memory_is_not_kept(voice, lay_out):
    assert same(cache.laid_out(replace(voice, path=None), "resident", lay_out))
    assert not cache_folder().exists()


def test_another_voice_of_the_name_takes_its_place(voice, lay_out):
    cache.laid_out(voice, "resident", lay_out)
    other = replace(voice, tensors={**voice.tensors, "R": voice.tensors["R"] + 1})
    cache.laid_out(other, "resident", lay_out)
    assert lay_out.calls == 2
    assert files() == [f"anna.resident.{other.sha256[:16]}.safetensors"]


def damaged(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("change", [damaged, lambda content: content[:50], lambda content: b""])
def test_what_is_damaged_is_made_again(voice, lay_out, caplog, change):
    cache.laid_out(voice, "resident", lay_out)
    (path,) = (cache_folder() / name for name in files())
    path.write_bytes(change(path.read_bytes()))
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert lay_out.calls == 2
    assert "laying the voice out again" in caplog.text
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert lay_out.calls == 2


def test_another_version_is_made_again(voice, lay_out, monkeypatch):
    cache.laid_out(voice, "resident", lay_out)
    monkeypatch.setattr(cache, "VERSION", "other")
    cache.laid_out(voice, "resident", lay_out)
    assert lay_out.calls == 2


def test_a_cache_that_cant_be_written_is_no_error(voice, lay_out, monkeypatch):
    Path(os.environ["XDG_CACHE_HOME"]).write_text("not a folder")
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert same(cache.laid_out(voice, "resident", lay_out))
    assert lay_out.calls == 2
