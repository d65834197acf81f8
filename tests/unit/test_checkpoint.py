import json
import math
import os
import pickle
import random
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from wavernn import container, files
from wavernn.checkpoint import Checkpoint, load, save
from wavernn.config import Config, ModelConfig
from wavernn.errors import CheckpointError
from wavernn.kernels.bench import random_voice


def forge(path, tensors, signed_body, **metadata):
    """A file with whatever body, signed as it should be."""
    signed = {
        "format": "wavernn",
        "version": "1",
        "body": signed_body,
        "sha256": container.digest(signed_body, tensors),
    }
    metadata = {k: v for k, v in (signed | metadata).items() if v is not None}
    safetensors.torch.save_file(tensors, path, metadata)


def body_of(voice, **changes):
    table = {"config": voice.config.to_dict(), "provenance": {}}
    return json.dumps({k: v for k, v in (table | changes).items() if v is not None})


def refuse(path, sentence):
    with pytest.raises(CheckpointError, match=sentence) as raised:
        load(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_saved_voice_is_itself_again(voice, voice_path):
    again = load(voice_path)
    assert again.config == voice.config
    assert again.provenance == voice.provenance == {"steps": 7, "data_licence": "none"}
    assert again.sha256 == voice.sha256
    assert again.tensors.keys() == voice.tensors.keys()
    for name, tensor in voice.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
    assert load(str(voice_path)).sha256 == voice.sha256


def test_the_digest_covers_weights_configuration_and_provenance(voice):
    changed = dict(voice.tensors)
    changed["O1.bias"] = changed["O1.bias"] + 1
    others = [
        replace(voice, config=replace(voice.config, name="other")),
        replace(voice, tensors=changed),
        replace(voice, provenance={"steps": 8}),
    ]
    assert len({v.sha256 for v in [voice, *others]}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["embedding", "scalar"])
def test_the_model_has_the_weights_and_memory_of_its_own(dtype, kind):
    sizes = ModelConfig(hidden=8, projection=4, embedding=2, channels=4, layers=1, input=kind)
    voice = random_voice(Config(model=sizes))
    model = voice.model(dtype)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, voice.tensors[name].to(dtype))
    before = voice.sha256
    for weight in model.parameters():
        weight.zero_()
    assert voice.sha256 == before


def test_building_a_model_draws_no_random_numbers(voice):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    voice.model()
    assert torch.equal(torch.rand(2), expected)


def test_weights_that_dont_fit_ask_for_no_memory(voice):
    huge = replace(voice.config, model=replace(voice.config.model, hidden=65_536))
    with pytest.raises(CheckpointError, match="the weights don't fit their configuration: size"):
        Checkpoint(huge, voice.tensors).model()


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_voice(voice, voice_path, monkeypatch, call):
    before = voice_path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files if call == "open" else os, call, fail, raising=call != "open")
    with pytest.raises(
        CheckpointError, match=r"can't write checkpoint .*: No space left on device"
    ):
        save(voice_path, replace(voice, provenance={"steps": 8}))
    monkeypatch.undo()
    assert voice_path.read_bytes() == before
    assert list(voice_path.parent.iterdir()) == [voice_path]


def test_a_voice_cant_be_saved_in_no_folder(voice, tmp_path):
    with pytest.raises(CheckpointError, match=r"can't write checkpoint .*: No such file"):
        save(tmp_path / "gone" / "a.safetensors", voice)


def test_every_truncation_is_refused(voice_path):
    content = voice_path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:header])
    ends = [entry["data_offsets"][1] for key, entry in table.items() if key != "__metadata__"]
    pick = random.Random(0).sample(range(len(content)), 200)
    cuts = {*range(64), *range(header - 8, header + 8), *(header + end for end in ends), *pick}
    for cut in sorted(cuts - {len(content)}):
        voice_path.write_bytes(content[:cut])
        refuse(voice_path, "is empty|is not a wavernn checkpoint|is truncated")
        if cut > header:
            refuse(voice_path, f"is truncated by {len(content) - cut} bytes; copy")


def in_order(content):
    """The same file with its header's keys in order, which safetensors leaves to chance."""
    header = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:header])
    ordered = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    return content[:8] + ordered.ljust(header - 8) + content[header:]


def test_every_flipped_bit_is_found(voice_path):
    content = in_order(voice_path.read_bytes())
    voice_path.write_bytes(content)
    assert load(voice_path)
    header = 8 + int.from_bytes(content[:8], "little")
    pick = random.Random(0)
    places = [*range(header), *(pick.randrange(header, len(content)) for _ in range(500))]
    flips = [[(place, pick.randrange(8))] for place in places]
    flips += [[(place, bit)] for place in range(8) for bit in range(8)]
    # several at once
    flips += [[(pick.randrange(len(content)), bit) for bit in range(5)] for _ in range(300)]
    for flip in flips:
        damaged = bytearray(content)
        for place, bit in flip:
            damaged[place] ^= 1 << bit
        voice_path.write_bytes(damaged)
        refuse(voice_path, "damaged|truncated|not a wavernn checkpoint|has checkpoint format")


@pytest.mark.parametrize("extra", [b"\0", b"x" * 1000])
def test_bytes_at_the_end_are_found(voice_path, extra):
    voice_path.write_bytes(voice_path.read_bytes() + extra)
    refuse(voice_path, "is damaged: its sha256 doesn't match; copy it again")


def test_swapped_tensors_are_found(voice, voice_path):
    content = bytearray(voice_path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    swapped = (
        content[8:header].replace(b'"O1.weight"', b'"tmp"').replace(b'"O3.weight"', b'"O1.weight"')
    )
    swapped = swapped.replace(b'"tmp"', b'"O3.weight"')
    assert len(swapped) == header - 8
    voice_path.write_bytes(content[:8] + swapped + content[header:])
    refuse(voice_path, "is damaged: its sha256 doesn't match; copy it again")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def torch_file(path):
    torch.save({"R": torch.zeros(3), "bomb": Bomb()}, path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "no checkpoint at .*; give the path of a .safetensors file"),
        (lambda path: path.mkdir(), "can't read checkpoint .*: Is a directory"),
        (lambda path: path.write_bytes(b""), "is empty; copy the checkpoint again"),
        (lambda path: path.write_text("hello, world"), "is not a wavernn checkpoint; expected a"),
        (lambda path: path.write_bytes(b"\0" * 100), "is not a wavernn checkpoint; expected a"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "is not a wavernn checkpoint"),
        (torch_file, "is not a wavernn checkpoint; expected a safetensors file"),
        (
            lambda path: path.write_bytes(b"\xff" * 8 + b"{" + b" " * 50),
            "is not a wavernn checkpoint; expected a safetensors file",
        ),
        (
            lambda path: path.write_bytes((10**8).to_bytes(8, "little") + b"{}"),
            "is truncated in its header; copy the checkpoint again",
        ),
        (
            lambda path: path.write_bytes((9000).to_bytes(8, "little") + b'{"a":' * 1800),
            "is damaged in its header; copy it again",
        ),
        (
            lambda path: safetensors.torch.save_file({"w": torch.zeros(3)}, path),
            "is a safetensors file, but not a wavernn checkpoint",
        ),
        (
            lambda path: safetensors.torch.save_file({}, path, {"format": "pt"}),
            "is a safetensors file, but not a wavernn checkpoint",
        ),
    ],
)
def test_what_is_no_voice_is_named(tmp_path, make, sentence):
    path = tmp_path / "a.safetensors"
    make(path)
    refuse(path, sentence)


def test_a_file_without_permission_is_named(voice_path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    voice_path.chmod(0)
    refuse(voice_path, "can't read checkpoint .*: Permission denied")


@pytest.mark.parametrize("version", ["2", None])
def test_another_version_is_named(voice, tmp_path, version):
    forge(tmp_path / "a", dict(voice.tensors), body_of(voice), version=version)
    refuse(tmp_path / "a", f"has checkpoint format {version}, this program reads 1; install")


@pytest.mark.parametrize("key", ["body", "sha256"])
def test_missing_metadata_is_damage(voice, tmp_path, key):
    forge(tmp_path / "a", dict(voice.tensors), body_of(voice), **{key: None})
    refuse(tmp_path / "a", "is damaged: its sha256 doesn't match")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": None}, "is damaged"),
        ({"provenance": None}, "is damaged"),
        ({"provenance": 3}, "is damaged"),
        ({"config": 3}, "has a configuration this program can't use: .* must be a table, got 3"),
        ({"config": {"speed": 3}}, "can't use: unknown key speed; known: name"),
        ({"config": {"model": {"hidden": 3}}}, "can't use: model.hidden must be even, got 3"),
        ({"config": {"model": {"hidden": 10**30}}}, r"model.hidden must lie in 1\.\.65536, got"),
        ({"config": {}}, "can't be used: the weights don't fit their configuration: size mismatch"),
    ],
)
def test_a_body_that_cant_be_used_is_named(voice, tmp_path, changes, sentence):
    forge(tmp_path / "a", dict(voice.tensors), body_of(voice, **changes))
    refuse(tmp_path / "a", sentence)


@pytest.mark.parametrize("body", ["", "3", "[]", "{", "null", "[" * 9999])
def test_a_body_that_is_no_object_is_damage(voice, tmp_path, body):
    forge(tmp_path / "a", dict(voice.tensors), body)
    refuse(tmp_path / "a", "is damaged: ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("R"), r'fit their configuration: Missing key\(s\) in state_dict: "R"'),
        (lambda t: t.update(x=torch.zeros(1)), r'Unexpected key\(s\) in state_dict: "x"'),
        (lambda t: t.update(R=torch.zeros(3, 4)), "size mismatch for R: "),
        (lambda t: t.update(R=t["R"].half()), "holds R as torch.float16, expected torch.float32"),
        (lambda t: t.update(R=t["R"].int()), "holds R as torch.int32, expected torch.float32"),
        (lambda t: t.update(R=t["R"] * math.nan), "holds NaN or infinite weights in R; take an"),
        (lambda t: t.update(R=t["R"] + math.inf), "holds NaN or infinite weights in R; take an"),
    ],
)
def test_tensors_that_arent_the_models_are_named(voice, tmp_path, change, sentence):
    tensors = dict(voice.tensors)
    change(tensors)
    save(tmp_path / "a", replace(voice, tensors=tensors))
    refuse(tmp_path / "a", sentence)
