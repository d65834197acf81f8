from pathlib import Path

import pytest

from wavernn import checkpoint, voices
from wavernn.errors import CheckpointError
from wavernn.voices import DEFAULT, find, open_voice, open_voices


@pytest.fixture
def shipped(monkeypatch, tmp_path, voice):
    """A folder with the default voice and another, and an empty one to be in."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (DEFAULT, "other"):
        checkpoint.save(folder / f"{name}.safetensors", voice)
    monkeypatch.setattr(voices, "FOLDER", folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_voices_are_found_by_name(shipped, voice):
    assert find("other") == shipped / "other.safetensors"
    assert find(DEFAULT) == find("default") == shipped / f"{DEFAULT}.safetensors"
    assert open_voice("default").sha256 == open_voice("other").sha256 == voice.sha256


def test_a_path_is_taken_as_it_is(shipped, voice):
    checkpoint.save("mine.safetensors", voice)
    Path("mine.safetensors").rename("mine")
    assert find("mine") == Path("mine")
    assert open_voice("./mine").sha256 == voice.sha256
    assert find("gone/a.safetensors") == Path("gone/a.safetensors")


@pytest.mark.parametrize("name", ["nobody", "Other", "", "x" * 300, "gone/other"])
def test_an_unknown_voice_is_named_with_those_there_are(shipped, name):
    sentence = f"unknown voice {name}; shipped: {DEFAULT}, other; or give the path of a .safetensor"
    with pytest.raises(CheckpointError, match=sentence):
        open_voice(name)


def test_without_voices_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(voices, "FOLDER", tmp_path / "gone")
    with pytest.raises(CheckpointError, match="unknown voice default; shipped: none; or give"):
        open_voice("default")


def test_a_path_that_leads_nowhere_is_named(shipped):
    with pytest.raises(CheckpointError, match=r"no checkpoint at gone\.safetensors; give the path"):
        open_voice("gone.safetensors")


def test_a_folder_is_no_voice(shipped, voice):
    Path("default").mkdir()
    assert open_voice("default").sha256 == voice.sha256
    Path("nobody").mkdir()
    with pytest.raises(CheckpointError, match="unknown voice nobody; shipped: "):
        open_voice("nobody")
    Path("a.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"can't read checkpoint a\.safetensors: Is a dir"):
        open_voice("a.safetensors")


def test_the_folder_is_that_of_the_source_tree():
    root = Path(voices.__file__).resolve().parents[1]
    assert root / "checkpoints" == voices.FOLDER


def test_several_voices_are_told_apart_by_their_files(shipped, voice):
    for run in ("one", "two"):
        Path(run).mkdir()
        checkpoint.save(Path(run, "checkpoint.safetensors"), voice)
    names = ["other", "one/checkpoint.safetensors", "two/checkpoint.safetensors"]
    assert list(open_voices(names)) == ["other", "one", "two"]
    assert open_voices([]) == {}
    with pytest.raises(CheckpointError, match="two voices are called other; give one file another"):
        open_voices(["other", str(shipped / "other.safetensors")])
