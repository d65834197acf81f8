"""The program that a GPU machine runs, on a CPU and in little."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.kernels.gpu import device_bench, device_table
from wavernn.kernels.gpu.device_bench import Stage
from wavernn.kernels.reference import inverse_cdf

# what a GPU machine doesn't have
ABSENT = ("soundfile", "soxr", "typer", "rich", "pytest", "matplotlib", "hypothesis")


@pytest.fixture(scope="module", autouse=True)
def triton(absent):
    if importlib.util.find_spec("triton") is None:
        absent("gpu", "triton isn't installed")


@pytest.fixture
def device_run():
    from wavernn.kernels.gpu import device_run

    return device_run


def run(path, *arguments):
    path = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "wavernn.kernels.gpu.device_bench", *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_all_of_it_in_little(tmp_path):
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    (tmp_path / "sitecustomize.py").write_text(blocked)
    out = tmp_path / "new" / "gpu.jsonl"
    # those that are written in Gluon have no interpreter
    done = run(
        tmp_path, "--interpret", "--out", str(out), "--kernels", "exchange", "graph", "subscale"
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row for row in rows if not row["ok"]] == [], done.stderr
    assert done.returncode == 0
    assert {"device", "exchange", "judge", "correct", "same", "speed", "utterance", "chunk"} <= {
        row["bench"] for row in rows
    }
    assert {row["voice"] for row in rows if row["bench"] == "speed"} == set(device_bench.VOICES)
    for title in ("## Exchange", "## Draws", "## Speed", "## Latency"):
        assert title in done.stdout
    assert done.stdout.endswith(f"{len(rows)} rows, 0 failed.\n")


def test_a_stage_that_breaks_is_a_row():
    (row,) = device_bench.child(Stage("graph", "no-such-voice"), True, 60)
    assert row["bench"] == "failure" and not row["ok"]
    assert row["reason"].startswith("ended with 1: ")
    assert "unknown recipe no-such-voice" in row["reason"]


def test_a_stage_that_hangs_is_ended(tmp_path):
    (row,) = device_bench.child(Stage("graph", "dense-896"), True, 0.01)
    assert row["reason"].startswith("not done within 0 s")


def test_failures_are_counted_and_shown(tmp_path):
    out = tmp_path / "gpu.jsonl"
    done = run(
        tmp_path, *("--interpret", "--out", str(out), "--kernels", "exchange"), "--seconds=0"
    )
    assert done.returncode == 1
    assert "## Failed" in done.stdout
    assert done.stdout.endswith("2 rows, 2 failed.\n")
    assert [json.loads(line)["bench"] for line in out.read_text().splitlines()] == [
        "failure",
        "failure",
    ]


def test_every_kernel_runs_every_voice_and_its_own_first():
    stages = device_bench.stages(False)
    assert len(stages) == len(set(stages)) == 2 + 5 * 3 + 2
    assert [str(stage) for stage in stages[:3]] == ["device", "exchange", "resident sparse-512"]
    # an interpreter takes long
    few = device_bench.stages(True)
    assert stages[: len(few)] == few and {stage.kernel for stage in few} > set(
        device_bench.MADE_FOR
    )


def draws(samples=50):
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (2, samples, 2, 256))
    uniform = random.random((2, samples, 2)).astype(np.float32)
    codes = np.empty(uniform.shape, np.uint8)
    for place in np.ndindex(codes.shape):
        codes[place] = inverse_cdf(torch.from_numpy(logits[place]), float(uniform[place]))
    return logits, uniform, codes


def test_exact_draws_are_right(device_run):
    wrong, worst = device_run.off_edges(*draws())
    assert len(wrong) == 0 and worst == 0


def test_a_wrong_draw_is_found(device_run):
    logits, uniform, codes = draws()
    codes[1, 7, 0] += 40
    wrong, worst = device_run.off_edges(logits, uniform, codes)
    assert wrong.tolist() == [[1, 7, 0]]
    assert worst > 0.01


def test_a_draw_on_an_edge_is_near_it(device_run):
    logits, uniform, codes = draws()
    p = torch.softmax(torch.from_numpy(logits[0, 3, 1]), 0).cumsum(0)
    uniform[0, 3, 1] = float(p[int(codes[0, 3, 1])]) + 1e-6
    wrong, worst = device_run.off_edges(logits, uniform, codes)
    assert wrong.tolist() == [[0, 3, 1]]
    assert 0 < worst < 2e-6


def test_a_kernel_of_another_model_is_found(device_run, make_kernel, monkeypatch):
    plan, voice = make_kernel
    (right, *_) = device_run.correctness("graph", voice, plan)
    assert right["ok"]
    judged = replace(voice, tensors=dict(voice.tensors) | {"O1.bias": voice.tensors["O1.bias"] + 1})
    monkeypatch.setattr(device_run, "judged", lambda kernel, voice: judged)
    (wrong, *_) = device_run.correctness("graph", voice, plan)
    assert not wrong["ok"] and wrong["on_edges"] > 1 and wrong["furthest"] > 0.01
    # the first sample that differs, of whatever stream
    assert wrong["first"][1] == 0


@pytest.fixture
def make_kernel(make_small):
    from wavernn.kernels.gpu.device_work import SMALL

    return replace(SMALL, checked=(20,)), make_small


@pytest.fixture
def make_small():
    from wavernn import recipe
    from wavernn.kernels.bench import random_voice
    from wavernn.kernels.gpu.device_work import lively

    sizes = ["model.hidden=32", "model.projection=16", "model.channels=4"]
    return lively(random_voice(recipe.load("dense-896", sizes)))


def test_a_table_shows_what_there_is():
    rows = [
        {
            "bench": "exchange",
            "protocol": "tag64",
            "programs": 8,
            "ns": 1234.5,
            "wrong": 0,
            "ok": True,
        },
        {"bench": "failure", "kernel": "group", "voice": "v", "reason": "a | b", "ok": False},
    ]
    text = device_table.tables(rows)
    assert "| tag64 | 8 | 1,234 | 0 |" in text
    assert "| group, v | a / b |" in text
    assert "## Speed" not in text
    assert text.endswith("2 rows, 1 failed.")
