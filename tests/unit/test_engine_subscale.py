"""Utterances of a subscale voice as the channels of an engine."""

import threading
import time

import numpy as np
import pytest

from wavernn import capacity, kernels
from wavernn.channel import Channel
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.deadlines import Delay
from wavernn.engine import LONG_FRAMES, Engine
from wavernn.kernels.bench import random_voice
from wavernn.lanes import Utterances
from wavernn.subscale import Order
from wavernn.vocoder import Vocoder

HOP, BANDS, U, F = 16, 5, 4, 2
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000
)
SIZES = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
SIZES |= {"subscale": U, "subscale_horizon": F, "context_channels": 8, "context_layers": 2}
MODEL = ModelConfig(**SIZES, conditioning_hop_samples=4)
# the longest that anything here waits for another thread
LONG = 60.0
# of each stream: one frame, less than is late, more
FRAMES = [1, 2, 3, 11, 17, 30]

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(bool(why := kernels.unavailable(name, U)), reason=why or "")
    )
    for name in kernels.BACKENDS
]


@pytest.fixture(scope="module")
def voice():
    return random_voice(Config("lanes", MEL, MODEL, train=TrainConfig(slice_samples=256)))


@pytest.fixture(scope="module")
def spoken(voice):
    """What a vocoder makes of the mel and seed of a number, by backend."""
    found = {}

    def speak(backend):
        if backend not in found:
            alone = Vocoder(voice, backend)
            found[backend] = [alone.synthesize(make_mel(seed), seed, 0.8) for seed in range(6)]
        return found[backend]

    return speak


@pytest.fixture
def engine(voice):
    with Engine(voice, "reference", channels=3) as engine:
        yield engine


def make_mel(seed, frames=None):
    random = np.random.default_rng(seed)
    return random.normal(-4, 2, (frames or FRAMES[seed], BANDS)).astype(np.float32)


def drain(channel):
    pieces = []
    while (samples := channel.read(LONG)) is not None:
        assert len(samples)
        pieces.append(samples)
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def wait_until(condition):
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lanes", [None, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_streams_at_once_are_the_streams_alone(voice, spoken, backend, lanes, threads):
    with Engine(voice, backend, channels=6, lanes=lanes, threads=threads) as engine:
        assert engine.lanes == (lanes or 1)
        channels = [engine.open(seed, 0.8) for seed in range(6)]
        for start in range(0, 30, 4):
            for seed, channel in enumerate(channels):
                if len(piece := make_mel(seed)[start : start + 4]):
                    channel.push(piece, LONG)
        for channel in channels:
            channel.end()
        made = [drain(channel) for channel in channels]
        assert engine.totals.samples == HOP * sum(FRAMES)
    for seed, samples in enumerate(made):
        assert (samples == spoken(backend)[seed]).all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_fused_voices_are_utterances_too(backend):
    if (why := kernels.unavailable(backend, 1, 2)) is not None:
        pytest.skip(why)
    sizes = {name: SIZES[name] for name in ("hidden", "projection", "embedding", "channels")}
    model = ModelConfig(**sizes, layers=1, conditioning_hop_samples=4, fused=2)
    voice = random_voice(Config("pair", MEL, model, train=TrainConfig(slice_samples=256)))
    with Engine(voice, backend, channels=2) as engine:
        assert (engine.lanes, engine.delay_samples) == (1, 5)
        channels = [engine.open(seed) for seed in (3, 4)]
        for seed, channel in zip((3, 4), channels, strict=True):
            channel.push(make_mel(seed), LONG)
            channel.end()
        made = [drain(channel) for channel in channels]
    alone = Vocoder(voice, backend)
    for seed, samples in zip((3, 4), made, strict=True):
        assert (samples == alone.synthesize(make_mel(seed), seed)).all()


def test_a_channel_has_nothing_of_the_stream_before(engine, spoken):
    for seed in range(6):
        # one that is left in its midst, and one without a frame
        with engine.open(7) as left:
            left.push(make_mel(5, 40))
            left.read(LONG)
        with engine.open(8) as silent:
            silent.end()
            assert silent.read(LONG) is None
        with engine.open(seed, 0.8) as channel:
            channel.push(make_mel(seed))
            channel.end()
            assert (drain(channel) == spoken("reference")[seed]).all()
        wait_until(lambda: engine.stats()["channels_open"] == 0)
    assert engine.totals.cancelled == 6


def test_a_stream_is_late_by_what_is_stated_and_then_complete(engine, voice, spoken):
    assert engine.delay_samples == Order(U, F).lookahead_samples
    seed, lookahead = 5, MODEL.lookahead_frames
    channel = engine.open(seed, 0.8)
    got = []
    for n, frame_1M in enumerate(make_mel(seed)[:, None], 1):
        channel.push(frame_1M)
        due = (n - lookahead) * HOP - engine.delay_samples
        while sum(map(len, got)) < due:
            got.append(channel.read(LONG))
    wait_until(lambda: channel.idle)
    # the last frames wait for what follows them
    assert sum(map(len, got)) < FRAMES[seed] * HOP
    channel.end()
    whole = np.concatenate([*got, drain(channel)])
    assert (whole == spoken("reference")[seed]).all()


def test_the_delay_of_live_speech_counts_the_lanes(voice):
    delay, order = Delay.of(voice.config), Order(U, F)
    ahead = order.lookahead_samples
    assert delay.table(HOP)["subscale_samples"] == ahead
    frame, worst, worst_of_frames = 24, 0, 0
    for samples in range(1, 20 * HOP):
        heard = delay.needed(samples)
        frames = (heard - delay.margin_samples) // HOP - delay.lookahead_frames
        assert order.made(frames * HOP // U) >= samples
        worst = max(worst, heard - (samples - 1))
        worst_of_frames = max(worst_of_frames, -(-heard // frame) * frame - (samples - 1))
    assert worst == delay.samples
    assert worst_of_frames == delay.with_frames(frame)


def test_an_end_that_comes_late_is_an_end(engine, spoken):
    seed = 4
    channel = engine.open(seed, 0.8)
    channel.push(make_mel(seed))
    got = [channel.read(LONG)]
    wait_until(lambda: not channel.gate_frames and channel.idle)
    channel.end()
    assert (np.concatenate([*got, drain(channel)]) == spoken("reference")[seed]).all()


def test_the_most_urgent_stream_has_the_turn(voice):
    with Engine(voice, "reference", channels=3, ahead_s=100) as engine:
        made, channels = [], [engine.open(seed) for seed in range(3)]
        deliver = Channel.deliver

        def watch(self, samples, now_s):
            waiting = deliver(self, samples, now_s)
            if all(channel.made for channel in channels):
                made.append([channel.made for channel in channels])
            return waiting

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Channel, "deliver", watch)
            for channel in channels:
                channel.push(make_mel(0, 60))
            for channel in channels:
                channel.end()
            for channel in channels:
                drain(channel)
        late = engine.delay_samples + LONG_FRAMES * HOP
        apart = [max(row) - min(row) for row in made if max(row) < 60 * HOP - late]
        assert apart
        assert max(apart) <= 2 * LONG_FRAMES * HOP


def test_queues_hold_what_the_formula_says(voice):
    with Engine(voice, "reference", channels=2, ahead_s=0.05, input_s=0.2) as engine:
        for seed in range(2):
            channel = engine.open(seed)
            with pytest.raises(TimeoutError):
                channel.push(make_mel(0, 1000), timeout=0.5)
        # one whose end is spoken while nobody reads
        channel.cancel()
        short = engine.open(3)
        short.push(make_mel(3, 10))
        short.end()
        wait_until(lambda: short.row not in engine._open)
        held = [
            sum(piece.nbytes for piece in (*c._mels, *c._audio))
            for c in (*engine._open.values(), short)
        ]
        assert sum(held) <= engine.buffer_bytes()
        assert len(drain(short)) == 10 * HOP


@pytest.mark.parametrize("place", ["speak", "end"])
def test_an_engine_that_fails_says_so(voice, monkeypatch, place):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(Utterances, place, None)
    with Engine(voice, "reference", channels=2) as engine:
        channel = engine.open()
        channel.push(make_mel(5))
        channel.end()
        with pytest.raises(RuntimeError, match="the engine has failed"):
            drain(channel)


def test_weights_are_packed_once_for_all_channels(voice, monkeypatch, absent):
    if reason := kernels.unavailable("cpu", U):
        absent("cpu", reason)
    from wavernn.kernels import cpu_subscale

    packs, pack = [], cpu_subscale.packed
    monkeypatch.setattr(cpu_subscale, "packed", lambda *of: packs.append(of) or pack(*of))
    with Engine(voice, "cpu", "float32", channels=5):
        assert len(packs) == 1


def test_capacity_is_measured(voice):
    assert 0 < capacity.measure(voice, "reference") < 1000
