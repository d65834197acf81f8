import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

CI_GRID = str(Path(__file__).resolve().parents[2] / "train" / "grids" / "ci.toml")
GRID = """
recipe = "tiny"
set = { hidden = 16, steps = 2, train.batch = 2, train.validation_clips = 1 }
parent.set = { steps = 3 }
[[grid]]
axes = { density = [1.0, 0.5], block = ["16x1"] }
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The current folder: grids, and recordings."""
    monkeypatch.chdir(tmp_path)
    for name in ("good", "empty", "one"):
        (tmp_path / name).mkdir()
    for folder, names in (("good", "abc"), ("one", "a")):
        for name in names:
            noise_T = 0.1 * np.random.default_rng(0).normal(size=4000)
            soundfile.write(tmp_path / folder / f"{name}.wav", noise_T, 22_050)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "subscale.toml").write_text('recipe = "tiny"\n[[grid]]\naxes.subscale = [7]')
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    return tmp_path


def test_a_dry_run_prints_the_plan_and_writes_nothing(desk, wavernn):
    before = sorted(desk.rglob("*"))
    line = ["sweep", "grid.toml", "--data", "good", "--out", "out", "--dry-run"]
    line += ["--rate", "1", "--workers", "2"]
    done = wavernn(*line, "--json")
    (text,) = done.out.splitlines()
    table = json.loads(text)
    assert done.code == 0
    assert [row["run"] for row in table["plan"]] == [
        *("parent-h16-seed0", "density1.0-16x1", "density0.5-16x1")
    ]
    assert [row["steps"] for row in table["plan"]] == [3, 2, 2]
    assert table["wall_seconds"] == table["train_seconds"] / 2
    done = wavernn(*line)
    assert done.code == 0
    assert re.search(r"density0.5-16x1 +\d+ non-zeros, +3 \+ 2 +steps, .* min", done.out)
    assert "train_hours: " in done.out
    assert sorted(desk.rglob("*")) == before


def test_the_small_sweep_of_the_repository_runs(desk, wavernn):
    done = wavernn("sweep", CI_GRID, "--data", "good", "--out", "out", "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert result["finished"] == result["runs"] == 12
    kinds = [row["kind"] for row in result["rows"]]
    assert (kinds.count("parent"), kinds.count("branch")) == (2, 10)
    assert (desk / "out" / "results.csv").read_text().count("\n") == 13
    page = (desk / "out" / "report.html").read_text()
    assert page.count("<svg") >= 3


def test_without_a_rate_the_machine_is_measured(desk, wavernn):
    done = wavernn("sweep", "grid.toml", "--data", "good", "--out", "out", "--dry-run", "--json")
    assert done.code == 0
    assert json.loads(done.out)["train_seconds"] > 0
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("gone.toml --data good --out out", "can't read grid gone.toml: No such file"),
        ("good --data good --out out", "can't read grid good: Is a directory"),
        ("text --data good --out out", "grid text is not valid TOML: "),
        ("binary.toml --data good --out out", "grid binary.toml is not valid TOML: "),
        ("subscale.toml --data good --out out", "run subscale7: model.subscale must divide"),
        ("grid.toml --data gone --out out", "but gone doesn't exist; give a folder"),
        ("grid.toml --data text --out out", "but text is a file; give a folder"),
        ("grid.toml --data empty --out out", "empty holds no recordings; expected files that"),
        ("grid.toml --data empty --out out --dry-run", "empty holds no recordings; expected"),
        ("grid.toml --data one --out run", "expected at least 2 usable recordings"),
        ("grid.toml --data good --out text", "text: File exists"),
        ("grid.toml --data good --out out --engine slurm", "unknown --engine slurm; known: optuna"),
        ("grid.toml --data good --out out --engine ray", "--engine ray needs the package ray"),
        ("grid.toml --data good --out run --storage x://y", "can't open --storage: .*; expected"),
    ],
)
def test_bad_use_is_a_sentence(desk, wavernn, monkeypatch, line, sentence):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = wavernn("sweep", *line.split())
    assert (done.code, done.out) == (2, "")
    assert re.search(rf"^wavernn: [^\n]*{sentence}[^\n]*\n\Z", done.err, re.M)
    assert "Traceback" not in done.err
    assert not (desk / "out").exists()
    assert not list(desk.rglob("results.csv"))


@pytest.mark.parametrize("option", ["--workers 0", "--rate 0", "--rate nan"])
def test_wrong_numbers_are_wrong_use(desk, wavernn, option):
    done = wavernn("sweep", "grid.toml", "--data", "good", "--out", "out", *option.split())
    assert (done.code, done.out) == (2, "")
    assert option.split()[0] in done.err
    assert not (desk / "out").exists()


@pytest.mark.parametrize("package", ["optuna", "matplotlib"])
def test_a_package_that_is_missing_is_named(desk, wavernn, monkeypatch, package):
    for name in [m for m in sys.modules if m.startswith("wavernn.train.sweep")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = wavernn("sweep", "grid.toml", "--data", "good", "--out", "out")
    assert done.code == 2
    assert f"wavernn sweep needs the package {package}: pip install 'wavernn[train]'" in done.err
    assert not (desk / "out").exists()
