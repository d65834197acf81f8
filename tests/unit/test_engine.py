import asyncio
import gc
import threading
import time

import numpy as np
import pytest

from wavernn import capacity, kernels
from wavernn.channel import Channel
from wavernn.conditioning import BLOCK_FRAMES
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.engine import LONG_FRAMES, Engine
from wavernn.errors import EngineBusy, MelError
from wavernn.kernels.bench import random_voice
from wavernn.vocoder import Vocoder

HOP, BANDS = 16, 5
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000
)
SIZES = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
MODEL = ModelConfig(**SIZES, conditioning_hop_samples=4)
# the longest that anything here waits for another thread
LONG = 60.0

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(bool(why := kernels.unavailable(name)), reason=why or "")
    )
    for name in kernels.BACKENDS
]


@pytest.fixture(scope="module")
def voice():
    return random_voice(Config("tiny", MEL, MODEL, train=TrainConfig(slice_samples=256)))


@pytest.fixture(scope="module")
def spoken(voice):
    """What a vocoder, which knows one stream, makes of the mel and seed of a number."""
    vocoder = Vocoder(voice, "reference")
    return [vocoder.synthesize(make_mel(seed), seed) for seed in range(6)]


@pytest.fixture
def engine(voice):
    with Engine(voice, "reference", channels=4, lanes=3) as engine:
        yield engine


def make_mel(seed, frames=None):
    random = np.random.default_rng(seed)
    frames = 11 + 3 * seed if frames is None else frames
    return random.normal(-4, 2, (frames, BANDS)).astype(np.float32)


def drain(channel):
    pieces = []
    while (samples := channel.read(LONG)) is not None:
        pieces.append(samples)
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def wait_until(condition):
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lanes", [1, 2, 6])
def test_streams_at_once_are_the_streams_alone(voice, backend, lanes):
    alone = Vocoder(voice, backend)
    with Engine(voice, backend, channels=6, lanes=lanes, threads=2) as engine:
        channels = [engine.open(seed, 0.8) for seed in range(6)]
        # frames arrive in pieces, one stream's between the others'
        for start in range(0, 30, 4):
            for seed, channel in enumerate(channels):
                if len(piece := make_mel(seed)[start : start + 4]):
                    channel.push(piece, LONG)
        for channel in channels:
            channel.end()
        made = [drain(channel) for channel in channels]
    for seed, samples in enumerate(made):
        assert (samples == alone.synthesize(make_mel(seed), seed, 0.8)).all()


def test_channels_are_used_again(engine, spoken):
    for _ in range(3):
        for seed in range(6):
            with engine.open(seed) as channel:
                channel.push(make_mel(seed))
                channel.end()
                assert (drain(channel) == spoken[seed]).all()
    wait_until(lambda: engine.stats()["channels_open"] == 0)
    assert engine.totals.streams == 18
    assert engine.totals.samples == 3 * sum(len(samples) for samples in spoken)
    assert engine.totals.cancelled == 0


def test_streams_that_come_and_go_dont_disturb_each_other(engine, spoken):
    def speak(seed):
        for _ in range(5):
            with engine.open(seed) as channel:
                channel.push(make_mel(seed), LONG)
                channel.end()
                wrong.append(not (drain(channel) == spoken[seed]).all())

    def leave():
        for frames in range(20):
            with engine.open() as channel:
                channel.push(make_mel(0, 1 + frames), LONG)

    wrong = []
    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(3)]
    threads.append(threading.Thread(target=leave))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert wrong == [False] * 15
    wait_until(lambda: engine.stats()["channels_open"] == 0)


def test_no_more_streams_than_channels(engine):
    channels = [engine.open() for _ in range(4)]
    with pytest.raises(EngineBusy, match="all 4 channels are taken") as refused:
        engine.open()
    assert refused.value.retry_after_s > 0
    channels[2].cancel()
    engine.open()
    assert engine.stats()["channels_open"] == 4
    assert engine.totals.refused == 1


def test_a_reader_who_is_behind_pauses_his_stream_alone(voice):
    with Engine(voice, "reference", channels=2, ahead_s=0.01) as engine:
        assert engine.max_samples == 80
        slow, fast = engine.open(1), engine.open(2)
        for channel in (slow, fast):
            channel.push(make_mel(0, 200))
            channel.end()
        assert len(drain(fast)) == 200 * HOP
        most = engine.max_samples + LONG_FRAMES * HOP
        assert engine.max_samples <= slow.made <= most
        assert len(drain(slow)) == 200 * HOP


def test_frames_wait_for_room(voice):
    with Engine(voice, "reference", channels=1, ahead_s=0.01, input_s=0.1) as engine:
        channel = engine.open(3)
        with pytest.raises(TimeoutError, match="no room for mel frames"):
            channel.push(make_mel(0, 500), timeout=0.05)
        assert channel.waiting_frames <= engine.max_frames == 50
        thread = threading.Thread(target=drain, args=(channel,))
        thread.start()
        channel.push(make_mel(0, 500), LONG)
        channel.end()
        thread.join(LONG)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("mel", "reason"),
    [
        (np.zeros((3, 4), np.float32), "shape"),
        (np.zeros((0, BANDS), np.float32), "at least one frame"),
        (np.zeros((3, BANDS), np.int16), "floating-point"),
        (np.full((3, BANDS), np.nan, np.float32), "NaN"),
    ],
)
def test_a_bad_mel_is_refused_and_the_stream_goes_on(engine, spoken, mel, reason):
    channel = engine.open(1)
    channel.push(make_mel(1)[:5])
    with pytest.raises(MelError, match=reason):
        channel.push(mel)
    channel.push(make_mel(1)[5:])
    channel.end()
    assert (drain(channel) == spoken[1]).all()


def test_the_callers_array_is_his_own(engine, spoken):
    mel = make_mel(2)
    channel = engine.open(2)
    channel.push(mel)
    mel[:] = 0
    channel.end()
    assert (drain(channel) == spoken[2]).all()


def test_a_stream_without_frames_is_empty(engine):
    channel = engine.open()
    channel.end()
    assert channel.read(LONG) is None
    with pytest.raises(ValueError, match="after the end of the stream"):
        engine_closed = engine.open()
        engine_closed.end()
        engine_closed.push(make_mel(0))


def test_a_cancelled_stream_gives_nothing_more(engine):
    channel = engine.open()
    channel.push(make_mel(0, 400))
    assert channel.read(LONG) is not None
    channel.cancel()
    channel.cancel()
    assert channel.read(LONG) is None
    # who still pushes isn't held up
    channel.push(make_mel(0, 2000), LONG)
    wait_until(lambda: engine.stats()["channels_open"] == 0)
    assert engine.totals.cancelled == 1


def test_cancelling_wakes_who_waits(engine):
    channel = engine.open()
    got = []
    thread = threading.Thread(target=lambda: got.append(channel.read(LONG)))
    thread.start()
    channel.cancel()
    thread.join(LONG)
    assert got == [None]


def test_reading_waits_for_what_is_wanted(engine):
    channel = engine.open(0)
    channel.push(make_mel(0, 100))
    assert len(channel.read(LONG, at_least=20 * HOP)) >= 20 * HOP
    with pytest.raises(TimeoutError, match="gave no samples"):
        channel.read(0.05, at_least=200 * HOP)
    channel.end()
    assert len(drain(channel)) > 0


def test_more_than_a_channel_holds_is_never_waited_for(voice):
    with Engine(voice, "reference", channels=1, ahead_s=0.01) as engine:
        channel = engine.open()
        channel.push(make_mel(0, 100))
        assert len(channel.read(LONG, at_least=1 << 30)) >= engine.max_samples


def test_tasks_share_an_event_loop(voice, spoken):
    async def stream(engine, seed):
        channel = engine.open(seed)

        async def give():
            for frame in make_mel(seed):
                await channel.apush(frame[None])
            channel.end()

        giving = asyncio.create_task(give())
        pieces = [samples async for samples in channel]
        await giving
        return np.concatenate(pieces)

    async def everyone():
        with Engine(voice, "reference", channels=6, ahead_s=0.01, input_s=0.01) as engine:
            return await asyncio.gather(*(stream(engine, seed) for seed in range(6)))

    made = asyncio.run(asyncio.wait_for(everyone(), LONG))
    for seed, samples in enumerate(made):
        assert (samples == spoken[seed]).all()


def test_a_task_that_is_cancelled_leaves_no_future_behind(engine):
    async def give_up(channel):
        for _ in range(50):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.aread(), 0.001)

    channel = engine.open()
    asyncio.run(give_up(channel))
    assert len(channel._futures) <= 1
    # the loop that they waited in is closed
    channel.push(make_mel(0))
    channel.end()
    assert len(drain(channel)) == len(make_mel(0)) * HOP


def test_closing_may_wait_for_open_streams(voice, spoken):
    engine = Engine(voice, "reference", channels=2)
    channel = engine.open(1)
    channel.push(make_mel(1))
    closing = threading.Thread(target=engine.close, kwargs={"drain": True})
    closing.start()
    wait_until(lambda: engine.stats()["draining"])
    with pytest.raises(EngineBusy, match="is closing"):
        engine.open()
    channel.end()
    assert (drain(channel) == spoken[1]).all()
    closing.join(LONG)
    assert not closing.is_alive()


def test_closing_waits_no_longer_than_it_was_told(voice):
    engine = Engine(voice, "reference", channels=2)
    channel = engine.open(1)
    engine.close(drain=True, timeout=0.05)
    assert channel.read(LONG) is None


def test_an_engine_that_fails_says_so_to_every_reader(voice, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with Engine(voice, "reference", channels=2) as engine:
        monkeypatch.setattr(engine._speakers, "speak", None)
        channels = [engine.open(), engine.open()]
        channels[0].push(make_mel(0))
        channels[0].end()
        for channel in channels:
            with pytest.raises(RuntimeError, match="the engine has failed"):
                channel.read(LONG)
        with pytest.raises(RuntimeError, match="the engine has failed"):
            engine.open()


@pytest.mark.parametrize(
    "settings", [{"seed": -1}, {"seed": 1 << 64}, {"temperature": 0.0}, {"temperature": np.inf}]
)
def test_settings_out_of_range_are_refused(engine, settings):
    with pytest.raises(ValueError, match=r"temperature must be|a seed is"):
        engine.open(**settings)
    assert engine.stats()["channels_open"] == 0


def test_the_most_urgent_streams_are_dealt_the_lanes(voice):
    """Of more streams than lanes none gets far ahead while all are to be spoken."""
    with Engine(voice, "reference", channels=6, lanes=2, ahead_s=100) as engine:
        made = []
        channels = [engine.open(seed) for seed in range(6)]
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
        apart = [max(row) - min(row) for row in made if max(row) < 60 * HOP]
        assert apart
        assert max(apart) <= 2 * LONG_FRAMES * HOP


def test_queues_hold_what_the_formula_says(voice):
    with Engine(voice, "reference", channels=3, ahead_s=0.05, input_s=0.2) as engine:
        for seed in range(3):
            channel = engine.open(seed)
            with pytest.raises(TimeoutError):
                channel.push(make_mel(0, 1000), timeout=0.2)
        held = sum(
            sum(piece.nbytes for piece in (*channel._mels, *channel._audio))
            for channel in engine._open.values()
        )
        gates = engine._speakers.buffer_bytes()
        frames = engine.max_frames * BANDS * 4
        samples = engine.max_samples * 4
        assert 3 * 0.9 * (frames + samples) < held
        assert held + gates <= engine.buffer_bytes()


def test_nothing_is_left_of_streams(engine):
    def count():
        gc.collect()
        return sum(type(thing) is Channel for thing in gc.get_objects())

    for _ in range(20):
        with engine.open() as channel:
            channel.push(make_mel(0, 30))
            channel.read(LONG)
    del channel
    wait_until(lambda: engine.stats()["channels_open"] == 0 and count() == 0)


def test_capacity_is_measured_and_shared_out(voice):
    factor = capacity.measure(voice, "reference", lanes=2)
    assert 0 < factor < 1000
    assert capacity.channels_for(factor, 1e-9) == 1
    assert capacity.channels_for(20.0, 0.9) == 18
    assert BLOCK_FRAMES >= LONG_FRAMES
