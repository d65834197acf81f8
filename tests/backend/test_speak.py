from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.audio import de_emphasis, decode
from wavernn.rng import uniforms

SEEDS = np.array([0, 1, 2**64 - 1, 2**32, 0x0123456789ABCDEF], np.uint64)
T = 200
# not the configuration's own value
PRE_EMPHASIS = 0.9


@pytest.fixture(scope="module")
def voice(make_voice):
    return make_voice(pre_emphasis=PRE_EMPHASIS)


@pytest.fixture(scope="module")
def work(voice, make_work):
    return make_work(voice, len(SEEDS), T + voice.config.model.conditioning_hop_samples)


def by_hand(synthesizer, work, samples, seeds, active=None, temperature=1.0):
    """What `speak` does, in its parts: audio [B, T] and the memories [B]."""
    before = synthesizer.state()
    draws = [
        uniforms(int(seed), int(start), samples)
        for seed, start in zip(seeds, before["sample"], strict=True)
    ]
    codes = synthesizer.run(work.gates_BNG, np.stack(draws), active, temperature)
    audio, memory = np.zeros((len(seeds), samples), np.float32), before["memory"]
    for b in range(len(seeds)) if active is None else np.flatnonzero(active):
        x_T, memory[b] = de_emphasis(decode(codes[b]), PRE_EMPHASIS, before["memory"][b])
        audio[b] = np.clip(x_T, -1, 32767 / 32768)
    return audio, memory


def same_state(a, b):
    return all((a[name] == b[name]).all() for name in a.keys() | b.keys())


@pytest.mark.parametrize("chunk", [1, 7, 160, T])
def test_speech_is_codes_decoded_and_filtered(backend, voice, work, chunk):
    spoken, parts = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    audio, memory = by_hand(parts, work, T, SEEDS)
    pieces = [
        spoken.speak(work.rows(at, min(at + chunk, T)), min(chunk, T - at), SEEDS)
        for at in range(0, T, chunk)
    ]
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert (np.concatenate(pieces, axis=1) == audio).all()
    assert (spoken.state()["memory"] == memory).all()
    # drawing codes filters as well
    assert same_state(spoken.state(), parts.state())
    # a seed matters, and so does the filter
    assert len({row.tobytes() for row in audio}) == len(SEEDS)
    assert (memory != 0).all()


@pytest.mark.parametrize("start", [2**32 - 100, 2**32, 2**40 + 7])
def test_the_sample_count_goes_on_beyond_32_bits(backend, voice, work, start):
    spoken, parts = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    state = spoken.state()
    state["sample"] += start
    # a stream elsewhere in its row of gate input
    state["sample"][1] += 5
    for synthesizer in (spoken, parts):
        synthesizer.set_state(state)
    audio, memory = by_hand(parts, work, T, SEEDS)
    assert (spoken.speak(work.gates_BNG, T, SEEDS) == audio).all()
    assert (spoken.state()["memory"] == memory).all()
    assert (spoken.state()["sample"] == state["sample"] + T).all()
    # the high half of the count is part of the draw
    state["sample"] -= 2**32 if start >= 2**32 else start
    parts.set_state(state)
    assert (parts.speak(work.gates_BNG, T, SEEDS) != audio).any()


def test_samples_are_clipped_but_not_what_they_follow_from(backend, make_voice, work):
    voice, memories = make_voice(pre_emphasis=PRE_EMPHASIS), []
    # both bytes always at their highest, or always at their lowest
    for code, limit in ((255, 32767 / 32768), (0, -1.0)):
        bias_Q = torch.where(torch.arange(256) == code, 1e4, 0.0)
        tensors = {**voice.tensors, "O2.bias": bias_Q, "O4.bias": bias_Q}
        loud = backend.synthesizer(replace(voice, tensors=tensors), len(SEEDS))
        audio = loud.speak(work.gates_BNG, 40, SEEDS)
        assert (audio == np.float32(limit)).all()
        memories.append(loud.state()["memory"])
    # 10 is the limit of 1 + 0.9 + 0.81 + ...
    assert (memories[0] > 9).all()
    assert (memories[1] < -9).all()


def test_silent_streams_get_zeros_and_wait(backend, voice, work):
    active = np.array([True, False, False, True, True])
    spoken, parts = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    for synthesizer in (spoken, parts):
        synthesizer.speak(work.gates_BNG, 50, SEEDS)
    before = spoken.state()
    audio, _ = by_hand(parts, work, 30, SEEDS, active)
    heard = spoken.speak(work.gates_BNG, 30, SEEDS, active)
    assert (heard == audio).all()
    assert (heard[~active] == 0).all()
    assert same_state(spoken.state(), parts.state())
    for name, array in spoken.state().items():
        assert (array[~active] == before[name][~active]).all()


def test_speech_has_a_temperature(backend, voice, work):
    spoken, parts = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    temperature = np.array([0.5, 1.0, 2.0, 0.1, 4.0])
    audio, _ = by_hand(parts, work, T, SEEDS, temperature=temperature)
    heard = spoken.speak(work.gates_BNG, T, SEEDS, temperature=temperature)
    assert (heard == audio).all()


def test_a_reset_stream_says_the_same_again(backend, voice, work):
    synthesizer = backend.synthesizer(voice, len(SEEDS))
    first = synthesizer.speak(work.gates_BNG, 60, SEEDS)
    synthesizer.reset()
    assert (synthesizer.state()["memory"] == 0).all()
    assert (synthesizer.speak(work.gates_BNG, 60, SEEDS) == first).all()


def test_a_taken_over_stream_goes_on_without_a_click(backend, voice, work):
    whole, first = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    audio = whole.speak(work.gates_BNG, 128, SEEDS)
    first.speak(work.rows(0, 64), 64, SEEDS)
    second = backend.synthesizer(voice, len(SEEDS))
    second.set_state(first.state())
    assert (second.speak(work.rows(64, 128), 64, SEEDS) == audio[:, 64:]).all()


def test_known_codes_are_remembered_as_speech(backend, voice, work):
    drawn, scored = (backend.synthesizer(voice, len(SEEDS)) for _ in range(2))
    codes = drawn.run(work.gates_BNG, work.uniform_BT2[:, :T])
    scored.score(work.gates_BNG, codes)
    assert same_state(scored.state(), drawn.state())
    assert (scored.state()["memory"] != 0).all()


@pytest.mark.parametrize("samples", [0, 5])
def test_no_speech_changes_nothing(backend, voice, work, samples):
    synthesizer = backend.synthesizer(voice, len(SEEDS))
    synthesizer.speak(work.gates_BNG, 20, SEEDS)
    before = synthesizer.state()
    active = np.zeros(len(SEEDS), bool) if samples else None
    heard = synthesizer.speak(work.gates_BNG, samples, SEEDS, active)
    assert heard.shape == (len(SEEDS), samples)
    assert (heard == 0).all()
    assert same_state(synthesizer.state(), before)
