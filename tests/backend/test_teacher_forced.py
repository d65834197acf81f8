import numpy as np
import pytest
import torch

SIZES = {
    "one-block": {"hidden": 32, "projection": 16},
    "several-blocks": {"hidden": 96, "projection": 48},
    "no-block-multiple": {"hidden": 20, "projection": 12},
    "many-columns": {"hidden": 160, "projection": 128},
    "wide-heads": {"hidden": 16, "projection": 80},
    "narrow-heads": {"hidden": 64, "projection": 4},
    "smallest": {"hidden": 2, "projection": 1, "embedding": 1},
    "scalar": {"hidden": 32, "projection": 16, "input": "scalar"},
    "one-row-a-sample": {"hidden": 32, "projection": 16, "conditioning_hop_samples": 1},
}


def worst(a, b):
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()


def known_codes(streams, samples):
    return np.random.default_rng(7).integers(0, 256, (streams, samples, 2)).astype(np.uint8)


def scored(synthesizer, work, codes_BT2):
    return np.stack(synthesizer.score(work.gates_BNG, codes_BT2), axis=2)


@pytest.fixture
def check(backend, make_work, make_oracle):
    """Compares logits and state with the oracle, by what a plain program reaches."""

    def compare(voice, codes, state=None):
        B, T, _ = codes.shape
        synthesizer = backend.synthesizer(voice, B)
        if state is not None:
            synthesizer.set_state(state)
        before = synthesizer.state()
        work = make_work(voice, B, T + int(before["sample"].max()))
        _, exact, after = make_oracle(voice)(work, before, codes)
        plain, plain_h = backend.plain(voice, work, codes, before)
        logits = scored(synthesizer, work, codes)
        state = synthesizer.state()
        assert logits.shape == (B, T, 2, 256)
        assert worst(logits, exact) <= backend.allowed(worst(plain, exact))
        assert worst(state["h"], after["h"]) <= backend.allowed(worst(plain_h, after["h"]))
        assert (state["code"] == codes[:, -1]).all()
        assert (state["sample"] == before["sample"] + T).all()

    return compare


def test_the_two_oracles_agree(make_voice, make_work, make_oracle, plain_torch):
    voice = make_voice()
    work, codes = make_work(voice, 2, 100), known_codes(2, 100)
    _, logits, after = make_oracle(voice)(work, codes_BT2=codes)
    plain, plain_h = plain_torch(voice, work, codes, torch.float64)
    assert worst(plain, logits) < 1e-12
    assert worst(plain_h, after["h"]) < 1e-12
    # the voice is one that would show an error
    assert logits.std(axis=-1).mean() > 1
    assert np.abs(after["h"]).max() > 0.5


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_state(check, make_voice, size):
    check(make_voice(**SIZES[size]), known_codes(3, 65))


@pytest.mark.parametrize("size", SIZES)
def test_each_sample_follows_from_the_one_before(backend, make_voice, make_work, size):
    voice, T = make_voice(**SIZES[size]), 65
    work, codes = make_work(voice, 3, T), known_codes(3, T)
    synthesizer, h, logits = backend.synthesizer(voice, 3), [], []
    before = synthesizer.state()
    for t in range(T):
        pair = synthesizer.score(work.rows(t, t + 1), codes[:, t : t + 1])
        logits.append(np.stack(pair, axis=2))
        h.append(synthesizer.state()["h"])
    exact_h, exact = backend.oracle(voice).steps(work, before, np.stack(h), codes)
    # one step makes little of the noise that is allowed
    assert worst(h, exact_h) <= backend.allowed() / 10
    assert worst(np.concatenate(logits, axis=1), exact) <= backend.allowed()


@pytest.mark.parametrize("samples", [1, 63, 257], ids="T{}".format)
@pytest.mark.parametrize("streams", [1, 3, 17], ids="B{}".format)
def test_logits_and_state_of_batches(check, make_voice, streams, samples):
    check(make_voice(hidden=16), known_codes(streams, samples))


def test_a_score_goes_on_from_any_state(check, backend, make_voice):
    voice = make_voice(conditioning_hop_samples=16)
    state = backend.synthesizer(voice, 3).state()
    rng = np.random.default_rng(3)
    state["h"] = rng.uniform(-1, 1, state["h"].shape).astype(state["h"].dtype)
    state["code"] = rng.integers(0, 256, state["code"].shape).astype(state["code"].dtype)
    # three streams at three places within a row of gate input
    state["sample"] = np.array([5, 16, 31], state["sample"].dtype)
    check(voice, known_codes(3, 40), state)


@pytest.mark.parametrize("input_", ["embedding", "scalar"])
def test_every_value_of_a_code_enters(check, make_voice, input_):
    # each of the 256 coarse and of the fine values once
    values = np.random.default_rng(0).permuted(np.tile(np.arange(256), (2, 1)), axis=1)
    check(make_voice(input=input_), values.T[None].astype(np.uint8))


@pytest.fixture
def poison(monkeypatch):
    """Fills all memory that would be handed out as it is: NaN, and 77 where there is no NaN."""

    def poisoned(make):
        def filled(*arguments, **options):
            made = make(*arguments, **options)
            if isinstance(made, torch.Tensor):
                return made.fill_(torch.nan if made.is_floating_point() else 77)
            made.fill(np.nan if made.dtype.kind == "f" else 77)
            return made

        return filled

    def spread():
        for module in (np, torch):
            for name in ("empty", "empty_like"):
                monkeypatch.setattr(module, name, poisoned(getattr(module, name)))
        monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))

    return spread


def test_nothing_uninitialised_is_read_or_left(backend, make_voice, make_work, poison):
    # neither samples nor sizes fill a block
    voice = make_voice(hidden=20, projection=12)
    work, codes = make_work(voice, 3, 70), known_codes(3, 70)
    # what lies behind a stream's input is nobody's business either
    behind = torch.full((1, 4, work.gates_BNG.shape[2]), torch.nan)
    behind[:, :2] = work.gates_BNG[:1]

    def everything():
        synthesizer = backend.synthesizer(voice, 3)
        logits = scored(synthesizer, work, codes)
        active = np.array([True, False, True])
        drawn = synthesizer.run(work.rows(70, 71), work.uniform_BT2[:, 69:], active)
        spoken = synthesizer.speak(work.rows(71, 73), 2, np.arange(3, dtype=np.uint64), active)
        alone = backend.synthesizer(voice, 1).speak(behind[:, :2], 128, np.zeros(1, np.uint64))
        return logits, drawn, spoken, alone, *synthesizer.state().values()

    clean = everything()
    poison()
    poisoned = everything()
    assert all(np.isfinite(array).all() for array in poisoned)
    assert all((a == b).all() for a, b in zip(clean, poisoned, strict=True))
