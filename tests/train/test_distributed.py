import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

# trains as the command line does, then each process writes its own weights down; a signal comes
# to the second process alone
DRIVER = """
import os, signal, sys
from pathlib import Path
import safetensors.torch
from wavernn import recipe
from wavernn.train import loop, sampler

recipe_path, data, run, stop_at, *overrides = sys.argv[1:]
rank = int(os.environ["RANK"])
sessions, cut, open_session = [], sampler.Batches.next, loop.Session.open

def next_batch(self, step):
    if rank == 1 and step == int(stop_at):
        signal.raise_signal(signal.SIGTERM)
    return cut(self, step)

def keep(*arguments):
    sessions.append(open_session(*arguments))
    return sessions[0]

sampler.Batches.next, loop.Session.open = next_batch, keep
config = recipe.load(recipe_path, overrides)
resume = Path(run, "state.safetensors").exists()
loop.train(config, Path(data), Path(run), resume)
weights = sessions[0].state.model.state_dict() | {"h": sessions[0].state.h_BH}
safetensors.torch.save_file(weights, Path(run, f"rank{rank}.safetensors"))
"""


@pytest.fixture
def torchrun(runs):
    """Starts two processes that train together, one thread each; returns the finished process."""
    (runs.folder / "driver.py").write_text(DRIVER, encoding="utf-8")

    def start(*arguments):
        return subprocess.run(
            # --standalone lets the system choose a free port
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            + [str(argument) for argument in arguments],
            cwd=runs.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return start


def test_two_processes_train_as_one_and_resume(runs, torchrun):
    def drive(name, stop_at=-1):
        return torchrun("driver.py", runs.recipe_path, runs.data, runs.folder / name, stop_at)

    done = drive("a", stop_at=9)
    # the first process stops with the second, after the same step
    assert done.returncode == 1
    assert runs.state("a")[0]["step"] == 10
    for name in ("a", "b"):
        done = drive(name)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        ranks = [load_file(runs.folder / name / f"rank{i}.safetensors") for i in (0, 1)]
        assert ranks[0].keys() == ranks[1].keys()
        for key, tensor in ranks[0].items():
            assert torch.equal(tensor, ranks[1][key]), key
    runs.assert_same("a", "b")
    # not bit-equal to one process: sums over a batch, and so the weights, round differently
    runs.train("one")
    body, tensors = runs.state("one")
    other_body, others = runs.state("b")
    assert body["lanes"] == other_body["lanes"]
    for key, tensor in tensors.items():
        if key.startswith(("model.", "ema.", "h")):
            torch.testing.assert_close(tensor, others[key], rtol=0, atol=2e-4)
        if key.startswith("mask."):
            assert torch.equal(tensor, others[key])


def test_a_batch_that_cannot_be_shared_is_refused_by_one_voice(runs, torchrun):
    options = ("--data", runs.data, "--out", runs.folder / "a", "--set", "train.batch=5")
    done = torchrun("-m", "wavernn", "train", runs.recipe_path, *options)
    assert done.returncode == 1
    sentence = "wavernn: train.batch (5) must be a multiple of the number of processes (2); change"
    assert done.stderr.count(sentence) == 1
    # what follows is torchrun's own report
    assert "exitcode  : 2" in done.stderr
    assert not (runs.folder / "a").exists()


def test_a_refusal_that_only_the_first_process_can_tell_ends_both(runs, torchrun):
    runs.train("a", "train.steps=2")
    before = json.dumps(runs.state("a")[0])
    options = ("--data", runs.data, "--out", runs.folder / "a")
    done = torchrun("-m", "wavernn", "train", runs.recipe_path, *options)
    assert done.returncode == 1
    assert done.stderr.count("wavernn: ") == 1
    assert "already holds a run" in done.stderr
    assert json.dumps(runs.state("a")[0]) == before
