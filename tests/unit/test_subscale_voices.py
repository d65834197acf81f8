"""A subscale voice through what the public face has: files, vocoder, cost, bench, training time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn import checkpoint, cost, kernels, recipe
from wavernn.audio import de_emphasis, decode
from wavernn.conditioning import Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.errors import BackendUnavailable
from wavernn.kernels import native, reference_subscale
from wavernn.kernels.bench import bench, random_voice
from wavernn.kernels.native import UTTERANCE_PARTS
from wavernn.kernels.tune import tune
from wavernn.rng import uniforms
from wavernn.subscale import Order
from wavernn.train.throughput import bench_training
from wavernn.vocoder import Vocoder

HOP, BANDS = 16, 5
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000.0
)
SIZES = {"hidden": 32, "projection": 8, "embedding": 2, "channels": 6, "layers": 1}
SIZES |= {"conditioning_hop_samples": 8, "subscale": 4, "subscale_horizon": 2}
SIZES |= {"context_channels": 8, "context_layers": 2}


def make_voice(**fields):
    prune = PruneConfig(density={"X_r": 0.5, "R_u": 0.5})
    return random_voice(Config("small", MEL, ModelConfig(**(SIZES | fields)), prune))


def make_mel(frames):
    noise = np.random.default_rng(0).normal(size=(frames, BANDS))
    return (MEL.floor_value / 2 - MEL.floor_value / 4 * noise).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 11])
def test_a_mel_becomes_as_many_samples_as_it_says(frames):
    voice, mel_NM = make_voice(), make_mel(frames)
    whole = Vocoder(voice, "reference").synthesize(mel_NM, seed=3)
    assert whole.shape == (frames * HOP,)
    gates_NG = [*Conditioning(voice).push(torch.from_numpy(mel_NM), last=True)]
    synthesizer = reference_subscale.Synthesizer(voice)
    codes = synthesizer.run(torch.cat(gates_NG), uniforms(3, 0, frames * HOP), True)
    expected, _ = de_emphasis(decode(codes), voice.config.model.pre_emphasis)
    assert (whole == np.clip(expected, -1, 32767 / 32768).astype(np.float32)).all()


def test_a_stream_is_the_whole_and_late_by_what_is_stated():
    vocoder, mel_NM = Vocoder(make_voice(), "reference"), make_mel(12)
    whole = vocoder.synthesize(mel_NM)
    assert vocoder.delay_samples == Order(4, 2).lookahead_samples == 33
    pushed, pieces, late = 0, [], []

    def frames():
        nonlocal pushed
        for frame_1M in mel_NM[:, None]:
            pushed += HOP
            yield frame_1M

    for piece in vocoder.stream(frames()):
        assert len(piece)
        pieces.append(piece)
        late.append(pushed - sum(map(len, pieces)))
    assert (np.concatenate(pieces) == whole).all()
    # the conditioner has its own look-ahead, in frames
    ahead = vocoder.voice.config.model.lookahead_frames * HOP
    assert max(late) <= vocoder.delay_samples + ahead
    assert late[-1] == 0
    assert Vocoder(make_voice_plain(), "reference").delay_samples == 0


def test_a_voice_goes_through_a_file(tmp_path):
    voice = make_voice()
    checkpoint.save(tmp_path / "voice.safetensors", voice)
    read = checkpoint.load(tmp_path / "voice.safetensors")
    assert read.config == voice.config and read.sha256 == voice.sha256
    mel_NM = make_mel(3)
    spoken = [Vocoder(v, "reference").synthesize(mel_NM) for v in (voice, read)]
    assert (spoken[0] == spoken[1]).all()


def test_a_plain_voice_is_described_as_ever():
    described = Config().to_dict()["model"]
    assert "context_layers" not in described and described["subscale"] == 1
    assert (
        replace(Config(), model=ModelConfig(subscale=8)).to_dict()["model"]["context_layers"] == 4
    )


def test_cost_counts_the_context():
    voice = make_voice()
    described = cost.describe(voice, {})
    assert set(described["density"]) == set(voice.config.model.prunable)
    assert described["density"]["X_r"] == 0.5
    parts = described["operations_per_sample"]
    # X: 3 x 32 x 8 less half of a third; two layers of 8 x 8 x 2; 3 taps of 4 numbers
    assert parts["context"] == 3 * 32 * 8 * 5 / 6 + 2 * 128 + 3 * 4 * 8
    assert "context" not in cost.describe(make_voice_plain(), {})["operations_per_sample"]


def make_voice_plain():
    return random_voice(Config("plain", MEL, ModelConfig(**(SIZES | {"subscale": 1}))))


@pytest.mark.parametrize("name", ["subscale-16", "subscale-8-384"])
def test_recipes_are_whole(name):
    config = recipe.load(name)
    assert config.model.subscale == int(name.split("-")[1])
    assert set(config.prune.density) == set(config.model.prunable)
    # as many samples a step as the recipes of plain voices
    plain = recipe.load("sparse-384").train
    train = config.train
    assert train.batch * train.slice_samples == plain.batch * plain.slice_samples


def test_bench_times_one_utterance():
    row = bench(make_voice(), "reference", 1)
    assert row["subscale"] == 4 and row["samples_per_s"] > 0 and row["backend"] == "reference"
    with pytest.raises(BackendUnavailable, match="of subscale 4 is spoken an utterance at a time"):
        bench(make_voice(), "reference", 2)


def test_the_native_engine_says_what_takes_its_time(absent):
    if reason := kernels.unavailable("cpu", 4):
        absent("cpu", reason)
    # lanes of several groups
    sizes = {"subscale": 32, "conditioning_hop_samples": 32, "context_channels": 32}
    model = ModelConfig(**(SIZES | sizes))
    voice = random_voice(Config("wide", replace(MEL, hop_samples=32), model))
    row = bench(voice, "cpu", 1)
    assert (row["backend"], row["isa"]) == ("cpu", native.isa())
    parts = row["parts"]
    assert list(parts) == ["tick_us", *(f"{part}_us" for part in UTTERANCE_PARTS)]
    assert min(parts.values()) > 0
    # a group's time while another one runs is booked by that one alone
    assert parts["draw_us"] < 0.4 * sum(parts[f"{part}_us"] for part in UTTERANCE_PARTS)


def test_streams_side_by_side_are_refused_with_a_sentence():
    with pytest.raises(BackendUnavailable, match="wavernn bench says how fast one is"):
        next(tune(make_voice(), "reference"))


def test_training_can_be_timed():
    config = make_voice().config
    train = replace(config.train, batch=2, slice_samples=64)
    assert bench_training(replace(config, train=train), steps=1)["samples_per_s"] > 0
