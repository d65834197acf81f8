import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from wavernn import checkpoint
from wavernn.errors import TrainingError
from wavernn.train import loop
from wavernn.train.loop import learning_rate
from wavernn.train.report import Report
from wavernn.train.state import RunState


class Watch(Report):
    """Keeps what the loop tells."""

    def __init__(self):
        super().__init__(None)
        self.steps, self.sentences = [], []

    def stepped(self, state, coarse, fine, norm, rate):
        self.steps.append((state.step, float(coarse.detach() + fine.detach()), norm, rate))

    def say(self, sentence):
        self.sentences.append(sentence)


def test_a_short_run_learns_and_leaves_a_voice(runs):
    watch = Watch()
    path = runs.train("a", "train.steps=60", "train.learning_rate=2e-2", report=watch)
    assert path == runs.folder / "a" / "checkpoint.safetensors"
    losses = [loss for _, loss, _, _ in watch.steps]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    voice = checkpoint.load(path)
    assert voice.provenance["steps"] == 60
    assert voice.provenance["samples"] == 60 * 4 * 128
    assert voice.provenance["metrics"]["step"] == 60
    assert voice.provenance["skipped_steps"] == 0


def test_learning_rate_warms_up_and_falls_as_a_cosine(quick):
    train = quick("train.steps=104", "train.learning_rate=0.1", "train.final_rate=0.2").train
    rates = [learning_rate(step, train) for step in range(5)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert learning_rate(54, train) == pytest.approx(0.1 * (0.2 + 0.8 / 2))
    assert learning_rate(4 + 25, train) == pytest.approx(
        0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    )
    assert learning_rate(104, train) == pytest.approx(0.02)
    assert learning_rate(0, quick("train.warmup_steps=0").train) == 2e-3
    assert learning_rate(3, quick("train.warmup_steps=30", "train.steps=4").train) < 2e-3


def test_the_optimizer_runs_at_the_scheduled_rate(runs, quick):
    watch = Watch()
    runs.train("a", report=watch)
    assert [rate for *_, rate in watch.steps] == [
        learning_rate(i, quick().train) for i in range(24)
    ]


def test_what_brings_the_context_in_learns_faster(runs, monkeypatch):
    moved = {}
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        weights = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in weights]
        step(self, *args, **kwargs)
        largest = [
            float((p.detach() - old).abs().max()) for p, old in zip(weights, before, strict=True)
        ]
        moved.update(zip((id(p) for p in weights), largest, strict=True))

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    models = []
    watch = Watch()
    watch.stepped = lambda state, *rest: models.append(state.model)
    settings = ("model.subscale=4", "model.context_channels=16", "train.steps=1")
    runs.train("a", *settings, "train.warmup_steps=0", "train.learning_rate=1e-3", report=watch)
    # Adam's first step moves a weight by the rate, whatever its gradient
    assert moved[id(models[0].R)] == pytest.approx(1e-3, rel=1e-3)
    assert moved[id(models[0].X)] == pytest.approx(5e-3, rel=1e-3)
    assert len(moved) == len(list(models[0].parameters()))


def test_gradients_are_cut_to_the_clip(runs, monkeypatch):
    seen = []
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    watch = Watch()
    runs.train("a", "train.clip=0.05", "train.steps=4", report=watch)
    assert min(norm for _, _, norm, _ in watch.steps) > 0.05
    assert seen == pytest.approx([0.05] * 4, rel=1e-4)


def test_averages_follow_their_equation(runs, monkeypatch):
    weights = []
    average = RunState.average

    def spy(self):
        average(self)
        weights.append((self.model.R.detach().clone(), self.ema["R"].clone()))

    monkeypatch.setattr(RunState, "average", spy)
    runs.train("a", "train.steps=12", "train.ema=0.5", "prune.start_step=100")
    for step, ((_, before), (R, after)) in enumerate(pairwise(weights), 2):
        decay = min(0.5, (1 + step) / (10 + step))
        torch.testing.assert_close(after, decay * before + (1 - decay) * R)
    # what is saved is the average, not the weights themselves
    _, tensors = runs.voice("a")
    assert torch.equal(tensors["R"], weights[-1][1])
    assert not torch.equal(tensors["R"], weights[-1][0])


def poison(monkeypatch, bad_steps):
    """Makes loss and state of some steps NaN."""
    count = iter(range(1000))
    loss_parts = loop.loss_parts

    def poisoned(*args):
        coarse, fine, h_BH = loss_parts(*args)
        factor = math.nan if next(count) in bad_steps else 1.0
        return coarse * factor, fine, h_BH * factor

    monkeypatch.setattr(loop, "loss_parts", poisoned)


def test_steps_with_bad_gradients_are_skipped_and_counted(runs, monkeypatch):
    poison(monkeypatch, {5, 6, 9})
    watch = Watch()
    runs.train("a", "train.nan_patience=3", report=watch)
    body, tensors = runs.state("a")
    assert body["skipped"] == 3
    assert watch.sentences[1:] == [
        f"step {i} skipped: its gradients are not finite" for i in (6, 7, 10)
    ]
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    # Adam has not seen the skipped steps
    assert tensors["adam.0.step"] == 24 - 3
    metadata, _ = runs.voice("a")
    assert '"skipped_steps": 3' in metadata["body"]
    assert checkpoint.load(runs.folder / "a" / "checkpoint.safetensors")


def test_too_many_bad_steps_end_the_run_with_advice(runs, monkeypatch):
    poison(monkeypatch, range(11, 100))
    sentence = (
        "not finite 3 times in a row, up to step 14; try a lower train.learning_rate "
        r"in another --out, with --init-from .*a/checkpoint\.safetensors if"
    )
    with pytest.raises(TrainingError, match=sentence) as raised:
        runs.train("a", "train.nan_patience=3")
    assert "\n" not in str(raised.value)
    # the save of step 12 was taken within the bad steps and is good
    body, tensors = runs.state("a")
    assert (body["step"], body["skipped"]) == (12, 1)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    voice = checkpoint.load(runs.folder / "a" / "checkpoint.safetensors")
    assert voice.provenance["steps"] == 12
    # and the advice works
    monkeypatch.undo()
    source = runs.folder / "a" / "checkpoint.safetensors"
    runs.train("b", "train.learning_rate=1e-4", init_from=source)
    assert runs.state("b")[0]["step"] == 24
