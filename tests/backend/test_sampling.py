from dataclasses import replace

import numpy as np
import pytest
import torch

# the largest draw
LAST = np.float32(1 - 2**-24)


@pytest.fixture
def check(backend, make_oracle, plain_torch):
    """Compares codes with the oracle's; a draw within rounding of an edge is counted, no more."""

    def compare(voice, work, temperature=1.0, planted=0):
        oracle = make_oracle(voice)
        codes, logits, _ = oracle(work, temperature=temperature)
        plain, _ = plain_torch(voice, work, codes, backend.precision)
        # an error of the logits moves an edge by half of it at most; the sum rounds as well
        slack = 2 * backend.allowed(np.abs(plain - logits).max()) / temperature
        synthesizer = backend.synthesizer(voice, len(codes))
        T, done, on_edges = codes.shape[1], 0, 0
        while done < T:
            drawn = synthesizer.run(
                work.rows(done, T), work.uniform_BT2[:, done:], temperature=temperature
            )
            assert drawn.dtype == np.uint8
            assert drawn.shape == codes[:, done:].shape
            wrong = (drawn != codes[:, done:]).any((0, 2))
            if not wrong.any():
                break
            at = done + int(wrong.argmax())
            for b in np.flatnonzero((drawn[:, at - done] != codes[:, at]).any(1)):
                half = int(drawn[b, at - done, 0] == codes[b, at, 0])
                edges = oracle.cdf(logits[b, at, half] / temperature)
                low, high = sorted((int(drawn[b, at - done, half]), int(codes[b, at, half])))
                assert np.abs(edges[low:high] - work.uniform_BT2[b, at, half]).max() <= slack
                on_edges += 1
            synthesizer.reset()
            synthesizer.score(work.rows(0, at + 1), codes[:, : at + 1])
            done = at + 1
        exact = backend.precision == torch.float64
        assert on_edges <= (0 if exact else planted + 2 + codes.size // 1000)
        return codes

    return compare


@pytest.mark.parametrize("samples", [1, 63, 257], ids="T{}".format)
@pytest.mark.parametrize("streams", [1, 3, 17], ids="B{}".format)
def test_codes_from_given_uniforms(check, make_voice, make_work, streams, samples):
    voice = make_voice(hidden=16)
    codes = check(voice, make_work(voice, streams, samples))
    # the voice isn't a constant
    assert len(np.unique(codes)) > min(samples, 30)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden": 96, "projection": 48},
        {"hidden": 20, "projection": 12},
        {"input": "scalar"},
        {"conditioning_hop_samples": 1},
    ],
    ids=["several-blocks", "no-block-multiple", "scalar", "one-row-a-sample"],
)
def test_codes_of_other_sizes(check, make_voice, make_work, fields):
    voice = make_voice(**fields)
    check(voice, make_work(voice, 2, 130))


def test_draws_just_below_an_edge(check, make_voice, make_work, make_oracle):
    voice = make_voice()
    work, oracle = make_work(voice, 2, 120), make_oracle(voice)
    codes, logits, _ = oracle(work)
    draws, planted = work.uniform_BT2.copy(), 0
    for place in np.ndindex(codes.shape):
        edges = np.concatenate(([0], oracle.cdf(logits[place])))
        low, high = edges[int(codes[place]) :][:2]
        # a draw has 24 bits
        below = (np.ceil(high * 2**24) - 1) / 2**24
        if place[1] % 10 == 0 and below > low:
            draws[place] = below
            planted += 1
    assert planted > 40
    assert (check(voice, replace(work, uniform_BT2=draws), planted=planted) == codes).all()


@pytest.mark.parametrize("temperature", [0.25, 0.7, 3.0])
def test_logits_are_divided_by_the_temperature(check, make_voice, make_work, temperature):
    voice = make_voice()
    check(voice, make_work(voice, 2, 100), temperature)


def with_tensors(voice, **changes):
    names = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    assert names.keys() <= voice.tensors.keys()
    return replace(voice, tensors={**voice.tensors, **names})


def test_a_temperature_is_a_scale_of_the_last_layer(backend, make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 1, 200)
    halved = {
        f"{name}__{part}": voice.tensors[f"{name}.{part}"] / 2
        for name in ("O2", "O4")
        for part in ("weight", "bias")
    }
    warm = backend.synthesizer(voice, 1).run(work.gates_BNG, work.uniform_BT2, temperature=2.0)
    scaled = backend.synthesizer(with_tensors(voice, **halved), 1)
    assert (warm == scaled.run(work.gates_BNG, work.uniform_BT2)).all()
    cold = backend.synthesizer(voice, 1).run(work.gates_BNG, work.uniform_BT2)
    assert (cold != warm).any()


def silenced(voice, logits_Q):
    """A voice that always draws from these logits, coarse and fine."""
    zeros = {f"{o}__weight": torch.zeros_like(voice.tensors[f"{o}.weight"]) for o in ("O2", "O4")}
    return with_tensors(voice, **zeros, O2__bias=logits_Q, O4__bias=logits_Q)


@pytest.mark.parametrize(
    ("uniform", "code"),
    [
        (0.0, 3),
        (0.25 - 2**-25, 3),
        (0.25, 100),
        (0.5 - 2**-25, 100),
        (0.5, 101),
        (0.75 - 2**-24, 101),
        (0.75, 255),
        (LAST, 255),
    ],
    ids=["zero", "below-1/4", "1/4", "below-1/2", "1/2", "below-3/4", "3/4", "last"],
)
def test_a_draw_on_an_edge_belongs_to_the_level_above(
    backend, make_voice, make_work, uniform, code
):
    # four levels of a quarter each, whose sums are exact in every precision
    logits_Q = torch.full((256,), -1e4)
    logits_Q[[3, 100, 101, 255]] = 0.0
    voice = silenced(make_voice(), logits_Q)
    work = make_work(voice, 1, 1)
    draws = np.full((1, 1, 2), uniform, np.float32)
    assert backend.synthesizer(voice, 1).run(work.gates_BNG, draws).tolist() == [[[code, code]]]


@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
@pytest.mark.parametrize("uniform", [0.0, 0.5, LAST], ids=["first", "middle", "last"])
def test_a_level_without_probability_is_never_drawn(backend, make_voice, make_work, level, uniform):
    logits_Q = torch.full((256,), -1e4)
    logits_Q[level] = 1e4
    voice = silenced(make_voice(), logits_Q)
    work = make_work(voice, 1, 1)
    draws = np.full((1, 1, 2), uniform, np.float32)
    assert backend.synthesizer(voice, 1).run(work.gates_BNG, draws).tolist() == [[[level, level]]]


def test_draws_follow_the_probabilities(backend, make_voice, make_work):
    mass_Q = torch.arange(1.0, 257.0)
    voice = silenced(make_voice(hidden=2, projection=1), mass_Q.log())
    work = make_work(voice, 1, 4000)
    codes = backend.synthesizer(voice, 1).run(work.gates_BNG, work.uniform_BT2)
    for half in range(2):
        counts = np.bincount(codes[0, :, half] // 32, minlength=8)
        expected = mass_Q.view(8, 32).sum(1).numpy() / mass_Q.sum().item() * 4000
        # chi-squared with 7 degrees of freedom: 24.3 is the 0.1 % point
        assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_scoring_a_run_gives_the_logits_that_drew_it(
    backend, make_voice, make_work, make_oracle, plain_torch
):
    voice = make_voice()
    work = make_work(voice, 2, 200)
    sampled, scored = backend.synthesizer(voice, 2), backend.synthesizer(voice, 2)
    codes = sampled.run(work.gates_BNG, work.uniform_BT2)
    logits = np.stack(scored.score(work.gates_BNG, codes), axis=2)
    # the same path, bit by bit
    for name, array in sampled.state().items():
        assert (array == scored.state()[name]).all()
    # the same distribution
    plain, _ = plain_torch(voice, work, codes, torch.float64)
    narrow, _ = plain_torch(voice, work, codes, backend.precision)
    assert np.abs(logits - plain).max() <= backend.allowed(np.abs(narrow - plain).max())
    draw = make_oracle(voice).draw
    again = [
        [[draw(logits[b, t, i], work.uniform_BT2[b, t, i]) for i in range(2)] for t in range(200)]
        for b in range(2)
    ]
    # 800 draws within 1e-6 of 255 edges
    assert (codes != np.array(again)).sum() <= (0 if backend.precision == torch.float64 else 1)
