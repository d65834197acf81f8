import numpy as np
import pytest

from wavernn.errors import DataError
from wavernn.train.alignment import PHONE_STATES, SILENCE_STATES, Text, align, cepstra

MODELS, D = 6, 12
RANDOM = np.random.default_rng(1)
# two halves of each phone, and silence
MEANS = RANDOM.normal(0, 3, (MODELS * PHONE_STATES + 1, D))


def utterance(random, phones=8, breaks=2):
    """Frames that models of known means made, with the durations that they should be given."""
    models, silences, durations, frames = [], [], [], []

    def put(state, count):
        frames.append(MEANS[state] + random.normal(0, 1, (count, D)))

    for place in range(phones):
        if place % 3 == 2:
            models.append(0)
            silences.append(1 + place % 2)
            durations.append(int(random.choice([0, 0, 6, 9])))
            put(-1, durations[-1])
        model = int(random.integers(MODELS))
        models.append(model)
        silences.append(0)
        halves = random.integers(2, 7, PHONE_STATES)
        durations.append(int(halves.sum()))
        for half, count in enumerate(halves):
            put(model * PHONE_STATES + half, count)
    models.append(0)
    silences.append(2)
    durations.append(5)
    put(-1, 5)
    label = np.repeat(np.array(silences) > 0, durations)
    return (
        np.concatenate(frames),
        label,
        Text(np.array(models), np.array(silences)),
        np.array(durations),
    )


def test_known_models_are_found_again_from_frames_alone():
    random = np.random.default_rng(3)
    frames, silent, texts, truth = zip(*(utterance(random) for _ in range(60)), strict=True)
    found = align(frames, silent, texts, MODELS, rounds=8)
    wrong = [np.abs(f.cumsum() - t.cumsum()) for f, t in zip(found, truth, strict=True)]
    assert np.concatenate(wrong).mean() < 0.3
    # most silences that aren't there are left out, and those that are there aren't
    silences = [
        (f[t.silence_J > 0] > 0) == (d[t.silence_J > 0] > 0)
        for f, t, d in zip(found, texts, truth, strict=True)
    ]
    assert np.concatenate(silences).mean() > 0.97


def test_durations_fill_the_recording_and_hold_the_least():
    random = np.random.default_rng(4)
    frames, silent, texts, _ = zip(*(utterance(random) for _ in range(10)), strict=True)
    told = []
    found = align(frames, silent, texts, MODELS, 2, lambda *report: told.append(report))
    for x_ND, text, duration_J in zip(frames, texts, found, strict=True):
        assert duration_J.sum() == len(x_ND)
        assert (duration_J[text.silence_J == 0] >= PHONE_STATES).all()
        kept = duration_J[text.silence_J > 0]
        assert ((kept == 0) | (kept >= SILENCE_STATES)).all()
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_the_same_input_gives_the_same_durations():
    random = np.random.default_rng(5)
    frames, silent, texts, _ = zip(*(utterance(random) for _ in range(6)), strict=True)
    first, second = (align(frames, silent, texts, MODELS, 3) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_recording_of_as_many_frames_as_states_has_one_way():
    text = Text(np.array([1, 0, 2]), np.array([0, 1, 0]))
    x_ND = RANDOM.normal(size=(2 * PHONE_STATES, D))
    quiet = np.zeros(len(x_ND), bool)
    (duration_J,) = align([x_ND], [quiet], [text], MODELS, 1)
    assert duration_J.tolist() == [PHONE_STATES, 0, PHONE_STATES]


def test_a_recording_too_short_for_its_text_is_refused():
    text = Text(np.array([1, 2]), np.array([0, 0]))
    x_ND = RANDOM.normal(size=(2 * PHONE_STATES - 1, D))
    with pytest.raises(DataError, match="recording 0 has 3 frames, too few for the 4 states"):
        align([x_ND], [np.zeros(3, bool)], [text], MODELS, 1)


def test_cepstra_are_free_of_the_level_and_hold_differences():
    mel_NM = RANDOM.normal(-5, 2, (50, 80)).astype(np.float32)
    x_ND = cepstra(mel_NM)
    assert x_ND.shape == (50, 39)
    assert np.allclose(x_ND, cepstra(mel_NM + 3.0), atol=1e-5)
    assert np.allclose(x_ND[:, :13].mean(0), 0, atol=1e-9)
    ramp = np.linspace(0, 49, 50)[:, None] * np.ones((1, 80), np.float32)
    assert np.allclose(cepstra(ramp)[5:45, 13], 1.0)
    assert np.allclose(cepstra(ramp)[5:45, 26], 0.0, atol=1e-9)
