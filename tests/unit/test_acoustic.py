import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn import acoustic_checkpoint, checkpoint
from wavernn.acoustic import SEMITONES, AcousticModel, whole_frames
from wavernn.acoustic_checkpoint import AcousticCheckpoint
from wavernn.acoustic_config import AcousticConfig, AcousticModelConfig, from_dict
from wavernn.config import MelConfig
from wavernn.errors import CheckpointError, ConfigError

SMALL = AcousticModelConfig(
    channels=16, encoder_layers=2, attention_layers=1, decoder_layers=4, decoder_taps=3
)
SYMBOLS = 7


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AcousticModel(SMALL, MelConfig(), SYMBOLS, speakers=2).eval().requires_grad_(False)


def ids(seed, tokens):
    random = np.random.default_rng(seed)
    return torch.from_numpy(
        np.stack([random.integers(0, SYMBOLS, tokens), random.integers(0, 3, tokens)], axis=1)
    )


def decoded(model, ids_BJ2, duration_BJ):
    speaker_B = torch.zeros(len(ids_BJ2), dtype=torch.int64)
    x_BJC, mask_BJ1 = model.encode(ids_BJ2, speaker_B)
    said = model.prosody(ids_BJ2, speaker_B)
    return model.decode(x_BJC, mask_BJ1, duration_BJ, said.pitch, said.energy), said


def test_padding_changes_nothing(model):
    long, short = ids(1, 12), ids(2, 7)
    duration_12 = torch.tensor([3, 1, 4, 0, 5, 2, 6, 5, 3, 5, 8, 1])
    duration_7 = torch.tensor([2, 7, 0, 1, 8, 2, 8])
    both = torch.full((2, 12, 2), -1)
    both[0], both[1, :7] = long, short
    durations = torch.zeros(2, 12, dtype=torch.int64)
    durations[0], durations[1, :7] = duration_12, duration_7
    mel_BNM, said = decoded(model, both, durations)
    alone_1NM, alone = decoded(model, short[None], duration_7[None])
    N = int(duration_7.sum())
    assert alone_1NM.shape == (1, N, 80)
    torch.testing.assert_close(mel_BNM[1, :N], alone_1NM[0], rtol=1e-4, atol=1e-4)
    for name in ("log_duration", "pitch", "energy"):
        torch.testing.assert_close(
            getattr(said, name)[1, :7], getattr(alone, name)[0], rtol=1e-4, atol=1e-5
        )


def test_each_frame_belongs_to_its_token(model):
    x_1JC = torch.zeros(1, 4, SMALL.channels)
    x_1JC[0, :, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    model.place.weight.zero_()
    model.place.bias.zero_()
    y_1NC, mask_1N1 = model._repeat(x_1JC, torch.tensor([[2, 0, 3, 1]]))
    assert y_1NC[0, :, 0].tolist() == [10, 10, 30, 30, 30, 40]
    assert mask_1N1.all()


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.0, 1.7, 4.0])
def test_ends_are_rounded_so_that_no_errors_add_up(speed):
    exact_J = np.random.default_rng(3).uniform(0, 12, 300)
    frames_1J = whole_frames(torch.from_numpy(exact_J)[None].log1p(), speed)
    assert frames_1J.dtype == torch.int64 and (frames_1J >= 0).all()
    ends_J = frames_1J[0].cumsum(0).numpy()
    assert np.abs(ends_J - exact_J.cumsum() / speed).max() <= 0.5 + 1e-6


def test_an_absurd_duration_is_cut():
    assert whole_frames(torch.tensor([[50.0, -3.0]]), 1.0).tolist() == [[200, 0]]


def test_speech_is_finite_at_least_a_frame_and_not_below_the_floor(model):
    for tokens in (1, 2, 40):
        mel_NM = model.speak(ids(4, tokens))
        assert mel_NM.ndim == 2 and mel_NM.shape[1] == 80 and len(mel_NM) >= 1
        assert mel_NM.isfinite().all() and (mel_NM >= math.log(1e-5)).all()


def test_a_pause_at_the_end_lasts_as_asked(model):
    plain = model.speak(ids(5, 20))
    longer = model.speak(ids(5, 20), pause_frames=60)
    assert 60 > len(longer) - len(plain) > 0
    assert len(model.speak(ids(5, 1), pause_frames=60)) == 60


def test_speed_divides_the_length(model):
    lengths = [len(model.speak(ids(6, 60), speed=speed)) for speed in (0.5, 1.0, 2.0)]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=2)
    assert lengths[2] == pytest.approx(lengths[1] / 2, abs=2)


def test_semitones_move_the_pitch_by_the_speakers_scale(model, monkeypatch):
    heard = []
    decode = AcousticModel.decode

    def listen(self, x_BJC, mask_BJ1, duration_BJ, pitch_BJ, energy_BJ):
        heard.append(pitch_BJ)
        return decode(self, x_BJC, mask_BJ1, duration_BJ, pitch_BJ, energy_BJ)

    monkeypatch.setattr(AcousticModel, "decode", listen)
    model.speak(ids(7, 9))
    model.speak(ids(7, 9), semitones=12.0)
    # an octave is log 2, in units of the speaker's deviation
    octave = math.log(2) / float(model.pitch_S2[0, 1])
    torch.testing.assert_close(heard[1] - heard[0], torch.full_like(heard[0], octave))
    assert pytest.approx(12 / math.log(2)) == SEMITONES


def test_speakers_differ(model):
    first, second = (model.speak(ids(8, 12), speaker) for speaker in (0, 1))
    assert first.shape != second.shape or not torch.allclose(first, second)


@pytest.fixture
def saved(model, tmp_path):
    config = AcousticConfig(name="a", model=SMALL)
    symbols = tuple("^ ,.abc")
    found = AcousticCheckpoint(config, symbols, ("x", "y"), model.state_dict(), {"steps": 3})
    acoustic_checkpoint.save(tmp_path / "a.safetensors", found)
    return tmp_path / "a.safetensors", found


def test_a_checkpoint_comes_back_as_it_was(saved, model):
    path, found = saved
    again = acoustic_checkpoint.load(path)
    assert (again.config, again.symbols, again.speakers) == (
        found.config,
        found.symbols,
        found.speakers,
    )
    assert again.provenance == {"steps": 3}
    assert (again.model().speak(ids(9, 9)) == model.speak(ids(9, 9))).all()


def test_one_kind_of_checkpoint_is_not_taken_for_the_other(saved, voice_path):
    with pytest.raises(
        CheckpointError, match=r"expected a vocoder's checkpoint, but .* is an acou"
    ):
        checkpoint.load(saved[0])
    with pytest.raises(
        CheckpointError, match=r"expected an acoustic model's checkpoint, but .* is"
    ):
        acoustic_checkpoint.load(voice_path)


def test_a_damaged_checkpoint_is_named(saved):
    path, _ = saved
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its sha256 doesn't match"):
        acoustic_checkpoint.load(path)


def test_weights_of_another_size_are_refused(saved):
    path, found = saved
    other = replace(found, config=replace(found.config, model=replace(SMALL, channels=32)))
    acoustic_checkpoint.save(path, other)
    with pytest.raises(CheckpointError, match="can't be used: the weights don't fit"):
        acoustic_checkpoint.load(path)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"model": {"channels": 0}}, "model.channels must be positive, got 0"),
        ({"model": {"channels": 30, "heads": 4}}, "must be a multiple of 2 \\* heads"),
        ({"model": {"decoder_taps": 4}}, "model.decoder_taps must be odd, got 4"),
        ({"model": {"prosody_channels": 15}}, "model.prosody_channels must be even, got 15"),
        ({"model": {"dropout": 1.0}}, r"model.dropout must lie in \[0, 1\), got 1.0"),
        ({"model": {"decoder_layers": 65}}, "layers 64, got 192 and 65"),
        ({"train": {"batch": 0}}, "train.batch must be positive, got 0"),
        ({"train": {"ema": 1.0}}, r"train.ema must lie in \[0, 1\), got 1.0"),
        ({"kind": "vocoder"}, "kind must be acoustic, got 'vocoder'"),
        ({"prune": {}}, "unknown key prune; known: name, kind, phonemizer, mel, model, train"),
    ],
)
def test_a_configuration_that_cant_be_is_refused(table, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_dict(table)
