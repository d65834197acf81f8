import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from wavernn import endtoend
from wavernn.conditioning import Conditioning
from wavernn.config import Config, ModelConfig
from wavernn.kernels.bench import random_voice
from wavernn.kernels.example import example_mel
from wavernn.melfile import write_mel
from wavernn.vocoder import Vocoder


@pytest.fixture(scope="module")
def voice():
    model = ModelConfig(hidden=16, projection=8, embedding=4, channels=8, layers=1)
    return random_voice(Config("small", model=model))


@pytest.mark.parametrize("subscale", [1, 4])
def test_voices_of_all_kinds_are_timed(voice, subscale):
    model = replace(voice.config.model, subscale=subscale, context_channels=8)
    row = endtoend.bench_file(random_voice(Config("small", model=model)), "reference", seconds=0.02)
    assert row["backend"] == "reference" and row["isa"]
    assert row["realtime_factor"] > 0 and row["loop_realtime_factor"] > 0


def test_a_timed_conditioner_does_the_same(voice):
    mel_NM = torch.randn(20, 80)
    timed = endtoend.TimedConditioning(voice)
    rows = [torch.cat(list(c.push(mel_NM, last=True))) for c in (timed, Conditioning(voice))]
    assert torch.equal(*rows)
    assert timed.spent_s > 0


def test_a_file_is_what_synth_makes(voice, tmp_path):
    mel_NM = example_mel(voice, 3)
    write_mel(tmp_path / "a.npz", mel_NM, voice.config.mel)
    vocoder = Vocoder(voice, "reference")
    parts = endtoend.speak_file(vocoder, tmp_path / "a.npz", tmp_path / "a.wav")
    samples_T, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate_hz == 22_050
    expected_T = Vocoder(voice, "reference").synthesize(mel_NM)
    assert np.array_equal(samples_T * 32768, np.rint(expected_T * 32768))
    named = ["read_s", "conditioner_s", "loop_s", "write_s"]
    assert list(parts) == [*named, "total_s", "cpu_s"]
    assert all(spent > 0 for spent in parts.values())
    assert sum(parts[name] for name in named) == pytest.approx(parts["total_s"])


def test_a_row_says_what_takes_the_time(voice):
    threads = torch.get_num_threads()
    row = endtoend.bench_file(voice, "reference", seconds=0.03)
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(row)) == row
    assert (row["bench"], row["backend"], row["format"]) == ("end to end", "reference", "float64")
    # three frames of 256
    assert row["seconds"] == pytest.approx(768 / 22_050)
    assert row["realtime_factor"] == pytest.approx(row["seconds"] / row["total_s"])
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert row["loop_realtime_factor"] > 0
