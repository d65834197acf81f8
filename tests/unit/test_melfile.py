import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from contextlib import suppress
from dataclasses import asdict

import numpy as np
import pytest
import safetensors.torch
import torch

from wavernn import files
from wavernn.config import MEL_PRESETS, MelConfig
from wavernn.errors import MelError
from wavernn.melfile import SUFFIXES, read_mel, write_mel

MEL = np.random.default_rng(0).normal(size=(7, 80)).astype(np.float32)


def refuse(path, sentence):
    with pytest.raises(MelError, match=sentence) as raised:
        read_mel(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPZ", ".SafeTensors"])
@pytest.mark.parametrize("preset", ["hifigan-22k", "48k"])
def test_a_written_mel_is_itself_again(tmp_path, suffix, preset):
    path = tmp_path / f"a{suffix}"
    write_mel(path, MEL.astype(np.float64), MEL_PRESETS[preset])
    array, declared = read_mel(path)
    assert array.dtype == np.float32
    assert (array == MEL).all()
    assert declared == ({} if suffix == ".npy" else asdict(MEL_PRESETS[preset]))
    assert {type(value) for value in declared.values()} <= {int, float, str}


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", "|u1", "<c8", "<U3", "|b1"])
def test_any_array_is_read_as_it_is(tmp_path, dtype):
    array = (MEL * 10).astype(dtype)
    for name, save in [("a.npy", np.save), ("a.npz", lambda p, a: np.savez(p, mel=a))]:
        save(tmp_path / name, array)
        assert (read_mel(tmp_path / name)[0] == array).all()
        assert read_mel(tmp_path / name)[0].dtype == np.dtype(dtype)


def test_fortran_order_and_other_ranks_are_kept(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(MEL)[None, :, :, None])
    assert (read_mel(tmp_path / "a.npy")[0] == MEL[None, :, :, None]).all()
    np.save(tmp_path / "b.npy", np.float32(3))
    assert read_mel(tmp_path / "b.npy")[0].shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int16])
def test_tensors_that_numpy_doesnt_know_are_read(tmp_path, dtype):
    tensor = (torch.from_numpy(MEL) * 10).to(dtype)
    safetensors.torch.save_file(
        {"mel": tensor, "other": torch.zeros(2)}, tmp_path / "a.safetensors"
    )
    array, declared = read_mel(tmp_path / "a.safetensors")
    assert (array == tensor.double().numpy()).all()
    assert declared == {}


def test_an_npz_declares_its_scalars_only(tmp_path):
    np.savez(tmp_path / "a.npz", mel=MEL, sr=22_050, fmax=8000.0, log="ln", f0=np.zeros(7))
    assert read_mel(tmp_path / "a.npz")[1] == {"sr": 22_050, "fmax": 8000.0, "log": "ln"}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("[]", r"the mel_config of .* must be a JSON object, got \[\]"),
        ("null", "the mel_config of .* must be a JSON object, got None"),
        ('"mel"', "the mel_config of .* must be a JSON object, got 'mel'"),
        ("{", "is not a mel file that can be read"),
        ("[" * 9999, "is not a mel file that can be read"),
    ],
)
def test_a_declaration_that_is_no_table_is_refused(tmp_path, config, sentence):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"mel": torch.zeros(3, 80)}, path, {"mel_config": config})
    refuse(path, sentence)


def test_a_declaration_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"mel_config": json.dumps({"hop_length": 256, "fmax": None}), "author": "me"}
    safetensors.torch.save_file({"mel": torch.zeros(3, 80)}, path, metadata)
    assert read_mel(path)[1] == {"hop_length": 256, "fmax": None}


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def huge(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 80), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"1234")


OBJECTS = np.array([Bomb()], dtype=object)
UNREADABLE = r"is not a mel file that can be read \(damaged, or it holds Python objects\); expected"


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("a.npy", lambda p: None, "doesn't exist; give the path of a mel or an audio file"),
        ("a.npy", lambda p: p.mkdir(), "can't read .*: Is a directory"),
        ("a.safetensors", lambda p: p.mkdir(), "can't read .*: Is a directory"),
        *((f"a{suffix}", lambda p: p.write_bytes(b""), UNREADABLE) for suffix in SUFFIXES),
        *((f"a{suffix}", lambda p: p.write_text("hello\n"), UNREADABLE) for suffix in SUFFIXES),
        ("a.npy", lambda p: np.save(p, OBJECTS), UNREADABLE),
        ("a.npz", lambda p: np.savez(p, mel=OBJECTS), UNREADABLE),
        ("a.npz", lambda p: np.savez(p, mel=MEL, extra=OBJECTS), UNREADABLE),
        ("a.npy", lambda p: p.write_bytes(pickle.dumps(Bomb())), UNREADABLE),
        ("a.npz", lambda p: torch.save({"mel": torch.zeros(3, 80)}, p), "holds no array"),
        ("a.npy", huge, UNREADABLE),
        ("a.npz", lambda p: np.savez(p, x=MEL, y=MEL), "holds x, y; expected an array called mel"),
        ("a.npz", lambda p: np.savez(p), "holds no array; expected an array called mel"),
        ("a.npz", lambda p: zip_of(p, mel=b"text"), "holds no array; expected an array called mel"),
        ("a.npz", lambda p: zip_of(p, **{"a.txt": b"text"}), "holds no array; expected an array"),
        (
            "a.safetensors",
            lambda p: safetensors.torch.save_file({"w": torch.zeros(3)}, p),
            "holds w; expected an array called mel",
        ),
    ],
)
def test_what_is_no_mel_file_is_named(tmp_path, name, make, sentence):
    make(tmp_path / name)
    refuse(tmp_path / name, sentence)


def test_a_file_without_permission_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    np.save(tmp_path / "a.npy", MEL)
    (tmp_path / "a.npy").chmod(0)
    refuse(tmp_path / "a.npy", "can't read .*: Permission denied")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_mel(path, MEL, MelConfig())
    content = path.read_bytes()
    for cut in range(0, len(content), 17):
        path.write_bytes(content[:cut])
        refuse(path, UNREADABLE)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [True, False])
def test_damage_gives_an_array_or_a_sentence(tmp_path, suffix, compressed):
    path, pick = tmp_path / f"a{suffix}", random.Random(0)
    write_mel(path, MEL, MelConfig())
    if suffix == ".npz" and not compressed:
        np.savez(path, mel=MEL, **asdict(MelConfig()))
    content, read = path.read_bytes(), 0
    for number in range(400):
        damaged = bytearray(content)
        # half of it in the headers
        end = len(content) if number % 2 else 300
        for _ in range(pick.randrange(1, 4)):
            damaged[pick.randrange(end)] = pick.randrange(256)
        path.write_bytes(damaged)
        with suppress(MelError), warnings.catch_warnings():
            # numpy warns of headers that Python 2 wrote, and zipfile of names that come twice
            warnings.simplefilter("ignore")
            array, declared = read_mel(path)
            assert isinstance(array, np.ndarray) and isinstance(declared, dict)
            read += 1
    assert 0 < read < 400


@pytest.mark.parametrize("name", ["a.wav", "a", "a.npy.gz"])
def test_other_suffixes_arent_written(tmp_path, name):
    with pytest.raises(MelError, match=r"unknown mel format '.*'; known: \.npy, \.npz, \.safe"):
        write_mel(tmp_path / name, MEL, MelConfig())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    write_mel(path, MEL, MelConfig())
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "open", fail, raising=False)
    with pytest.raises(MelError, match=r"can't be written: No space left on device"):
        write_mel(path, MEL * 2, MelConfig())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_closed_even_if_it_is_damaged(tmp_path):
    # an open one would warn, which is an error here
    buffer = io.BytesIO()
    np.savez(buffer, mel=MEL)
    (tmp_path / "a.npz").write_bytes(buffer.getvalue()[:-30])
    refuse(tmp_path / "a.npz", UNREADABLE)
    (tmp_path / "a.npz").unlink()
