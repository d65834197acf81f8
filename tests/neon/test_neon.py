import numpy as np
import pytest
import torch

VOICES = {
    "H32": {"hidden": 32, "projection": 16},
    "H20-P24": {"hidden": 20, "projection": 24},
    "H96-P40": {"hidden": 96, "projection": 40},
    "H96-sparse": {"hidden": 96, "projection": 64, "density": 0.3},
    "scalar": {"hidden": 32, "projection": 16, "input": "scalar"},
}


@pytest.fixture(params=["neon", "baseline"])
def isa(request):
    return request.param


@pytest.fixture(params=["int8", "float32"])
def format(request):
    return request.param


def same_bits(first, second):
    assert first.shape == second.shape and first.dtype == second.dtype
    return first.tobytes() == second.tobytes()


def check_state(synthesizer, other):
    here, there = synthesizer.state(), other.state()
    assert here.keys() == there.keys()
    assert all(same_bits(here[name], there[name]) for name in here)


def gates_of(voice, streams, samples):
    model = voice.config.model
    rows = -(-samples // model.conditioning_hop_samples)
    noise = np.random.default_rng(streams).normal(0, 1, (streams, rows, model.gate_rows))
    return torch.from_numpy(noise).float()


def uniform_of(streams, samples):
    return np.random.default_rng(samples).random((streams, samples, 2), np.float32)


@pytest.mark.parametrize("name", VOICES)
def test_known_codes_give_the_same_logits(on, make_voice, isa, name, format):
    voice, B, T = make_voice(**VOICES[name]), 3, 20
    codes_BT2 = np.random.default_rng(1).integers(0, 256, (B, T, 2)).astype(np.uint8)
    gates = gates_of(voice, B, T)
    arm, here = on(isa, voice, B, format), on(None, voice, B, format)
    for got, wanted in zip(arm.score(gates, codes_BT2), here.score(gates, codes_BT2), strict=True):
        assert np.isfinite(got).all() and len(np.unique(got)) > 100
        assert same_bits(got, wanted)
    check_state(arm, here)


@pytest.mark.parametrize("name", VOICES)
def test_draws_give_the_same_codes(on, make_voice, isa, name, format):
    voice, B, T = make_voice(**VOICES[name]), 3, 60
    gates, uniform = gates_of(voice, B, T), uniform_of(B, T)
    arm, here = on(isa, voice, B, format), on(None, voice, B, format)
    codes = arm.run(gates, uniform)
    assert len(np.unique(codes)) > 50
    assert same_bits(codes, here.run(gates, uniform))
    check_state(arm, here)


@pytest.mark.parametrize("streams", [1, 2, 3, 5, 8, 16], ids="B{}".format)
def test_any_number_of_streams_gives_the_same_codes(on, make_voice, isa, streams, format):
    voice, T = make_voice(**VOICES["H96-sparse"]), 20
    gates, uniform = gates_of(voice, streams, T), uniform_of(streams, T)
    arm, here = on(isa, voice, streams, format), on(None, voice, streams, format)
    assert same_bits(arm.run(gates, uniform), here.run(gates, uniform))
    check_state(arm, here)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0], ids="T{}".format)
def test_temperatures_give_the_same_codes(on, make_voice, isa, temperature, format):
    voice, B, T = make_voice(**VOICES["H32"]), 2, 40
    gates, uniform = gates_of(voice, B, T), uniform_of(B, T)
    arm, here = on(isa, voice, B, format), on(None, voice, B, format)
    codes = arm.run(gates, uniform, temperature=temperature)
    assert same_bits(codes, here.run(gates, uniform, temperature=temperature))


def test_uniforms_at_the_ends_give_the_same_codes(on, make_voice, isa, format):
    voice, T = make_voice(**VOICES["H32"]), 20
    uniform = np.zeros((2, T, 2), np.float32)
    uniform[1] = np.nextafter(np.float32(1), np.float32(0))
    gates = gates_of(voice, 2, T)
    arm, here = on(isa, voice, 2, format), on(None, voice, 2, format)
    assert same_bits(arm.run(gates, uniform), here.run(gates, uniform))


def test_chunks_with_waiting_streams_give_the_same_audio(on, make_voice, isa, format):
    voice, B, T = make_voice(**VOICES["H20-P24"]), 5, 30
    hop, gates = voice.config.model.conditioning_hop_samples, gates_of(voice, B, T)
    seed = np.arange(B, dtype=np.uint64) << np.uint64(33)
    active = np.array([True, False, True, True, False])
    arm, here = on(isa, voice, B, format), on(None, voice, B, format)
    for start, stop in ((0, 1), (1, 8), (8, 25), (25, 30)):
        rows = gates[:, start // hop : (stop - 1) // hop + 1]
        audio = arm.speak(rows, stop - start, seed, active)
        assert same_bits(audio, here.speak(rows, stop - start, seed, active))
    check_state(arm, here)


def test_gates_beyond_every_limit_give_the_same_logits(on, make_voice, isa, format):
    voice, T = make_voice(**VOICES["H32"]), 9
    nan, inf = torch.nan, torch.inf
    extreme = torch.tensor([0.0, -0.0, 1e-42, 1e-30, 60.0, 1e30, -1e30, inf, -inf, nan])
    gates = extreme[torch.arange(2 * 2 * voice.config.model.gate_rows) % 10].reshape(2, 2, -1)
    codes_BT2 = np.full((2, T, 2), 128, np.uint8)
    arm, here = on(isa, voice, 2, format), on(None, voice, 2, format)
    for got, wanted in zip(arm.score(gates, codes_BT2), here.score(gates, codes_BT2), strict=True):
        assert same_bits(got, wanted)
    check_state(arm, here)


SUBSCALE = {"subscale": 8, "subscale_horizon": 2, "context_channels": 24, "context_layers": 3}


def test_utterances_have_the_same_codes_and_logits(utterance_on, make_voice, isa, format):
    # units and channels that aren't whole groups
    voice, T = make_voice(hidden=36, projection=16, **SUBSCALE), 75
    gates, uniform = gates_of(voice, 1, T)[0], uniform_of(1, T)[0]
    codes, logits = [], []
    for where in (isa, None):
        synthesizer = utterance_on(where, voice, format)
        parts = [synthesizer.run(gates[:4], uniform[:30])]
        parts.append(synthesizer.run(gates[3:], uniform[30:], True))
        codes.append(np.concatenate(parts))
        logits.append(synthesizer.score(gates, codes[0]))
    assert len(np.unique(codes[0])) > 30
    assert same_bits(*codes)
    assert all(same_bits(got, wanted) for got, wanted in zip(*logits, strict=True))


def test_processors_without_dot_products_run_the_baseline_alone(start_remote):
    assert start_remote("-cpu", "max").wavernn_isas() == b"neon,baseline"
    assert start_remote("-cpu", "cortex-a72").wavernn_isas() == b"baseline"
