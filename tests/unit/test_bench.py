import json

import pytest
import torch

from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig, TrainConfig
from wavernn.errors import BackendUnavailable
from wavernn.kernels.bench import bench, machine, random_voice, read_rate

CONFIG = Config(
    "tiny",
    MelConfig(bands=5),
    ModelConfig(hidden=16, projection=8, embedding=2, channels=4, layers=0),
    PruneConfig(4, 4, density={"R_u": 0.5, "R_r": 0.25, "R_e": 0.25, "O2": 0.25}),
    TrainConfig(),
)
# `wavernn bench --json`, as the design fixes it
KEYS = (
    "machine, versions, commit, backend, kernel, isa, format, recipe, nonzeros, streams, threads, "
    "samples_per_s, realtime_factor, p10, p50_ms, p99_ms, chunk_ms, roof, roof_share, bound, "
    "parts, bytes"
)


@pytest.fixture(scope="module")
def row():
    return bench(random_voice(CONFIG), "reference", streams=2, seconds=0.05)


def test_a_row_has_the_keys_of_the_design(row):
    assert list(row) == KEYS.split(", ")
    assert json.loads(json.dumps(row)) == row


def test_a_row_says_what_was_measured(row):
    assert row["backend"] == row["kernel"] == "reference"
    assert (row["recipe"], row["streams"], row["format"]) == ("tiny", 2, "float64")
    assert row["threads"] == torch.get_num_threads()
    assert row["versions"]["torch"] == torch.__version__
    assert row["bound"] == "read"
    # R 3 x 16 x 16 at a half and two quarters, O1 and O3 8 x 8, O2 256 x 8 at a quarter, and O4
    assert row["nonzeros"] == 256 + 2 * 64 + 512 + 2048


def test_numbers_of_a_row_fit_each_other(row):
    # 10 ms are 220 whole samples at 22 050 Hz
    assert row["chunk_ms"] == pytest.approx(220 / 22.05)
    assert 0 < row["p10"] <= row["p50_ms"] <= row["p99_ms"]
    assert row["samples_per_s"] == pytest.approx(2 * 220 / row["p50_ms"] * 1e3)
    assert row["realtime_factor"] == pytest.approx(row["samples_per_s"] / 22_050)
    assert row["roof_share"] == pytest.approx(row["samples_per_s"] / row["roof"])
    assert row["parts"]["loop_us"] == pytest.approx(1e6 / row["samples_per_s"])
    # float64: R, heads, and the input's 48 x 4 and 24 x 2
    assert row["bytes"] == 8 * (768 + 2 * 64 + 2 * 2048 + 192 + 48)


def test_half_the_width_is_half_the_bytes(row):
    narrow = bench(random_voice(CONFIG), "reference", 1, seconds=0.05, format="float32")
    assert (narrow["format"], narrow["bytes"]) == ("float32", row["bytes"] / 2)


def test_auto_is_named_by_what_it_took(row):
    taken = bench(random_voice(CONFIG), "auto", streams=1, seconds=0.05)
    assert taken["backend"] in ("gpu", "cpu", "reference")


def test_a_backend_that_isnt_there_is_not_measured():
    with pytest.raises(BackendUnavailable, match="unknown backend fast"):
        bench(random_voice(CONFIG), "fast", streams=1)


def test_a_random_voice_is_the_same_each_time_and_sparse_as_told():
    one, other = random_voice(CONFIG), random_voice(CONFIG)
    assert one.sha256 == other.sha256
    kept = {name: (w != 0).float().mean().item() for name, w in one.model().matrices().items()}
    dense = dict.fromkeys(("O1", "O3", "O4"), 1.0)
    assert kept == {"R_u": 0.5, "R_r": 0.25, "R_e": 0.25, "O2": 0.25, **dense}


def test_the_machine_and_its_roof_are_known():
    about = machine()
    assert about["machine"]
    assert about["commit"] is None or len(about["commit"].removesuffix("-dirty")) >= 7
    assert read_rate(1_000_000, repeats=3) > 0
