import csv
import math

import numpy as np
import pytest

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

from wavernn import checkpoint
from wavernn.train.evaluate import choose
from wavernn.train.features import build
from wavernn.train.sweep import sweep
from wavernn.train.sweep_bits import engine_bits
from wavernn.train.sweep_grid import load
from wavernn.train.sweep_plots import bits_and_speed_against_samples
from wavernn.train.sweep_table import points
from wavernn.train.validate import bits_per_sample, make_slices

GRID = """
recipe = "quick.toml"
parent.set = { steps = 2 }
evaluate = { clips = 1, seconds_per_clip = 0.05 }
[set]
hidden = 32
steps = 3
prune = { start_step = 0, ramp_steps = 2, every_steps = 1 }
model = { context_channels = 16, subscale_horizon = 1, context_layers = 2 }
[[grid]]
axes = { subscale = [1, 4], density = [1.0, 0.5] }
[[grid]]
axes.model.fused = [2]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, recipe_path, data):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "quick.toml").write_bytes(recipe_path.read_bytes())
    (folder / "grid.toml").write_text(GRID, encoding="utf-8")
    sweep(load(folder / "grid.toml"), data, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def rows(swept):
    with open(swept / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_subscale_voices_are_rows_like_others(rows):
    named = {row["run"]: row for row in rows}
    assert [row["subscale"] for row in rows] == ["1", "4", "1", "1", "4", "4", "1", "1"]
    assert named["subscale4-density0.5"]["parent"] == "parent-h32-u4-seed0"
    assert named["subscale1-density0.5"]["parent"] == "parent-h32-seed0"
    assert named["fused2"]["parent"] == "parent-h32-fused2-seed0"
    assert [row["fused"] for row in rows] == 6 * ["1"] + 2 * ["2"]
    for row in rows:
        assert 0 < float(row["bits_per_sample"]) < 17
        assert float(row["realtime_factor"]) > 0
        assert math.isfinite(float(row["mel_l1"]))


def test_what_brings_the_context_in_is_pruned_and_told(rows):
    named = {row["run"]: row for row in rows}
    assert named["subscale4-density0.5"]["density_X_u"] == "1.0"
    # a plain voice has no such matrix
    assert named["subscale1-density0.5"]["density_X_u"] == ""


def test_the_report_draws_bits_and_speed_over_samples_a_step(swept):
    page = (swept / "report.html").read_text(encoding="utf-8")
    assert "Bits per sample and speed against samples a step" in page
    assert "float32, fused" in page


def test_plain_voices_are_no_such_plot(rows):
    plain = [{**row, "density": float(row["density"])} for row in rows[:1]]
    assert bits_and_speed_against_samples(points(plain)) is None


@pytest.mark.parametrize("run", ["subscale4-density0.5", "fused2"])
def test_an_engine_scores_what_torch_scores(swept, data, run):
    folder = next((swept / "runs").glob(f"{run}-*"))
    voice = checkpoint.load(folder / "checkpoint.safetensors")
    features = build(choose(voice, data, False), swept / "features", voice.config)
    model = voice.model()
    slices = make_slices(features, model, voice.tensors["R"].device)
    # the cut ends in the midst of a clip, whose next samples are seen from before it
    for seconds in (0.1, 1e9):
        expected = bits_per_sample(model, features, slices, np.arange(2), seconds)
        scored = engine_bits(voice, "reference", None, features, seconds)
        assert scored.keys() == expected.keys() | {"bits_silence", "bits_voiced"}
        for key in ("bits_per_sample", "bits_coarse", "bits_fine"):
            assert scored[key] == pytest.approx(expected[key], abs=1e-4)
