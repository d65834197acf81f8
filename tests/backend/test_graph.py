from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.kernels import reference
from wavernn.kernels.gpu.call import Call
from wavernn.kernels.gpu.graph import CAPTURED, WINDOW, Graph
from wavernn.kernels.gpu.weights import rounded

SIZES = {
    "usual": {},
    "odd": {"hidden": 20, "projection": 7},
    "smallest": {"hidden": 2, "projection": 1, "embedding": 1},
    "scalar": {"input": "scalar"},
    "one-row-a-sample": {"conditioning_hop_samples": 1},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Streams:
    """The buffers of a run, poisoned, and the launches on them."""

    def __init__(self, kernel, work, known_BT2=None, temperature=1.0, state=None):
        B, T, _ = work.uniform_BT2.shape
        self.kernel, self.work, self.T = kernel, work, T
        self.known_BT2 = None if known_BT2 is None else torch.from_numpy(known_BT2)
        self.temperature_B = torch.as_tensor(temperature, dtype=torch.float32).expand(B)
        self.h_BH = torch.zeros(B, kernel.H, dtype=kernel.dtype)
        self.code_B2 = torch.tensor([[128, 0]], dtype=torch.int32).repeat(B, 1)
        self.sample_B = torch.zeros(B, dtype=torch.int64)
        self.memory_B = torch.zeros(B, dtype=torch.float64)
        if state is not None:
            for name, tensor in self.state().items():
                tensor.copy_(torch.from_numpy(state[name]))
        self.codes_BT2 = torch.full((B, T, 2), 77, dtype=torch.uint8)
        self.audio_BT = torch.full((B, T), torch.nan)
        self.logits_BT2Q = torch.full((B, T, 2, 256), torch.nan, dtype=kernel.dtype)

    def state(self):
        named = {"h": self.h_BH, "code": self.code_B2, "sample": self.sample_B}
        return named | {"memory": self.memory_B}

    def launch(self, streams, steps, start=0):
        self.kernel.launch(
            Call(
                *(self.h_BH, self.code_B2, self.sample_B, self.memory_B),
                stream_L=torch.tensor(streams, dtype=torch.int32),
                steps_L=torch.tensor(steps, dtype=torch.int32),
                start=start,
                gates_BNG=self.work.gates_BNG,
                temperature_B=self.temperature_B,
                codes_BT2=self.codes_BT2,
                audio_BT=self.audio_BT,
                uniform_BT2=None if self.known_BT2 is not None else self.uniform_BT2,
                known_BT2=self.known_BT2,
                logits_BT2Q=None if self.known_BT2 is None else self.logits_BT2Q,
            )
        )
        self.kernel.check()
        return self

    @property
    def uniform_BT2(self):
        return torch.from_numpy(self.work.uniform_BT2)

    def run(self):
        B = len(self.sample_B)
        return self.launch(list(range(B)), [self.T] * B)

    def bits(self):
        tensors = (*self.state().values(), self.codes_BT2, self.audio_BT, self.logits_BT2Q)
        return [tensor.numpy().tobytes() for tensor in tensors]


@pytest.fixture(scope="module")
def voice(make_voice):
    return make_voice()


@pytest.fixture(scope="module", params=DTYPES)
def kernel(request, voice):
    return Graph(voice, "cpu", DTYPES[request.param])


@pytest.fixture(params=DTYPES)
def pair(request, make_voice):
    """Makes a voice, this kernel of it and the reference in its format."""

    def make(streams, **fields):
        voice = make_voice(**fields)
        kernel = Graph(voice, "cpu", DTYPES[request.param])
        return voice, kernel, reference.Synthesizer(voice, streams, kernel.format)

    return make


def known_codes(streams, samples):
    return np.random.default_rng(7).integers(0, 256, (streams, samples, 2)).astype(np.uint8)


def check_equal(streams, expected):
    """State of a run and of the reference, the sums in another order."""
    allowed = 1e-10 if expected.format == "float64" else 1e-5
    for name, value in expected.state().items():
        found = streams.state()[name].numpy()
        if name == "h":
            assert np.abs(found - value).max() <= allowed
        else:
            assert (found == value).all()


@pytest.mark.parametrize("size", SIZES)
def test_codes_are_those_of_the_reference(pair, make_work, size):
    voice, kernel, expected = pair(3, **SIZES[size])
    work = make_work(voice, 3, WINDOW + 9)
    codes = expected.run(work.gates_BNG, work.uniform_BT2)
    streams = Streams(kernel, work).run()
    assert (streams.codes_BT2.numpy() == codes).all()
    check_equal(streams, expected)
    assert streams.logits_BT2Q.isnan().all()


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_those_of_the_reference(pair, make_work, size):
    voice, kernel, expected = pair(2, **SIZES[size])
    work, codes = make_work(voice, 2, WINDOW + 1), known_codes(2, WINDOW + 1)
    logits = np.stack(expected.score(work.gates_BNG, codes), axis=2)
    streams = Streams(kernel, work, codes).run()
    allowed = 1e-10 if kernel.format == "float64" else 1e-5
    assert np.abs(streams.logits_BT2Q.numpy() - logits).max() <= allowed
    assert (streams.codes_BT2.numpy() == codes).all()
    check_equal(streams, expected)


def test_audio_is_bit_equal(pair, make_work):
    voice, kernel, expected = pair(2, pre_emphasis=0.99)
    work, T = make_work(voice, 2, 300), 300
    seed_B = np.array([1000, 1001], np.uint64)
    audio = expected.speak(work.gates_BNG, T, seed_B)
    streams = Streams(kernel, work).run()
    assert (streams.audio_BT.numpy() == audio).all()
    # some of it was clipped, and the memory wasn't
    assert np.abs(audio).max() >= 32767 / 32768
    check_equal(streams, expected)


def test_each_stream_has_a_temperature(pair, make_work):
    voice, kernel, expected = pair(3)
    work, temperature = make_work(voice, 3, 40), np.array([0.3, 1.0, 2.5], np.float32)
    codes = expected.run(work.gates_BNG, work.uniform_BT2, temperature=temperature)
    assert (Streams(kernel, work, temperature=temperature).run().codes_BT2.numpy() == codes).all()


def test_logits_may_be_large(pair, make_voice, make_work):
    voice, kernel, expected = pair(2)
    for name in ("O2.weight", "O4.weight"):
        voice.tensors[name].mul_(1e4)
    kernel = Graph(voice, "cpu", kernel.dtype)
    expected = reference.Synthesizer(voice, 2, kernel.format)
    work = make_work(voice, 2, 30)
    codes = expected.run(work.gates_BNG, work.uniform_BT2)
    assert (Streams(kernel, work).run().codes_BT2.numpy() == codes).all()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, WINDOW, WINDOW + 1])
def test_launches_make_one_run(kernel, voice, make_work, chunk, known):
    B, T = 2, 2 * WINDOW + 3
    work, codes = make_work(voice, B, T), known_codes(B, T) if known else None
    whole, parts = Streams(kernel, work, codes).run(), Streams(kernel, work, codes)
    for start in range(0, T, chunk):
        parts.launch([0, 1], [min(chunk, T - start)] * B, start)
    assert parts.bits() == whole.bits()


def test_a_run_goes_on_within_a_row_of_gates(pair, make_work):
    voice, kernel, expected = pair(2)
    state = expected.state() | {"sample": np.array([63, 1 << 33])}
    state |= {"code": np.array([[1, 2], [255, 255]], np.uint8), "memory": np.array([0.5, -2])}
    expected.set_state(state)
    longer = make_work(voice, 2, 140 + voice.config.model.conditioning_hop_samples)
    work = replace(longer, uniform_BT2=longer.uniform_BT2[:, :140].copy())
    codes = expected.run(work.gates_BNG, work.uniform_BT2)
    streams = Streams(kernel, work, state=state)
    streams.launch([1, 0], [100, 100]).launch([0, 1], [40, 40], 100)
    assert (streams.codes_BT2.numpy() == codes).all()
    check_equal(streams, expected)


def test_a_stream_doesnt_know_its_neighbours(kernel, voice, make_work):
    B, T = kernel.lanes, 20
    work = make_work(voice, B, T)
    together = Streams(kernel, work).run()
    for order in ([5], [9, 5], [*range(B - 1, -1, -1)]):
        alone = Streams(kernel, work).launch(order, [T] * len(order))
        assert alone.h_BH[5].equal(together.h_BH[5])
        assert alone.codes_BT2[5].equal(together.codes_BT2[5])
        assert alone.audio_BT[5].equal(together.audio_BT[5])


def test_lanes_end_when_they_are_to(kernel, voice, make_work):
    T = WINDOW + 10
    work, steps = make_work(voice, 4, T), [T, 0, 3, WINDOW]
    streams = Streams(kernel, work).launch([2, 0, 1, 3], steps)
    for stream, n in zip([2, 0, 1, 3], steps, strict=True):
        alone = Streams(kernel, work)
        if n:
            alone.launch([stream], [n])
        for name, tensor in streams.state().items():
            assert tensor[stream].equal(alone.state()[name][stream])
        assert streams.codes_BT2[stream].equal(alone.codes_BT2[stream])
        # what isn't written is left
        assert streams.audio_BT[stream].isnan().sum() == T - n
    assert streams.sample_B.tolist() == [0, 3, T, WINDOW]


def test_lanes_without_steps_touch_nothing(kernel, voice, make_work):
    work = make_work(voice, 2, 5)
    streams = Streams(kernel, work)
    before = streams.bits()
    assert streams.launch([0, 1], [0, 0]).bits() == before
    # a padding lane may name a stream that runs
    streams.launch([1, 1, 1], [0, 5, 0])
    assert streams.sample_B.tolist() == [0, 5]
    assert streams.bits()[-3:-1] == Streams(kernel, work).launch([1], [5]).bits()[-3:-1]


def test_a_tile_of_any_size(voice, make_work):
    work = make_work(voice, 3, 12)
    expected = reference.Synthesizer(voice, 3).run(work.gates_BNG, work.uniform_BT2)
    kernel = Graph(voice, "cpu", torch.float64, lanes=3)
    assert (Streams(kernel, work).run().codes_BT2.numpy() == expected).all()


def test_it_judges_a_rounded_voice(make_voice, make_work):
    voice = rounded(make_voice(), "bfloat16")
    work = make_work(voice, 2, 30)
    expected = reference.Synthesizer(voice, 2).run(work.gates_BNG, work.uniform_BT2)
    kernel = Graph(voice, "cpu", torch.float64)
    assert kernel.name == "graph" and kernel.format == "float64"
    assert (Streams(kernel, work).run().codes_BT2.numpy() == expected).all()


def test_a_replayed_step_is_the_step(voice, make_work, monkeypatch):
    # a capture has fixed addresses: whatever is assigned anew would be left behind
    kernel = Graph(voice, "cpu", torch.float64)
    buffers = {k: v.data_ptr() for k, v in vars(kernel).items() if isinstance(v, torch.Tensor)}
    work = make_work(voice, 2, WINDOW + 2)
    Streams(kernel, work).run()
    Streams(kernel, work, known_codes(2, WINDOW + 2)).run()
    assert buffers == {k: vars(kernel)[k].data_ptr() for k in buffers}


def test_a_replay_may_go_beyond_the_samples(voice, make_work, monkeypatch):
    # a captured graph makes several steps, of which the last may be too many
    assert WINDOW % CAPTURED == 0
    work, codes = make_work(voice, 2, WINDOW + 2), known_codes(2, WINDOW + 2)
    kernel = Graph(voice, "cpu", torch.float64)
    exact = [Streams(kernel, work, known).run().bits() for known in (None, codes)]

    def advance(samples, known):
        kernel.next_1.zero_()
        for _ in range(-(-samples // CAPTURED)):
            kernel._steps(known)

    monkeypatch.setattr(kernel, "_advance", advance)
    assert [Streams(kernel, work, known).run().bits() for known in (None, codes)] == exact
