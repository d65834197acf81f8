import math

import numpy as np
import pytest
import soundfile
import torch

from wavernn.audio import read_audio
from wavernn.checkpoint import Checkpoint
from wavernn.fused import network
from wavernn.kernels import reference_fused
from wavernn.model import WaveRNN
from wavernn.train.features import OTHER, SILENCE, VOICED, find_recordings
from wavernn.train.validate import bits_per_sample, flac_bits, make_slices

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(quick):
    torch.manual_seed(1)
    model = WaveRNN(quick().model, quick().mel)
    # predictions that differ from one another
    for layer in (model.O2, model.O4):
        torch.nn.init.normal_(layer.weight)
    return model


def score(model, features, clips, *more):
    return bits_per_sample(model, features, make_slices(features, model, CPU), clips, *more)


@torch.no_grad()
def directly(model, features, clip):
    """Bits of each sample [T, 2] of a whole clip at once, and its frame labels."""
    first, N = int(features.first[clip]), int(features.frames[clip])
    code_T = torch.from_numpy(features.codes_T[first * 64 : (first + N) * 64].astype(np.int64))
    codes_T2 = torch.stack((code_T >> 8, code_T & 255), dim=1)
    previous_T2 = torch.cat((torch.tensor([[128, 0]]), codes_T2[:-1]))
    mel_BNM = model.conditioner.pad(torch.from_numpy(features.mel_NM[first : first + N])[None])
    coarse_TBQ, fine_TBQ, _ = model(
        mel_BNM, previous_T2[None], codes_T2[None], torch.zeros(1, model.config.hidden)
    )
    rows = torch.arange(len(codes_T2))
    logs = [
        torch.log_softmax(logits_TBQ[:, 0].double(), -1)[rows, codes_T2[:, i]]
        for i, logits_TBQ in enumerate((coarse_TBQ, fine_TBQ))
    ]
    return -torch.stack(logs, 1).numpy() / math.log(2), features.label_N[first : first + N]


def test_bits_are_those_of_a_direct_computation(model, features):
    bits_T2, label_N = directly(model, features, 3)
    result = score(model, features, np.array([3]))
    label_T = np.repeat(label_N, 64)
    wanted = {
        "bits_per_sample": bits_T2.sum(1).mean(),
        "bits_coarse": bits_T2[:, 0].mean(),
        "bits_fine": bits_T2[:, 1].mean(),
        "bits_silence": bits_T2.sum(1)[label_T == SILENCE].mean(),
        "bits_voiced": bits_T2.sum(1)[label_T == VOICED].mean(),
    }
    assert result == pytest.approx(wanted, rel=1e-5)


def test_a_fused_voice_is_scored_as_its_reference_makes_it(features, quick):
    config = quick("model.fused=2", "prune.block_columns=2")
    torch.manual_seed(1)
    model = network(config.model, config.mel)
    for layer in (model.O2, model.O4):
        torch.nn.init.normal_(layer.weight)
    first, N = int(features.first[3]), int(features.frames[3])
    codes_T = features.codes_T[first * 64 : (first + N) * 64]
    codes_T2 = np.stack((codes_T >> 8, codes_T & 255), axis=1).astype(np.uint8)
    with torch.no_grad():
        mel_1NM = torch.from_numpy(features.mel_NM[first : first + N])[None]
        gates_NG = model.gate_input(model.conditioner.pad(mel_1NM))[0]
    voice = Checkpoint(config, model.state_dict())
    logits = reference_fused.Synthesizer(voice).score(gates_NG, codes_T2)
    bits = []
    for half, logits_T2Q in enumerate(logits):
        logs = torch.log_softmax(torch.from_numpy(logits_T2Q), dim=-1).numpy()
        nibbles_T2 = np.stack((codes_T2[:, half] >> 4, codes_T2[:, half] & 15), axis=1)
        found = np.take_along_axis(logs, nibbles_T2[..., None].astype(np.int64), axis=2)
        bits.append(-found.sum() / math.log(2) / len(codes_T2))
    result = score(model, features, np.array([3]))
    assert [result["bits_coarse"], result["bits_fine"]] == pytest.approx(bits, rel=1e-5)


def test_the_batch_does_not_matter(model, features):
    clips = np.array([0, 3, 6])
    together = score(model, features, clips)
    alone = [score(model, features, clips[i : i + 1]) for i in range(3)]
    for key, where in (
        ("bits_per_sample", None),
        ("bits_coarse", None),
        ("bits_silence", SILENCE),
        ("bits_voiced", VOICED),
    ):
        weights = []
        for clip in clips:
            label_N = features.label_N[features.first[clip] :][: features.frames[clip]]
            weights.append(len(label_N) if where is None else (label_N == where).sum())
        mean = np.average([row[key] for row in alone], weights=weights)
        assert together[key] == pytest.approx(mean, rel=1e-6)


def test_more_clips_than_are_scored_at_a_time(model, features, monkeypatch):
    clips = np.array([5, 0, 3, 6, 1])
    whole = score(model, features, clips)
    monkeypatch.setattr("wavernn.train.validate.CLIPS", 2)
    seen = []
    again = score(model, features, clips, math.inf, lambda done, total: seen.append((done, total)))
    assert again == pytest.approx(whole, rel=1e-6)
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_only_the_start_of_a_clip_is_scored_where_asked(model, features):
    # 0.1 s at 8 kHz are 12.5 frames of 64
    bits_T2, _ = directly(model, features, 3)
    result = score(model, features, np.array([3]), 0.1)
    assert result["bits_per_sample"] == pytest.approx(bits_T2[: 12 * 64].sum(1).mean(), rel=1e-5)
    least = score(model, features, np.array([3]), 1e-9)
    assert least["bits_per_sample"] == pytest.approx(bits_T2[:64].sum(1).mean(), rel=1e-5)


def test_uniform_predictions_cost_16_bits(features, quick):
    model = WaveRNN(quick().model, quick().mel)
    for layer in (model.O2, model.O4):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    result = score(model, features, np.arange(8))
    assert result.keys() == {
        *("bits_per_sample", "bits_coarse", "bits_fine", "bits_silence", "bits_voiced")
    }
    for key, bits in result.items():
        assert bits == pytest.approx(8 if key in ("bits_coarse", "bits_fine") else 16, abs=1e-6)


def test_labels_that_do_not_occur_have_no_entry(model, features):
    frames = features.label_N.copy()
    frames[:] = OTHER
    changed = type(features)(**(vars(features) | {"label_N": frames}))
    assert score(model, changed, np.array([1])).keys() == {
        "bits_per_sample",
        "bits_coarse",
        "bits_fine",
    }


def test_the_model_is_left_in_its_mode(model, features):
    for training in (True, False):
        model.train(training)
        score(model, features, np.array([0]))
        assert model.training is training


def test_flac_bits_are_those_of_files(tmp_path, data, features):
    paths = list(find_recordings(data).values())
    size = samples = 0
    for clip in (2, 6):
        samples_T = read_audio(paths[clip], 8000)
        padded_T = np.pad(samples_T, (0, -len(samples_T) % 64))
        soundfile.write(tmp_path / f"{clip}.flac", padded_T, 8000, subtype="PCM_16")
        size += (tmp_path / f"{clip}.flac").stat().st_size
        samples += len(padded_T)
    assert flac_bits(features, np.array([2, 6])) == pytest.approx(8 * size / samples)


def test_bits_of_the_first_and_the_last_sub_tensor_are_told(features, quick):
    torch.manual_seed(2)
    config = quick("model.subscale=4", "model.context_channels=16")
    model = WaveRNN(config.model, config.mel)
    for layer in (model.O2, model.O4):
        torch.nn.init.normal_(layer.weight)
    N = int(features.frames[3])
    slices = make_slices(features, model, CPU)
    batch = slices.cut(np.array([3]), np.array([0]), np.array([False]), N)
    h_BH = torch.zeros(1, config.model.state_size)
    with torch.no_grad():
        coarse_TBQ, fine_TBQ, _ = model(
            batch.mel_BNM, batch.previous_BT2, batch.codes_BT2, h_BH, around_BW3=batch.around_BW3
        )
    rows = torch.arange(N * 64)
    bits_T = sum(
        -torch.log_softmax(logits_TBQ[:, 0].double(), -1)[rows, batch.codes_BT2[0, :, i]]
        for i, logits_TBQ in enumerate((coarse_TBQ, fine_TBQ))
    ) / math.log(2)
    result = score(model, features, np.array([3]))
    assert result["bits_per_sample"] == pytest.approx(float(bits_T.mean()), rel=1e-5)
    assert result["bits_first_lane"] == pytest.approx(float(bits_T[0::4].mean()), rel=1e-5)
    assert result["bits_last_lane"] == pytest.approx(float(bits_T[3::4].mean()), rel=1e-5)
