from dataclasses import replace

import numpy as np
import pytest
import torch

# the largest draw
LAST = np.float32(1 - 2**-24)


@pytest.mark.parametrize("samples", [1, 63, 257], ids="T{}".format)
@pytest.mark.parametrize("streams", [1, 3, 17], ids="B{}".format)
def test_codes_from_given_uniforms(check_draws, make_voice, make_work, streams, samples):
    voice = make_voice(hidden=16)
    codes = check_draws(voice, make_work(voice, streams, samples))
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
def test_codes_of_other_sizes(check_draws, make_voice, make_work, fields):
    voice = make_voice(**fields)
    check_draws(voice, make_work(voice, 2, 130))


@pytest.mark.parametrize("side", [-1, 0], ids=["below", "on-or-above"])
def test_draws_beside_an_edge(backend, make_voice, make_work, side):
    voice, T = make_voice(), 120
    work = make_work(voice, 1, T)
    synthesizer, states, drawn = backend.synthesizer(voice, 1), [], []
    for t in range(T):
        states.append(synthesizer.state())
        drawn.append(synthesizer.run(work.rows(t, t + 1), work.uniform_BT2[:, t : t + 1]))
    h_TBH = np.stack([state["h"] for state in (*states[1:], synthesizer.state())])
    codes_T12 = np.concatenate(drawn)
    _, logits = backend.oracle(voice).steps(work, states[0], h_TBH, codes_T12.swapaxes(0, 1))
    # all samples at once, a stream each
    batch = backend.synthesizer(voice, T)
    batch.set_state({name: np.concatenate([state[name] for state in states]) for name in states[0]})
    gates_T1G = torch.cat([work.rows(t, t + 1)[0] for t in range(T)])[:, None]
    # the coarse draw of every other sample, and the fine one of the rest
    place = np.arange(T), 0, np.arange(T) % 2
    logits_TQ, code_T = logits[0, place[0], place[2]], codes_T12[place]
    mass_TQ = np.exp(logits_TQ - logits_TQ.max(1, keepdims=True))
    edge_T = (mass_TQ.cumsum(1) / mass_TQ.sum(1, keepdims=True))[place[0], code_T]
    # a draw has 24 bits
    beside_T = (np.ceil(edge_T * 2**24) + side) / 2**24
    draws_T12 = work.uniform_BT2.swapaxes(0, 1).copy()
    draws_T12[place] = np.where(beside_T < 1, beside_T, draws_T12[place])
    assert (beside_T < 1).sum() > 100
    drawn_T = batch.run(gates_T1G, draws_T12)[place]
    assert backend.misdrawn(logits_TQ, draws_T12[place], drawn_T) <= T


@pytest.mark.parametrize("temperature", [0.25, 0.7, 3.0])
def test_logits_are_divided_by_the_temperature(check_draws, make_voice, make_work, temperature):
    voice = make_voice()
    check_draws(voice, make_work(voice, 2, 100), temperature)


def test_the_coldest_voice_says_the_likeliest(backend, make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 2, 60)
    synthesizer = backend.synthesizer(voice, 2)
    codes = synthesizer.run(work.gates_BNG, work.uniform_BT2, temperature=1e-30)
    synthesizer.reset()
    logits = np.stack(synthesizer.score(work.gates_BNG, codes), axis=2)
    assert (codes == logits.argmax(-1)).all()


def test_the_hottest_voice_is_noise(backend, make_voice, make_work):
    voice = make_voice()
    work = make_work(voice, 2, 60)
    codes = backend.synthesizer(voice, 2).run(work.gates_BNG, work.uniform_BT2, temperature=1e30)
    assert (codes == np.floor(work.uniform_BT2 * 256)).all()


def test_each_stream_may_have_a_temperature_of_its_own(backend, make_voice, make_work):
    voice, temperature_B = make_voice(), np.array([0.25, 1.0, 3.0, 0.7])
    work = make_work(voice, 4, 80)
    codes = backend.synthesizer(voice, 4).run(
        work.gates_BNG, work.uniform_BT2, temperature=temperature_B
    )
    for b, temperature in enumerate(temperature_B.tolist()):
        rows = slice(b, b + 1)
        alone = backend.synthesizer(voice, 1).run(
            work.gates_BNG[rows], work.uniform_BT2[rows], temperature=temperature
        )
        assert (alone == codes[rows]).all()
    plain = backend.synthesizer(voice, 4).run(work.gates_BNG, work.uniform_BT2)
    assert (plain != codes).any((1, 2)).tolist() == [True, False, True, True]


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


@pytest.mark.parametrize("uniform", [0.0, LAST], ids=["first", "last"])
def test_the_outermost_draws_are_levels(backend, make_voice, make_work, uniform):
    # many distributions, and so many roundings of their sums
    voice = make_voice(hidden=16)
    work = make_work(voice, 17, 60)
    draws = np.full_like(work.uniform_BT2, uniform)
    synthesizer = backend.synthesizer(voice, 17)
    codes = synthesizer.run(work.gates_BNG, draws)
    synthesizer.reset()
    logits = np.stack(synthesizer.score(work.gates_BNG, codes), axis=2)
    # all of them are close to an edge
    assert backend.misdrawn(logits.astype(np.float64), draws, codes) < codes.size


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


def test_scoring_a_run_gives_the_logits_that_drew_it(backend, make_voice, make_work, make_oracle):
    voice = make_voice()
    work = make_work(voice, 2, 200)
    sampled, scored = backend.synthesizer(voice, 2), backend.synthesizer(voice, 2)
    codes = sampled.run(work.gates_BNG, work.uniform_BT2)
    logits = np.stack(scored.score(work.gates_BNG, codes), axis=2)
    # the same path, bit by bit
    for name, array in sampled.state().items():
        assert (array == scored.state()[name]).all()
    # the same distribution
    _, exact, _ = make_oracle(voice)(work, codes_BT2=codes)
    plain, _ = backend.plain(voice, work, codes)
    assert np.abs(logits - exact).max() <= backend.allowed(np.abs(plain - exact).max())
    # 800 draws within 1e-6 of 255 edges
    assert backend.misdrawn(logits.astype(np.float64), work.uniform_BT2, codes) <= 1
