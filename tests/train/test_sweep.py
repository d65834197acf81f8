import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from wavernn import checkpoint, recipe
from wavernn.errors import BackendUnavailable, ConfigError, DataError, TrainingError
from wavernn.train.evaluate import choose
from wavernn.train.features import build
from wavernn.train.validate import bits_per_sample, make_slices

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

from wavernn.train import sweep_run, sweep_work
from wavernn.train.sweep import sweep
from wavernn.train.sweep_bits import engine_bits
from wavernn.train.sweep_grid import load
from wavernn.train.sweep_table import TIMINGS

MAIN = "from wavernn.cli import main\nif __name__ == '__main__':\n    main()\n"

# two parents, and two branches of each
GRID = """
recipe = "quick.toml"
set = { hidden = 32, steps = 6, prune = { start_step = 1, ramp_steps = 4, every_steps = 1 } }
parent.set = { steps = 8 }
evaluate = { clips = 1, seconds_per_clip = 0.1, backend = "reference" }
[[grid]]
set.heads = 1.0
axes = { density = [1.0, 0.25], seed = [0, 1] }
"""
NAMES = ["density1.0-seed0", "density1.0-seed1", "density0.25-seed0", "density0.25-seed1"]
PARENTS = ["parent-h32-seed0", "parent-h32-seed1"]


def read(out):
    """The rows of a table, without what differs when a run is repeated."""
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


@pytest.fixture(scope="module")
def desk(tmp_path_factory, recipe_path):
    """A folder with a grid and its recipe."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "quick.toml").write_bytes(recipe_path.read_bytes())
    (folder / "grid.toml").write_text(GRID, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plan(desk):
    return load(desk / "grid.toml")


@pytest.fixture(scope="module")
def swept(desk, plan, data):
    """The folder of a sweep that was never stopped, by one thread: weights depend on how many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outcome = sweep(plan, data, desk / "swept")
    torch.set_num_threads(threads)
    assert (outcome["runs"], outcome["finished"], outcome["elsewhere"]) == (6, 6, 0)
    return desk / "swept"


@pytest.fixture
def start(desk, data):
    """Starts `wavernn sweep` in a process of its own."""
    started = []

    def run(name, *options, grid="grid.toml"):
        # a script, since spawned workers import what the first process ran
        (desk / "main.py").write_text(MAIN)
        command = [sys.executable, desk / "main.py", "sweep", desk / grid, "--data", data]
        process = subprocess.Popen(
            [*map(str, command), "--out", str(desk / name), *options],
            cwd=desk,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_the_table_has_a_row_for_every_run(swept):
    rows = read(swept)
    assert [row["run"] for row in rows] == PARENTS + NAMES
    assert [row["kind"] for row in rows] == 2 * ["parent"] + 4 * ["branch"]
    # what the runs had seen is said of each
    steps = [(row["parent_steps"], row["steps"], row["total_steps"]) for row in rows]
    assert steps == 2 * [("0", "8", "8")] + 4 * [("8", "6", "14")]
    assert [row["nonzeros"] for row in rows] == 4 * ["20480"] + 2 * ["18176"]
    assert {row["density_R_u"] for row in rows[4:]} == {"0.25"}
    assert {row["density_O1"] for row in rows} == {"1.0"}
    for row in rows:
        bits = float(row["bits_coarse"]) + float(row["bits_fine"])
        assert float(row["bits_per_sample"]) == pytest.approx(bits)
        assert float(row["mel_l1"]) > 0
        assert row["format"] == "float32"


def test_a_row_is_enough_to_repeat_its_run(desk, swept, data):
    row = read(swept)[-1]
    config = recipe.load(str(desk / row["recipe"]), shlex.split(row["overrides"])[1::2])
    folder = swept / "runs" / row["folder"]
    voice = checkpoint.load(folder / "checkpoint.safetensors")
    assert voice.config == config
    assert voice.sha256 == row["voice_sha256"]
    assert voice.provenance["data_sha256"] == row["data_sha256"]
    assert voice.provenance["commit"] == (row["commit"] or None)
    # as the README says: the same voice comes of it, to the last bit
    from wavernn.train.loop import train

    init_from = swept / "runs" / row["init_from"]
    path = train(config, data, desk / "again", init_from=init_from)
    again = checkpoint.load(path)
    assert all(np.array_equal(again.tensors[k], v) for k, v in voice.tensors.items())


def test_branches_start_from_the_weights_of_their_parent(swept):
    rows = {row["run"]: row for row in read(swept)}
    for name in NAMES:
        row = rows[name]
        parent = rows[row["parent"]]
        assert (row["seed"], row["parent_steps"]) == (parent["seed"], parent["steps"])
        assert row["init_from"] == f"{parent['folder']}/checkpoint.safetensors"
        voice = checkpoint.load(swept / "runs" / row["folder"] / "checkpoint.safetensors")
        assert voice.provenance["init_from"]["sha256"] == parent["voice_sha256"]


def test_the_report_holds_its_plots_and_loads_nothing(swept):
    page = (swept / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 3
    for label in ("non-zero weights", "real-time factor", "mel L1", "PESQ", "density", "seeds"):
        assert label in page
    assert "Every run has seen 14 optimizer steps: 8 as a dense parent" in page
    for name in ("density1.0", "density0.25", "parent-h32"):
        assert f"<td>{name}</td><td>2</td>" in page
    loads = re.findall(r"(?:src|href)=[\"']([^\"'#][^\"']*)", page)
    assert set(loads) == {"results.csv"}
    assert not re.search(r"@import|url\((?!#)", page)


def test_a_finished_sweep_is_not_run_again(desk, plan, data, swept, monkeypatch, capfd):
    before = {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()}
    monkeypatch.setattr(sweep_work, "train_run", None)
    outcome = sweep(plan, data, swept)
    assert outcome["finished"] == 6
    changed = [path for path, old in before.items() if path.read_bytes() != old]
    # where it's noted that the sweep was opened once more
    assert [path.name for path in changed] == ["trials.journal"]
    assert "6 runs, 6 of them finished before" in capfd.readouterr().err


def test_a_sweep_that_is_judged_in_another_way_is_not_trained_again(desk, data, swept, monkeypatch):
    (desk / "judged.toml").write_text(GRID.replace("clips = 1", "clips = 2"))
    monkeypatch.setattr(sweep_run, "train", None)
    before = read(swept)
    sweep(load(desk / "judged.toml"), data, swept)
    after = read(swept)
    assert {row["clips"] for row in after} == {"2"}
    assert [row["voice_sha256"] for row in after] == [row["voice_sha256"] for row in before]
    # the rows of before are kept, for when they are asked for again
    sweep(load(desk / "grid.toml"), data, swept)
    assert read(swept) == before


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def finished(out):
    journal = out / "trials.journal"
    return journal.read_text().count('"state":1') if journal.exists() else 0


def test_a_sweep_that_is_killed_and_started_again_gives_the_same_table(desk, swept, start):
    out = desk / "killed"
    for count in (2, 4):
        process = start("killed")
        wait_for(lambda count=count: finished(out) >= count, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = finished(out)
    assert 4 <= done < 6
    process = start("killed", "--json")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert f"6 runs, {done} of them finished before" in stderr
    assert finished(out) == 6
    assert read(out) == read(swept)
    outcome = json.loads(stdout)
    assert (outcome["finished"], len(outcome["rows"])) == (6, 6)


def test_two_workers_share_the_runs(desk, swept, start):
    process = start("shared", "--workers", "2")
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    for name in PARENTS + NAMES:
        assert stderr.count(f"{name}: ") == 1
    assert "6 of 6 runs done" in stderr
    assert "finished: 6" in stdout
    assert finished(desk / "shared") == 6
    assert read(desk / "shared") == read(swept)


def test_workers_end_with_the_process_that_started_them(desk, start):
    process = start("orphans", "--workers", "2")
    out = desk / "orphans"
    wait_for(lambda: finished(out) >= 1, process)
    process.kill()
    process.wait()
    # both ends of its pipes are closed when the last of them is gone
    process.communicate(timeout=60)
    assert finished(out) < 6


def test_a_run_that_fails_is_named_and_the_others_go_on(desk, data, monkeypatch, capfd):
    (desk / "some.toml").write_text(
        'recipe = "quick.toml"\nset = { hidden = 32, steps = 2 }\n'
        'evaluate = { clips = 1, seconds_per_clip = 0.1, backend = "reference" }\n'
        "[[grid]]\naxes.seed = [0, 1]\n"
    )
    plan, train = load(desk / "some.toml"), sweep_run.train

    def diverge(config, *more, **named):
        if config.train.seed == 0:
            raise TrainingError("it diverged")
        return train(config, *more, **named)

    monkeypatch.setattr(sweep_run, "train", diverge)
    sentence = "1 of 2 runs failed, the first of them seed0: it diverged; the others are in .*csv"
    with pytest.raises(TrainingError, match=sentence):
        sweep(plan, data, desk / "failed")
    assert "seed0 failed: it diverged" in capfd.readouterr().err
    assert [row["run"] for row in read(desk / "failed")] == ["seed1"]
    monkeypatch.undo()
    sweep(plan, data, desk / "failed")
    assert [row["run"] for row in read(desk / "failed")] == ["seed0", "seed1"]


def test_a_run_that_was_killed_between_its_first_files_begins_again(desk, plan, data, swept):
    run = plan.runs[0]
    folder = desk / "half"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(b"half")
    path = sweep_run.train_run(run, folder, None, data, swept / "features")
    assert checkpoint.load(path).sha256 == read(swept)[0]["voice_sha256"]


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"engine": "slurm"}, ConfigError, "unknown --engine slurm; known: optuna, ray"),
        ({"engine": "ray"}, ConfigError, "--engine ray needs the package ray, which isn't inst"),
        ({"data": "gone"}, DataError, "expected a folder of recordings, but .*gone doesn't exist"),
        ({"format": "int4"}, BackendUnavailable, "the reference has no format int4; known"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    desk, plan, data, monkeypatch, options, kind, sentence
):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = desk / "refused"
    format = options.pop("format", None)
    if format:
        text = GRID.replace("clips = 1", f'clips = 1, formats = ["{format}"]')
        (desk / "format.toml").write_text(text)
        plan = load(desk / "format.toml")
    with pytest.raises(kind, match=sentence):
        sweep(plan, desk / options.pop("data", data), out, **options)
    assert not out.exists()


def test_ray_runs_the_same_workers(desk, plan, data, monkeypatch):
    class Ray:
        """The few functions of ray that are used, one after another."""

        @staticmethod
        def init(ignore_reinit_error):
            assert ignore_reinit_error

        @staticmethod
        def cluster_resources():
            return {"CPU": 2.0}

        @staticmethod
        def remote(num_cpus, num_gpus):
            assert (num_cpus, num_gpus) == (1, 0)

            def decorate(work):
                return type("Task", (), {"remote": staticmethod(work)})

            return decorate

        @staticmethod
        def get(results):
            assert results == [None, None]

    monkeypatch.setitem(sys.modules, "ray", Ray)
    ran = []
    monkeypatch.setattr(sweep_work, "work", lambda job: ran.append(job.out))
    outcome = sweep(plan, data, desk / "ray", workers=2, engine="ray")
    assert ran == 2 * [desk / "ray"]
    assert outcome["finished"] == 0


def test_an_engine_scores_what_torch_scores(swept, data):
    folder = next((swept / "runs").glob("density0.25-seed0-*"))
    voice = checkpoint.load(folder / "checkpoint.safetensors")
    features = build(choose(voice, data, False), swept / "features", voice.config)
    model = voice.model()
    slices = make_slices(features, model, voice.tensors["R"].device)
    for seconds in (0.1, 1e9):
        expected = bits_per_sample(model, features, slices, np.arange(2), seconds)
        scored = engine_bits(voice, "reference", None, features, seconds)
        for key in ("bits_per_sample", "bits_coarse", "bits_fine"):
            assert scored[key] == pytest.approx(expected[key], abs=1e-4)
