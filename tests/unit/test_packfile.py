import json
import logging
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy

from wavernn import checkpoint
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.errors import CheckpointError
from wavernn.kernels import packfile
from wavernn.kernels.bench import random_voice
from wavernn.kernels.pack import pack
from wavernn.kernels.pack_context import pack_subscale

CONFIG = Config(
    "small",
    MelConfig(bands=5),
    ModelConfig(hidden=64, projection=32, embedding=2, channels=4, layers=0),
    PruneConfig(16, 4, density={"R_u": 0.5, "R_r": 0.25, "R_e": 0.25, "O2": 0.5}),
)


@pytest.fixture(scope="module")
def voice():
    return random_voice(CONFIG)


@pytest.fixture(scope="module", params=["int8", "float32"])
def packed(request, voice):
    return pack(voice, request.param)


@pytest.fixture
def path(tmp_path, packed, voice):
    packfile.save(tmp_path / "voice.safetensors", packed, voice.sha256)
    return tmp_path / "voice.safetensors"


def same(a, b):
    return (
        a.header == b.header
        and a.arrays.keys() == b.arrays.keys()
        and all((a.arrays[name] == b.arrays[name]).all() for name in a.arrays)
    )


def test_a_packed_voice_comes_back(path, packed, voice):
    assert same(packfile.load(path, voice.sha256), packed)


SUBSCALE = {"subscale": 4, "subscale_horizon": 2, "context_channels": 20, "context_layers": 2}


@pytest.fixture(scope="module")
def subscale_voice():
    return random_voice(replace(CONFIG, model=replace(CONFIG.model, **SUBSCALE)))


@pytest.fixture(scope="module", params=["int8", "float32"])
def packed_subscale(request, subscale_voice):
    return pack_subscale(subscale_voice, request.param)


def test_a_packed_subscale_voice_comes_back(tmp_path, packed_subscale, subscale_voice):
    path = tmp_path / "voice.safetensors"
    packfile.save(path, packed_subscale, subscale_voice.sha256)
    assert same(packfile.load(path, subscale_voice.sha256), packed_subscale)


def test_that_of_another_voice_is_refused(path):
    with pytest.raises(CheckpointError, match="was packed from another voice"):
        packfile.load(path, "0" * 64)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no packed voice at"):
        packfile.load(tmp_path / "voice.safetensors")


def test_a_checkpoint_is_refused(tmp_path, voice):
    checkpoint.save(tmp_path / "voice.safetensors", voice)
    with pytest.raises(CheckpointError, match="is not a packed voice"):
        packfile.load(tmp_path / "voice.safetensors")


@pytest.fixture
def content(path):
    return path.read_bytes()


@hypothesis.settings(
    max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.data())
def test_a_changed_byte_is_found(path, content, data):
    place = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != content[place]))
    path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
    with pytest.raises(CheckpointError):
        packfile.load(path)


@hypothesis.settings(
    max_examples=50, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.data())
def test_a_cut_file_is_found(path, content, data):
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError):
        packfile.load(path)


def with_metadata(path, **changes):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"] | changes
    arrays = safetensors.numpy.load(content)
    path.write_bytes(safetensors.numpy.save(arrays, metadata))


def test_another_version_is_refused(path):
    with_metadata(path, version="0")
    with pytest.raises(CheckpointError, match="packed voice of version 0, expected 1"):
        packfile.load(path)


def test_a_wrong_digest_is_refused(path):
    with_metadata(path, voice="f" * 64)
    with pytest.raises(CheckpointError, match="its sha256 doesn't match"):
        packfile.load(path)


def first(array, value):
    changed = array.copy()
    changed.reshape(-1)[0] = value
    return changed


# files whose digest is right, and which would make the engine read astray
ASTRAY = {
    "column-outside": ("gates0.columns", lambda a: first(a, 60_000)),
    "starts-not-at-0": ("gates1.starts", lambda a: first(a, 1)),
    "starts-negative": ("candidate0.starts", lambda a: first(a, -1)),
    "starts-fall": ("gates0.starts", lambda a: np.concatenate((a[:1], a[1:-1][::-1], a[-1:]))),
    "more-starts-than-blocks": ("O2.starts", lambda a: a + (np.arange(len(a)) == len(a) - 1)),
    "blocks-missing": ("O1.blocks", lambda a: a[:-1]),
    "blocks-of-another-type": ("O4.blocks", lambda a: a.astype(np.float64)),
    "columns-missing": ("gates0.columns", lambda a: None),
    "columns-short": ("gates0.columns", lambda a: a[:-1]),
    "bias-short": ("O3.bias", lambda a: a[:-1]),
    "bias-missing": ("O3.bias", lambda a: None),
    "rows-short": ("past", lambda a: a[:1]),
    "rows-of-a-code-missing": ("now", lambda a: a[:255]),
    "rows-scale-missing": ("rows_scale", lambda a: None),
    "groups-missing": ("O2.starts", lambda a: a[:-1]),
}


@pytest.mark.parametrize("fault", ASTRAY)
def test_arrays_that_dont_fit_are_refused(path, packed, voice, fault):
    name, change = ASTRAY[fault]
    arrays = {**packed.arrays, name: change(packed.arrays[name])}
    arrays = {k: v for k, v in arrays.items() if v is not None}
    packfile.save(path, replace(packed, arrays=arrays), voice.sha256)
    with pytest.raises(CheckpointError, match="holds no voice that can be run"):
        packfile.load(path)


ASTRAY_CONTEXT = {
    "bytes-missing": ("context.coarse", lambda a: a[:, :255].copy()),
    "taps-missing": ("context.fine", lambda a: a[1:]),
    "lane-missing": ("context.lanes", lambda a: a[1:]),
    "layer-missing": ("context.taps1.blocks", lambda a: None),
    "layer-short": ("context.taps0.blocks", lambda a: a[1:]),
    "layer-bias-missing": ("context.taps0.bias", lambda a: None),
    "candidate-short": ("context.candidate1.starts", lambda a: a[:-1]),
    "columns-beside-missing": ("gates0.starts", lambda a: a - (a == a[-1])),
}


@pytest.mark.parametrize("fault", ASTRAY_CONTEXT)
def test_contexts_that_dont_fit_are_refused(tmp_path, packed_subscale, fault):
    name, change = ASTRAY_CONTEXT[fault]
    arrays = {**packed_subscale.arrays, name: change(packed_subscale.arrays[name])}
    arrays = {k: v for k, v in arrays.items() if v is not None}
    packfile.save(tmp_path / "v.safetensors", replace(packed_subscale, arrays=arrays), "")
    with pytest.raises(CheckpointError, match="holds no voice that can be run"):
        packfile.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("factor", 1), ("factor", 6), ("factor", 65), ("channels", 24), ("channels", -32)),
        *(("layers", 17), ("layers", "2"), ("horizon", -1), ("horizon", None)),
    ],
)
def test_headers_of_contexts_that_dont_fit_are_refused(tmp_path, packed_subscale, name, value):
    header = packed_subscale.header | {f"context.{name}": value}
    packfile.save(tmp_path / "v.safetensors", replace(packed_subscale, header=header), "")
    with pytest.raises(CheckpointError, match="holds no voice that can be run"):
        packfile.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "int4"},
        {"half": 48},
        {"half": 33},
        {"half": -32},
        {"projection": 0},
        {"projection": "32"},
        {"units": 0},
        {"units": 33},
        {"hop": 0},
        {"hop": 1.5},
        {"pre_emphasis": 1.0},
        {"pre_emphasis": None},
    ],
    ids=str,
)
def test_headers_that_dont_fit_are_refused(path, packed, voice, changes):
    packfile.save(path, replace(packed, header=packed.header | changes), voice.sha256)
    with pytest.raises(CheckpointError, match="holds no voice that can be run"):
        packfile.load(path)


@pytest.mark.parametrize("part", ["scale", "correction"])
def test_whole_numbers_need_their_scale(path, voice, part):
    packed = pack(voice, "int8")
    arrays = {k: v for k, v in packed.arrays.items() if k != f"O2.{part}"}
    packfile.save(path, replace(packed, arrays=arrays), voice.sha256)
    with pytest.raises(CheckpointError, match="holds no voice that can be run"):
        packfile.load(path)


def test_words_whose_sums_would_overflow_are_refused(path, voice):
    wide = replace(CONFIG, model=replace(CONFIG.model, projection=64), prune=PruneConfig())
    packed = pack(random_voice(wide), "int8")
    blocks = np.full_like(packed.arrays["O2.blocks"], 32767)
    packed = replace(packed, arrays=packed.arrays | {"O2.blocks": blocks})
    packfile.save(path, packed, voice.sha256)
    with pytest.raises(CheckpointError, match="the sums of O2 don't fit 32 bit"):
        packfile.load(path)


@pytest.fixture
def stored(tmp_path, monkeypatch, voice):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint.save(tmp_path / "small.safetensors", voice)
    return checkpoint.load(tmp_path / "small.safetensors")


def kept():
    return sorted(path.name for path in packfile.cache_folder().glob("*"))


def test_a_voice_from_a_file_is_packed_once(stored, monkeypatch):
    made = packfile.packed(stored, "int8")
    assert kept() == [f"small.int8.{stored.sha256[:16]}.safetensors"]
    monkeypatch.setattr(packfile, "pack", None)
    assert same(packfile.packed(stored, "int8"), made)


def test_a_subscale_voice_is_packed_once(tmp_path, subscale_voice, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint.save(tmp_path / "lanes.safetensors", subscale_voice)
    stored = checkpoint.load(tmp_path / "lanes.safetensors")
    first = packfile.packed(stored, "int8")
    assert kept() == [f"lanes.int8.{stored.sha256[:16]}.safetensors"]
    monkeypatch.setattr(packfile, "pack_subscale", None)
    assert same(packfile.packed(stored, "int8"), first)


def test_a_voice_without_a_file_isnt_kept(stored, voice):
    packfile.packed(voice, "int8")
    assert kept() == []


def test_formats_are_kept_beside_each_other_and_old_voices_are_not(stored, tmp_path):
    packfile.packed(stored, "float32")
    packfile.packed(stored, "int8")
    later = replace(stored, provenance={"steps": 1})
    packfile.packed(later, "int8")
    assert kept() == [
        f"small.float32.{stored.sha256[:16]}.safetensors",
        f"small.int8.{later.sha256[:16]}.safetensors",
    ]


def test_a_damaged_file_is_replaced_with_a_warning(stored, caplog):
    made = packfile.packed(stored, "int8")
    path = next(packfile.cache_folder().iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert same(packfile.packed(stored, "int8"), made)
    assert "is damaged" in caplog.text
    assert "packing" in caplog.text
    assert same(packfile.load(path, stored.sha256), made)


def test_a_cache_that_cant_be_written_is_no_error(stored, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        assert packfile.packed(stored, "int8").header["format"] == "int8"
    assert "isn't kept" in caplog.text
