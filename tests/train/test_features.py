import errno
import logging
import os
import shutil

import numpy as np
import pytest
import torch

from wavernn.audio import decode, pre_emphasis, read_audio, write_audio
from wavernn.errors import DataError
from wavernn.mel import LogMel
from wavernn.train import features as module
from wavernn.train.features import (
    SILENCE,
    VOICED,
    build,
    find_recordings,
    mel_statistics,
    split,
)

RATE_HZ, HOP = 8_000, 64


@pytest.fixture
def copied(tmp_path, data):
    """A copy of the recordings that a test may spoil."""
    return shutil.copytree(data, tmp_path / "copied")


def refuse(*args):
    raise AssertionError("made again")


def test_codes_are_the_pre_emphasised_recordings_filled_up_to_a_frame(data, features, quick):
    a = quick().model.pre_emphasis
    recordings = find_recordings(data)
    assert features.names == list(recordings) == [f"clip{i}" for i in range(8)]
    for name, first, frames in zip(features.names, features.first, features.frames, strict=True):
        samples_T = read_audio(recordings[name], RATE_HZ)
        assert frames == -(-len(samples_T) // HOP)
        padded_T = np.pad(samples_T, (0, frames * HOP - len(samples_T)))
        code_T = features.codes_T[first * HOP : (first + frames) * HOP]
        decoded_T = decode(np.stack([code_T >> 8, code_T & 255], axis=1))
        filtered_T, _ = pre_emphasis(padded_T, a)
        assert (decoded_T * 32768 == np.rint(filtered_T * 32768)).all()


def test_mels_are_those_of_the_recordings(data, features, quick):
    mel = LogMel(quick().mel)
    for clip, path in enumerate(find_recordings(data).values()):
        first, frames = features.first[clip], features.frames[clip]
        samples_T = read_audio(path, RATE_HZ)
        mel_NM = mel(torch.from_numpy(samples_T)[None])[0].numpy()
        assert (features.mel_NM[first : first + frames] == mel_NM).all()


def test_labels_tell_silence_from_tones_and_noise(features):
    for first, frames in zip(features.first, features.frames, strict=True):
        label_N = features.label_N[first : first + frames]

        def share(label, start, stop, label_N=label_N, frames=frames):
            return np.mean(label_N[int(start * frames) : int(stop * frames)] == label)

        assert share(SILENCE, 0, 0.15) > 0.9
        assert share(SILENCE, 0.85, 1) > 0.9
        assert share(SILENCE, 0.25, 0.8) == 0
        assert share(VOICED, 0.25, 0.55) > 0.9
        assert share(VOICED, 0.65, 0.8) < 0.3


def test_seconds_count_whole_frames(features):
    assert features.seconds == features.frames.sum() * HOP / RATE_HZ


def test_they_are_made_once(tmp_path, data, quick, monkeypatch):
    seen = []
    recordings = find_recordings(data)
    made = build(recordings, tmp_path, quick(), lambda done, total: seen.append((done, total)))
    assert seen == [(i, 8) for i in range(9)]
    monkeypatch.setattr(module, "_clips", refuse)
    # the arrays don't depend on how the model is built or trained
    again = build(recordings, tmp_path, quick("model.hidden=32", "train.seed=5"))
    assert isinstance(again.codes_T, np.memmap)
    for name in ("codes_T", "mel_NM", "label_N", "first", "frames", "flac_bytes"):
        assert (getattr(again, name) == getattr(made, name)).all()
    assert again.data_sha256 == made.data_sha256
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "override", ["mel.bands=17", "mel.floor=1e-4", "model.pre_emphasis=0.8"], ids=str
)
def test_another_configuration_of_the_features_makes_them_anew(tmp_path, data, quick, override):
    recordings = find_recordings(data)
    made = build(recordings, tmp_path, quick())
    other = build(recordings, tmp_path, quick(override))
    assert other.data_sha256 == made.data_sha256
    assert len(list(tmp_path.iterdir())) == 2


def spoil(path):
    write_audio(path, read_audio(path, RATE_HZ) * 0.9, RATE_HZ)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: spoil(folder / "clip3.wav"),
        lambda folder: (folder / "clip3.wav").rename(folder / "clip9.wav"),
        lambda folder: (folder / "clip3.wav").unlink(),
    ],
    ids=["content", "name", "removed"],
)
def test_other_recordings_make_them_anew(tmp_path, copied, quick, change):
    made = build(find_recordings(copied), tmp_path / "cache", quick())
    change(copied)
    other = build(find_recordings(copied), tmp_path / "cache", quick())
    assert other.data_sha256 != made.data_sha256
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_date_of_a_file_and_the_place_of_the_folder_dont_matter(
    tmp_path, data, copied, quick, monkeypatch
):
    made = build(find_recordings(data), tmp_path / "cache", quick())
    os.utime(copied / "clip1.wav", (0, 0))
    monkeypatch.setattr(module, "_clips", refuse)
    again = build(find_recordings(copied), tmp_path / "cache", quick())
    assert again.data_sha256 == made.data_sha256


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, copied, quick, caplog):
    (copied / "empty.wav").touch()
    (copied / "text.flac").write_text("no audio")
    (copied / "notes.txt").write_text("not even a recording by name")
    (copied / "gone.wav").symlink_to("nowhere.wav")
    recordings = find_recordings(copied)
    assert len(recordings) == 10
    (copied / "clip5.wav").unlink()
    made = build(recordings, tmp_path / "cache", quick())
    assert made.names == [f"clip{i}" for i in (0, 1, 2, 3, 4, 6, 7)]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.startswith("left out: ") for line in lines] == [True] * 3
    for line, name in zip(
        lines, ("clip5.wav doesn't exist", "empty.wav", "text.flac"), strict=True
    ):
        assert name in line


def test_of_two_files_of_one_name_one_is_taken(copied, caplog):
    shutil.copy(copied / "clip2.wav", copied / "clip2.ogg")
    (copied / "more").mkdir()
    shutil.copy(copied / "clip2.wav", copied / "more" / "CLIP.WAV")
    shutil.copy(copied / "clip2.wav", copied / "more" / "clip2.wav")
    found = find_recordings(copied)
    assert list(found) == [
        *("clip0", "clip1", "clip2", "clip3", "clip4", "clip5", "clip6", "clip7"),
        *("more/CLIP", "more/clip2"),
    ]
    assert found["clip2"].name == "clip2.ogg"
    assert "clip2.wav, since clip2.ogg has the same name" in caplog.text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", "expected a folder of recordings, but .*none doesn't exist; give a folder"),
        ("file.wav", "expected a folder of recordings, but .*file.wav is a file; give a folder"),
        ("empty", r"empty holds no recordings; expected files that end in \.wav, \.flac"),
    ],
)
def test_a_folder_that_holds_none_is_refused(tmp_path, name, sentence):
    (tmp_path / "file.wav").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=sentence):
        find_recordings(tmp_path / name)


def test_recordings_of_which_none_can_be_used_leave_nothing(tmp_path, quick):
    (tmp_path / "a.wav").touch()
    (tmp_path / "cache").mkdir()
    with pytest.raises(DataError, match="none of the recordings can be used, see the lines above"):
        build(find_recordings(tmp_path), tmp_path / "cache", quick())
    assert not list((tmp_path / "cache").iterdir())


def test_a_rate_too_low_for_speech_is_refused(tmp_path, data, quick):
    config = quick("mel.rate_hz=2000", "mel.high_hz=1000")
    with pytest.raises(DataError, match=r"expected mel\.rate_hz above 2000, got 2000"):
        build(find_recordings(data), tmp_path / "cache", config)


def test_a_cache_that_is_a_file_is_refused(tmp_path, data, quick):
    (tmp_path / "cache").touch()
    with pytest.raises(
        DataError, match=r"can't write features to .*cache: .*; it must be a folder"
    ):
        build(find_recordings(data), tmp_path / "cache", quick())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["clip", "index", "rename"])
def test_a_crash_while_they_are_made_leaves_none_in_use(tmp_path, data, quick, monkeypatch, at):
    recordings, cache = find_recordings(data), tmp_path / "cache"

    def crash(*args, **kwargs):
        raise Killed

    def some_clips(*args, clips=module._clips):
        yield from list(clips(*args))[:3]
        raise Killed

    if at == "clip":
        monkeypatch.setattr(module, "_clips", some_clips)
    else:
        owner, name = (os, "fsync") if at == "index" else (module.Path, "rename")
        monkeypatch.setattr(owner, name, crash)
    # nor does what a killed process can't clear away do harm
    monkeypatch.setattr(module.shutil, "rmtree", lambda *args, **kwargs: None)
    with pytest.raises(Killed):
        build(recordings, cache, quick())
    assert [path.suffix for path in cache.iterdir()] == [".partial"]
    monkeypatch.undo()
    made = build(recordings, cache, quick())
    assert len(made.names) == 8
    assert len(made.codes_T) == made.frames.sum() * HOP == len(made.label_N) * HOP
    assert [path.suffix for path in cache.iterdir()] == [""]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, data, quick, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    sentence = r"can't write features to .*: No space left on device; it must be a folder with room"
    with pytest.raises(DataError, match=sentence):
        build(find_recordings(data), tmp_path / "cache", quick())
    assert not list((tmp_path / "cache").iterdir())


def test_held_out_clips_are_spread_evenly_and_not_trained_on(features):
    for count in (1, 2, 3, 4):
        clips, held_out = split(features, count)
        assert len(held_out) == count
        assert sorted([*clips, *held_out]) == list(range(8))
    assert split(features, 2)[1].tolist() == [2, 6]
    # never more than half
    assert len(split(features, 100)[1]) == 4


def test_a_single_recording_cannot_be_split(tmp_path, data, quick):
    few = dict([*find_recordings(data).items()][:1])
    with pytest.raises(DataError, match=r"at least 2 usable recordings, .*, got 1; add recordings"):
        split(build(few, tmp_path, quick()), 1)


def test_mel_statistics_are_those_of_the_chosen_clips(features):
    rows = [
        features.mel_NM[features.first[i] : features.first[i] + features.frames[i]] for i in (1, 4)
    ]
    mel_NM = np.concatenate(rows).astype(np.float64)
    mean_M, deviation_M = mel_statistics(features, np.array([1, 4]))
    assert mean_M.dtype == deviation_M.dtype == np.float32
    np.testing.assert_allclose(mean_M, mel_NM.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation_M, np.maximum(mel_NM.std(0), 0.1), rtol=1e-5)
