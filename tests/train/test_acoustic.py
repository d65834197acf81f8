"""An acoustic model's runs: corpus, training, going on, and what is refused."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn import acoustic_checkpoint, acoustic_config, recipe
from wavernn.audio import write_audio
from wavernn.errors import ConfigError, DataError, TrainingError
from wavernn.narration import Narrator, ShippedAcoustic
from wavernn.train import corpus
from wavernn.train.acoustic import _rates, train
from wavernn.train.acoustic_batches import Order, Statistics, collate
from wavernn.train.acoustic_report import AcousticReport

TEXTS = ["See the sea.", "A red boat", "Ten men", "Go on, then!", "We saw it", "Why not?"]
RECIPE = """
kind = "acoustic"

[mel]
rate_hz = 8000
fft_samples = 256
window_samples = 256
hop_samples = 64
bands = 16
high_hz = 4000

[model]
channels = 16
encoder_layers = 1
attention_layers = 1
decoder_layers = 2
prosody_channels = 8

[train]
steps = 12
batch = 2
warmup_steps = 2
prosody_steps = 8
align_rounds = 2
validate_every_steps = 4
save_every_steps = 4
log_every_steps = 2
validation_clips = 2
"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Six recordings of noise and tones, with texts."""
    folder = tmp_path_factory.mktemp("spoken")
    random = np.random.default_rng(0)
    for number, text in enumerate(TEXTS):
        T = 8_000 + 700 * number
        time_T = np.arange(T) / 8_000
        tone_T = np.sin(2 * np.pi * (120 + 10 * number) * time_T) * (np.sin(9 * time_T) > 0)
        audio_T = 0.2 * tone_T + 0.01 * random.standard_normal(T)
        write_audio(folder / f"clip{number}.wav", audio_T, 8_000)
        (folder / f"clip{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(recipe_path):
    return acoustic_config.from_dict(recipe.read(str(recipe_path)))


@pytest.fixture(scope="module")
def read(spoken, config, tmp_path_factory):
    return corpus.build(spoken, tmp_path_factory.mktemp("cache"), config)


def tensors(run):
    return acoustic_checkpoint.load(run / "checkpoint.safetensors").tensors


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_corpus_fills_each_recording_with_its_text(read):
    assert [u.name for u in read.utterances] == [f"clip{i}" for i in range(6)]
    for number, utterance in enumerate(read.utterances):
        T = 8_000 + 700 * number
        assert utterance.frames == -(-T // 64) == len(read.mel(utterance))
        assert len(utterance.tokens) == len(utterance.duration_J) == len(utterance.ids_J2)
        kept = utterance.duration_J > 0
        assert np.isfinite(utterance.energy_J[kept]).all()
        assert np.isnan(utterance.energy_J[~kept]).all()
    voiced = np.concatenate([u.pitch_J for u in read.utterances])
    assert np.nanmedian(np.exp(voiced)) == pytest.approx(145, abs=30)
    assert read.speakers == ("small",)


def test_a_corpus_is_read_again_without_aligning(spoken, config, tmp_path, monkeypatch):
    first = corpus.build(spoken, tmp_path, config)
    monkeypatch.setattr(corpus, "align", lambda *_: pytest.fail("aligned again"))
    again = corpus.build(spoken, tmp_path, config)
    for one, other in zip(first.utterances, again.utterances, strict=True):
        assert (one.duration_J == other.duration_J).all()
    # other texts are another corpus
    data = tmp_path / "data"
    shutil.copytree(spoken, data)
    (data / "clip0.txt").write_text("Sea the see, sir.", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="aligned again"):
        corpus.build(data, tmp_path, config)


def test_folders_name_speakers(spoken, config, tmp_path):
    for number, path in enumerate(sorted(spoken.iterdir())):
        folder = tmp_path / "data" / "ab"[number // 6]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)
    found = corpus.build(tmp_path / "data", tmp_path / "cache", config)
    assert found.speakers == ("a", "b")
    assert [u.speaker for u in found.utterances] == [0, 0, 0, 1, 1, 1]


def test_what_has_no_text_or_too_much_is_left_out_by_name(spoken, config, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(spoken, data)
    (data / "clip0.txt").unlink()
    (data / "clip1.txt").write_text("a very long text " * 30, encoding="utf-8")
    (data / "clip2.txt").write_text("***", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = corpus.build(data, tmp_path / "cache", config)
    assert [u.name for u in found.utterances] == ["clip3", "clip4", "clip5"]
    assert "left out: clip0 has no transcript" in caplog.text
    assert "left out: clip1 is too short for its text" in caplog.text
    assert "left out: clip2: " in caplog.text


def test_a_folder_without_transcripts_is_refused(spoken, config, tmp_path):
    shutil.copy(spoken / "clip0.wav", tmp_path)
    with pytest.raises(DataError, match=r"holds no transcripts; expected NAME\.txt beside"):
        corpus.build(tmp_path, tmp_path / "cache", config)


def test_batches_hold_what_the_utterances_hold(read):
    statistics = Statistics.of(read.utterances, 1)
    batch = collate(read, read.utterances[:3], statistics)
    for b, u in enumerate(read.utterances[:3]):
        J = len(u.tokens)
        assert (batch.ids_BJ2[b, :J].numpy() == u.ids_J2).all()
        assert (batch.ids_BJ2[b, J:] == -1).all()
        assert batch.duration_BJ[b].sum() == u.frames == batch.mask_BN[b].sum()
        assert (batch.mel_BNM[b, : u.frames].numpy() == read.mel(u)).all()
        known = np.isfinite(u.pitch_J)
        assert (batch.voiced_BJ[b, :J].numpy() == known).all()
        mean, deviation = statistics.pitch_S2[0]
        units = (u.pitch_J[known] - mean) / deviation
        np.testing.assert_allclose(batch.target.pitch[b, :J].numpy()[known], units, rtol=1e-4)
    x_N = np.concatenate([np.repeat(u.energy_J, u.duration_J) for u in read.utterances])
    np.testing.assert_allclose(statistics.energy_S2[0], [x_N.mean(), x_N.std()], rtol=1e-5)


def test_an_epoch_takes_each_utterance_once_and_steps_may_be_asked_in_any_order():
    frames = np.random.default_rng(1).integers(50, 900, 100)
    order = Order(frames, 8, seed=3)
    epoch = [order.batch_of(step) for step in range(12)]
    assert len(set(np.concatenate(epoch).tolist())) == 96
    assert (Order(frames, 8, seed=3).batch_of(17) == order.batch_of(17)).all()
    assert (order.batch_of(0) == epoch[0]).all()
    assert not np.array_equal(Order(frames, 8, seed=4).batch_of(0), epoch[0])
    # neighbours in length, so that little is padded
    padded = sum(8 * frames[batch].max() for batch in epoch) / frames[np.concatenate(epoch)].sum()
    assert padded < 1.2
    assert sorted(Order([5, 6, 7], 8, seed=0).batch_of(0)) == [0, 1, 2]


def test_a_run_learns_and_leaves_a_model_that_speaks(spoken, config, tmp_path):
    longer = replace(config, train=replace(config.train, steps=60, prosody_steps=60))
    report = AcousticReport(tmp_path / "run")
    path = train(longer, spoken, tmp_path / "run", report=report, licence="CC0")
    rows = [json.loads(r) for r in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(4, 61, 4))
    assert rows[-1]["mel"] < 0.9 * rows[0]["mel"]
    assert rows[-1]["duration"] < 0.7 * rows[0]["duration"]
    found = acoustic_checkpoint.load(path)
    assert found.provenance["steps"] == 60
    assert found.provenance["data_licence"] == "CC0"
    assert len(found.provenance["held_out"]) == 2
    assert found.provenance["metrics"] == rows[-1]
    mel_NM = np.concatenate(list(Narrator(ShippedAcoustic(found)).frames("The sea.")))
    assert mel_NM.shape[1] == 16 and np.isfinite(mel_NM).all()
    assert list((tmp_path / "run/log").iterdir())


def test_prosody_is_learnt_in_the_first_steps_alone(spoken, config, tmp_path, monkeypatch):
    rates = _rates(0, config.train), _rates(7, config.train), _rates(8, config.train)
    assert rates[0] == (config.train.learning_rate / 2, config.train.prosody_learning_rate / 2)
    assert rates[1][1] > 0 == rates[2][1] < rates[2][0]
    short = replace(config, train=replace(config.train, ema=0.0, prosody_steps=4))
    train(short, spoken, tmp_path / "whole")
    step = AcousticReport.step

    def stop(self, number, *rest):
        step(self, number, *rest)
        if number == 5:
            raise RuntimeError

    monkeypatch.setattr(AcousticReport, "step", stop)
    with pytest.raises(RuntimeError):
        train(short, spoken, tmp_path / "cut")
    early, late = tensors(tmp_path / "cut"), tensors(tmp_path / "whole")
    for name, value in early.items():
        if name.startswith("prosody."):
            assert torch.equal(value, late[name]), name
    assert not same(early, late)


def test_a_stopped_run_goes_on_bit_for_bit(spoken, config, tmp_path, monkeypatch):
    train(config, spoken, tmp_path / "whole")
    step = AcousticReport.step

    def stop(self, number, *rest):
        if number == 6:
            raise RuntimeError("the power went")
        step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(AcousticReport, "step", stop)
        with pytest.raises(RuntimeError, match="the power went"):
            train(config, spoken, tmp_path / "cut")
    assert not same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
    train(config, spoken, tmp_path / "cut", resume=True)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
    # a finished run has nothing left to do
    train(config, spoken, tmp_path / "cut", resume=True)


def test_a_run_only_goes_on_as_it_began(spoken, config, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"nothing to resume in .*run: it holds no state"):
        train(config, spoken, run, resume=True)
    short = replace(config, train=replace(config.train, steps=4))
    train(short, spoken, run)
    with pytest.raises(TrainingError, match=r"already holds a run \(state\.safetensors\)"):
        train(short, spoken, run)
    other = replace(short, train=replace(short.train, batch=3))
    with pytest.raises(
        TrainingError, match=r"trained otherwise: config\.train\.batch was 2, now 3"
    ):
        train(other, spoken, run, resume=True)
    content = bytearray((run / "state.safetensors").read_bytes())
    content[-9] ^= 1
    (run / "state.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"can't resume: .* is damaged: its sha256"):
        train(short, spoken, run, resume=True)


def test_steps_without_finite_gradients_are_skipped_and_counted(
    spoken, config, tmp_path, monkeypatch
):
    clip = torch.nn.utils.clip_grad_norm_
    count = [0]

    def broken(*args, **kwargs):
        norm = clip(*args, **kwargs)
        count[0] += 1
        return norm * float("nan") if count[0] in (2, 3) else norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    path = train(config, spoken, tmp_path / "run")
    assert acoustic_checkpoint.load(path).provenance["skipped_steps"] == 2
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="not finite 10 times in a row, up to step 10"):
        train(config, spoken, tmp_path / "other")


def test_the_command_trains_by_the_kind_of_the_recipe(spoken, recipe_path, tmp_path):
    command = [sys.executable, "-m", "wavernn", "train", str(recipe_path), "--data", str(spoken)]
    command += ["--out", str(tmp_path / "run"), "--set", "train.steps=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "run" / "checkpoint.safetensors")
    assert "step 4: validation mel" in done.stderr
    refused = subprocess.run(
        [*command, "--init-from", "default"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_a_vocoders_key_is_none_of_an_acoustic_models(recipe_path):
    with pytest.raises(ConfigError, match="unknown key prune"):
        acoustic_config.from_dict(recipe.read(str(recipe_path), ["prune.start_step=3"]))
