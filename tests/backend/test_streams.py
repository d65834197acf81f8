from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

T = 200


@pytest.fixture(scope="module")
def voice(make_voice):
    return make_voice()


def run(synthesizer, work, start=0, stop=T, active=None):
    return synthesizer.run(work.rows(start, stop), work.uniform_BT2[:, start:stop], active)


def same_state(a, b, rows=slice(None)):
    return all((a[name][rows] == b[name][rows]).all() for name in a)


def test_a_new_stream_starts_in_silence(backend, voice):
    state = backend.synthesizer(voice, 3).state()
    assert state.keys() == {"h", "code", "sample", "memory"}
    assert state["h"].shape == (3, voice.config.model.hidden)
    assert (state["h"] == 0).all()
    assert state["code"].tolist() == [[128, 0]] * 3
    assert state["sample"].tolist() == [0] * 3
    assert state["memory"].tolist() == [0] * 3


@pytest.mark.parametrize("hop", [1, 16, 64])
@pytest.mark.parametrize("chunk", [1, 7, 160])
def test_chunks_make_one_run(backend, make_voice, make_work, chunk, hop):
    voice = make_voice(conditioning_hop_samples=hop)
    work = make_work(voice, 2, T)
    whole, cut = backend.synthesizer(voice, 2), backend.synthesizer(voice, 2)
    codes = run(whole, work)
    pieces = [run(cut, work, at, min(at + chunk, T)) for at in range(0, T, chunk)]
    assert (np.concatenate(pieces, axis=1) == codes).all()
    assert same_state(cut.state(), whole.state())


@pytest.mark.parametrize("chunk", [1, 7, 160])
def test_chunks_make_one_score(backend, voice, make_work, chunk):
    work = make_work(voice, 2, T)
    codes = np.random.default_rng(0).integers(0, 256, (2, T, 2)).astype(np.uint8)
    whole, cut = backend.synthesizer(voice, 2), backend.synthesizer(voice, 2)
    logits = np.stack(whole.score(work.gates_BNG, codes))
    pieces = [
        np.stack(cut.score(work.rows(at, min(at + chunk, T)), codes[:, at : at + chunk]))
        for at in range(0, T, chunk)
    ]
    assert (np.concatenate(pieces, axis=2) == logits).all()
    assert same_state(cut.state(), whole.state())


def test_a_stream_alone_is_that_row_of_a_batch(backend, voice, make_work):
    work = make_work(voice, 17, T)
    together = backend.synthesizer(voice, 17)
    codes, state = run(together, work), together.state()
    for row in (0, 7, 16):
        alone = backend.synthesizer(voice, 1)
        own = alone.run(work.gates_BNG[row, None], work.uniform_BT2[row, None])
        assert (own[0] == codes[row]).all()
        assert all((alone.state()[name][0] == state[name][row]).all() for name in state)


@pytest.fixture(scope="module")
def alone(backend, make_voice, make_work):
    """Gate input and draws of 33 streams, and what each gives by itself: codes, logits, states."""
    voice = make_voice(hidden=20)
    work, codes, logits, states = make_work(voice, 33, 40), [], [], []
    for b in range(33):
        synthesizer, gates = backend.synthesizer(voice, 1), work.gates_BNG[b, None]
        codes.append(synthesizer.run(gates, work.uniform_BT2[b, None]))
        states.append(synthesizer.state())
        synthesizer.reset()
        logits.append(np.stack(synthesizer.score(gates, codes[-1])))
    together = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    return voice, work, np.concatenate(codes), np.concatenate(logits, axis=1), together


# what a loop over one, two, four, eight or sixteen streams makes of them
@pytest.mark.parametrize("streams", [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 33], ids="B{}".format)
def test_batches_of_any_size_are_their_streams(backend, alone, streams):
    voice, work, codes, logits, state = alone
    synthesizer = backend.synthesizer(voice, streams)
    drawn = synthesizer.run(work.gates_BNG[:streams], work.uniform_BT2[:streams])
    assert (drawn == codes[:streams]).all()
    assert same_state(synthesizer.state(), {name: array[:streams] for name, array in state.items()})
    synthesizer.reset()
    scored = synthesizer.score(work.gates_BNG[:streams, :1], codes[:streams, :5])
    assert (np.stack(scored) == logits[:, :streams, :5]).all()


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("streams", [1, 2, 5], ids="B{}".format)
def test_threads_change_nothing(backend, alone, streams, threads):
    voice, work, codes, logits, state = alone
    synthesizer = backend.synthesizer(voice, streams, threads=threads)
    gates, draws = work.gates_BNG[:streams], work.uniform_BT2[:streams]
    for active in (np.arange(streams) != 0, np.arange(streams) == 0):
        drawn = synthesizer.run(gates, draws, active)
        assert (drawn[active] == codes[:streams][active]).all()
    assert same_state(synthesizer.state(), {name: array[:streams] for name, array in state.items()})
    synthesizer.reset()
    scored = synthesizer.score(gates, codes[:streams])
    assert (np.stack(scored) == logits[:, :streams]).all()
    seeds = np.arange(streams, dtype=np.uint64)
    spoken = backend.synthesizer(voice, streams).speak(gates, 40, seeds)
    synthesizer.reset()
    assert (synthesizer.speak(gates, 40, seeds) == spoken).all()


def test_two_synthesizers_run_in_two_threads(backend, make_voice, make_work):
    voices = [make_voice(seed=seed) for seed in (1, 2)]
    work = make_work(voices[0], 3, T)
    seeds = np.arange(3, dtype=np.uint64)

    def speak(voice):
        synthesizer = backend.synthesizer(voice, 3)
        pieces = [synthesizer.speak(work.rows(at, at + 10), 10, seeds) for at in range(0, 60, 10)]
        return np.concatenate(pieces, axis=1)

    alone = [speak(voice) for voice in voices]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            together = list(pool.map(speak, voices))
            assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_a_stream_doesnt_know_its_lane(backend, voice, make_work):
    work, order = make_work(voice, 5, T), [3, 0, 4, 1, 2]
    codes = run(backend.synthesizer(voice, 5), work)
    dealt = backend.synthesizer(voice, 5).run(work.gates_BNG[order], work.uniform_BT2[order])
    assert (dealt == codes[order]).all()


def test_streams_at_different_places_share_a_batch(backend, voice, make_work):
    work = make_work(voice, 3, T)
    codes = run(backend.synthesizer(voice, 3), work)
    synthesizer, late = backend.synthesizer(voice, 3), np.array([False, False, True])
    # stream 2 is 37 samples ahead, so its row of gate input changes at another time
    run(synthesizer, work, 0, 37, active=late)
    own = [work.gates_BNG[b, (37 if late[b] else 0) // work.hop :][:2] for b in range(3)]
    draws = [work.uniform_BT2[b, 37 if late[b] else 0 :][:90] for b in range(3)]
    drawn = synthesizer.run(torch.stack(own), np.stack(draws))
    assert (drawn[:2] == codes[:2, :90]).all()
    assert (drawn[2] == codes[2, 37:127]).all()
    assert synthesizer.state()["sample"].tolist() == [90, 90, 127]


def test_frozen_rows_wait_and_dont_disturb(backend, voice, make_work):
    work = make_work(voice, 4, T)
    codes = run(backend.synthesizer(voice, 4), work)
    active = np.array([True, False, True, False])
    synthesizer = backend.synthesizer(voice, 4)
    first = run(synthesizer, work, 0, 50)
    before = synthesizer.state()
    # what lies in a frozen row's input is nobody's business
    rubbish = work.rows(50, T).clone()
    rubbish[~active] = torch.nan
    second = synthesizer.run(rubbish, work.uniform_BT2[:, 50:], active)
    assert (second[active] == codes[active, 50:]).all()
    assert (second[~active] == (128, 0)).all()
    assert same_state(synthesizer.state(), before, ~active)
    # a frozen stream goes on as if nothing had been
    third = run(synthesizer, work, 50, T, active=~active)
    assert (np.concatenate((first[~active], third[~active]), axis=1) == codes[~active]).all()


@pytest.mark.parametrize("samples", [0, 5])
def test_no_samples_or_no_streams_change_nothing(backend, voice, make_work, samples):
    work = make_work(voice, 2, T)
    synthesizer = backend.synthesizer(voice, 2)
    run(synthesizer, work, 0, 70)
    before = synthesizer.state()
    active = None if samples == 0 else np.zeros(2, bool)
    codes = run(synthesizer, work, 70, 70 + samples, active)
    assert codes.shape == (2, samples, 2)
    assert same_state(synthesizer.state(), before)


def test_reset_rows_start_again_and_the_others_go_on(backend, voice, make_work):
    work = make_work(voice, 3, T)
    synthesizer = backend.synthesizer(voice, 3)
    codes = run(synthesizer, work)
    synthesizer.reset()
    fresh = backend.synthesizer(voice, 3).state()
    assert same_state(synthesizer.state(), fresh)
    # 64 samples are a row of gate input, so that rows 0 and 2 may go on beside row 1
    run(synthesizer, work, 0, 64)
    kept = synthesizer.state()
    again = np.array([False, True, False])
    synthesizer.reset(again)
    assert same_state(synthesizer.state(), fresh, again)
    assert same_state(synthesizer.state(), kept, ~again)
    gates, draws = work.rows(64, 128).clone(), work.uniform_BT2[:, 64:128].copy()
    gates[1], draws[1] = work.gates_BNG[1, :1], work.uniform_BT2[1, :64]
    drawn = synthesizer.run(gates, draws)
    assert (drawn[1] == codes[1, :64]).all()
    assert (drawn[~again] == codes[~again, 64:128]).all()


def test_a_state_can_be_taken_over(backend, voice, make_work):
    work = make_work(voice, 2, T)
    whole, first = backend.synthesizer(voice, 2), backend.synthesizer(voice, 2)
    codes = run(whole, work)
    run(first, work, 0, 90)
    taken = first.state()
    second = backend.synthesizer(voice, 2)
    second.set_state(taken)
    assert same_state(second.state(), taken)
    assert (run(second, work, 90, T) == codes[:, 90:]).all()
    assert same_state(second.state(), whole.state())


def test_a_state_is_a_copy(backend, voice, make_work):
    work = make_work(voice, 2, T)
    synthesizer = backend.synthesizer(voice, 2)
    codes = run(synthesizer, work)
    synthesizer.reset()
    run(synthesizer, work, 0, 90)
    taken = synthesizer.state()
    kept = {name: array.copy() for name, array in taken.items()}
    assert (run(synthesizer, work, 90, T) == codes[:, 90:]).all()
    assert same_state(taken, kept)
    synthesizer.set_state(taken)
    for array in taken.values():
        array.fill(1)
    assert (run(synthesizer, work, 90, T) == codes[:, 90:]).all()


def test_inputs_are_left_as_they_are(backend, voice, make_work):
    work = make_work(voice, 2, T)
    gates, draws = work.gates_BNG.clone(), work.uniform_BT2.copy()
    codes = run(backend.synthesizer(voice, 2), work)
    known = codes.copy()
    backend.synthesizer(voice, 2).score(work.gates_BNG, codes)
    assert torch.equal(gates, work.gates_BNG)
    assert (draws == work.uniform_BT2).all()
    assert (known == codes).all()


def test_a_voice_runs_twice_at_once(backend, make_voice, make_work):
    one, other = make_voice(seed=1), make_voice(seed=2)
    work = make_work(one, 1, T)
    codes = [run(backend.synthesizer(voice, 1), work) for voice in (one, other)]
    assert (codes[0] != codes[1]).any()
    pair = [backend.synthesizer(voice, 1) for voice in (one, other)]
    turns = [
        [run(synthesizer, work, at, at + 50) for synthesizer in pair] for at in range(0, T, 50)
    ]
    for alone, pieces in zip(codes, zip(*turns, strict=True), strict=True):
        assert (np.concatenate(pieces, axis=1) == alone).all()
