import asyncio
import json
import math
import sys
import time
import types

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner
from websockets.sync.client import connect

from wavernn import checkpoint, cli_live, kernels, live
from wavernn.audio import read_audio, write_audio
from wavernn.conditioning import Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.deadlines import Deadlines, Delay
from wavernn.errors import ConfigError, MelError
from wavernn.kernels.bench import random_voice
from wavernn.mel import LogMel
from wavernn.soundcard import SoundCard
from wavernn.vocoder import Vocoder

LONG = 60.0
BACKEND = "reference" if kernels.unavailable("cpu") else "cpu"
# of the shared voice: hop 80, transform 256, look-ahead 2 at 8 kHz
HOP, RATE_HZ, DELAY = 80, 8000, 3 * 80 + (256 - 80) // 2


def offline(voice, samples_T, seed):
    mel_NM = LogMel(voice.config.mel)(torch.from_numpy(samples_T)[None])[0].numpy()
    return Vocoder(voice, BACKEND).synthesize(mel_NM, seed)


def pcm(samples_T):
    return np.rint(samples_T * 32768).astype("<i2").tobytes()


# ---- the delay ----


def test_the_delay_of_the_shipped_kind_of_voice():
    delay = Delay.of(Config())
    # a hop of 256, 2 hops of look-ahead, and (1024 - 256) / 2 of the transform
    assert delay.samples == 256 + 512 + 384
    table = delay.table(176)
    assert table["ms"] == pytest.approx(52.24, abs=0.01)
    assert table["samples_with_frames"] == 1312


SHAPES = [(80, 256, 2, 64), (80, 256, 2, 7), (80, 256, 0, 128), (50, 64, 3, 50), (64, 64, 1, 1)]


@pytest.mark.parametrize(("hop", "fft", "lookahead", "frame"), SHAPES)
def test_output_comes_exactly_when_the_delay_says(hop, fft, lookahead, frame):
    mel = MelConfig(
        rate_hz=8000, fft_samples=fft, window_samples=fft, hop_samples=hop, bands=8, high_hz=4000
    )
    sizes = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
    model = ModelConfig(**sizes, lookahead_frames=lookahead, conditioning_hop_samples=hop)
    voice = random_voice(Config("tiny", mel, model, train=TrainConfig(slice_samples=10 * hop)))
    delay, worst = Delay.of(voice.config), 0
    analysis, conditioning, known = live.Analysis(mel), Conditioning(voice), 0
    # long enough for all phases of hop and frame
    for heard in range(frame, 10 * hop + 2 * hop * frame, frame):
        mel_NM = analysis.push(np.zeros(frame, np.float32))
        for gates_NG in conditioning.push(torch.from_numpy(mel_NM)):
            # the first sample of these hops waited for this frame
            worst = max(worst, heard - known)
            known += hop * len(gates_NG)
        assert not known or delay.needed(known) <= heard
        assert heard < delay.needed(known + 1)
    assert worst == delay.with_frames(frame)


def test_input_changes_no_output_that_lies_further_back_than_the_delay(voice):
    samples_T = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    earliest = math.inf
    for at in range(2000, 2000 + HOP):
        rows = []
        for step in (0.0, 0.5):
            changed_T = samples_T.copy()
            changed_T[at] += step
            mel_NM = LogMel(voice.config.mel)(torch.from_numpy(changed_T)[None])[0]
            rows.append(torch.cat(list(Conditioning(voice).push(mel_NM, last=True))))
        differs = (rows[0] != rows[1]).any(dim=1).nonzero()[0, 0].item()
        place = differs * voice.config.model.conditioning_hop_samples
        earliest = min(earliest, place - at)
    # sharp but for the window, which is zero at its first sample
    assert -DELAY < earliest <= -DELAY + 2


# ---- the analysis and the deadlines ----


@pytest.mark.parametrize("frame", [1, 64, 128, 1000])
def test_mel_by_frame_is_the_mel_of_the_whole_bit_for_bit(voice, make_audio, frame):
    samples_T = make_audio(1)
    analysis = live.Analysis(voice.config.mel)
    pieces = [
        analysis.push(samples_T[start : start + frame]) for start in range(0, len(samples_T), frame)
    ]
    mel_NM = np.concatenate([*pieces, analysis.flush()])
    whole_NM = LogMel(voice.config.mel)(torch.from_numpy(samples_T)[None])[0].numpy()
    assert (mel_NM == whole_NM).all()


def test_samples_beyond_full_scale_are_limited_and_nan_is_refused(voice):
    loud, limited = (live.Analysis(voice.config.mel) for _ in range(2))
    loud.push(np.full(500, 3.0, np.float32))
    limited.push(np.ones(500, np.float32))
    assert (loud.flush() == limited.flush()).all()
    with pytest.raises(MelError, match="NaN"):
        loud.push(np.full(5, np.nan, np.float32))


def test_deadlines_take_the_time_since_the_last_input_that_was_needed():
    # 1000 Hz; a hop of 10 needs 10 of the next hop and 5 more
    deadlines = Deadlines(Delay(1000, 10, 5, 1))
    for frame in range(1, 7):
        deadlines.heard(10, 0.010 * frame)
    # the first hop was possible with the third frame, at 30 ms
    deadlines.said(10, 0.032)
    # the next two with the fourth and the fifth
    deadlines.said(20, 0.070)
    report = deadlines.report()
    assert report["frames"] == 3
    assert report["process_ms"]["max"] == pytest.approx(30)
    assert report["process_ms"]["p50"] == pytest.approx(20, abs=0.11)
    assert report["total_ms"]["max"] == pytest.approx(50)
    # 60 ms were heard
    assert report["misses"] == {"8": 2, "16": 2}
    assert report["misses_per_minute"]["8"] == pytest.approx(2000)
    deadlines.ended(0.080)
    deadlines.said(30, 0.085)
    # the sixth frame needed the end; the fourth has waited for the sixth, the fifth for the end
    assert deadlines.report()["frames"] == 6
    assert deadlines.report()["process_ms"]["p50"] == pytest.approx(5, abs=20)


def test_deadlines_of_nothing_are_empty():
    report = Deadlines(Delay(1000, 10, 5, 1)).report()
    assert report["frames"] == 0 and report["process_ms"] == {"p50": None, "p99": None, "max": None}


# ---- the loop ----


def test_what_is_said_live_is_what_is_said_offline(voice, make_audio):
    samples_T = make_audio(2, 0.3)
    begun_s = time.monotonic()
    said, report = live.run(
        voice, lambda: live.FileMicrophone(samples_T, RATE_HZ, 64, 3), 3, seed=5, backend=BACKEND
    )
    assert time.monotonic() - begun_s >= 0.3, "that was faster than real time"
    assert (said == offline(voice, samples_T, 5)).all()
    assert report["channels"] == 3 and report["seconds"] == pytest.approx(0.3)
    assert report["frames"] == 3 * -(-len(samples_T) // 64)
    assert report["delay"]["samples"] == DELAY
    assert 0 < report["process_ms"]["p50"] <= report["process_ms"]["p99"]
    # what must be waited for is in the one and not in the other
    assert report["total_ms"]["p50"] > report["process_ms"]["p50"] + 20


def test_channels_hear_the_same_and_say_it_with_their_own_seed(voice, make_audio):
    samples_T, kept = make_audio(2), []

    def microphone():
        kept.append(live.FileMicrophone(samples_T, RATE_HZ, 128, 2))
        return kept[0]

    live.run(voice, microphone, 2, seed=2**64 - 1, backend=BACKEND)
    for pieces, seed in zip(kept[0].said, (2**64 - 1, 0), strict=True):
        assert (np.concatenate(pieces) == offline(voice, samples_T, seed)).all()


# ---- the command ----


@pytest.fixture(scope="module")
def files(voice, make_audio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    checkpoint.save(folder / "voice.safetensors", voice)
    write_audio(folder / "in.wav", make_audio(3), RATE_HZ)
    return folder


def command(*arguments):
    app = typer.Typer()
    app.command()(cli_live.live)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_writes_a_file_and_reports(voice, files):
    out = files / "out.wav"
    options = ("--voice", files / "voice.safetensors", "--seed", 4, "--backend", BACKEND)
    done = command(files / "in.wav", "-o", out, *options, "--frame-ms", 16, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["delay"]["frame_samples"] == 128
    assert set(report["misses_per_minute"]) == {"8", "16"}
    samples_T = offline(voice, read_audio(files / "in.wav", RATE_HZ), 4)
    assert pcm(read_audio(out, RATE_HZ)) == pcm(samples_T)
    text = command(files / "in.wav", *options, "--seconds", 0.1).stdout
    assert "misses_per_minute" in text and "delay:" in text


def test_the_command_wants_a_recording_or_a_device(files):
    for arguments in ((), (files / "in.wav", "--device", ""), ("--device", "", "--channels", 2)):
        assert command(*arguments).exit_code == 2


# ---- the sound card ----


class Card(types.ModuleType):
    """A sounddevice whose card is a task: it loops what it's given back after nothing."""

    class PortAudioError(Exception):
        pass

    def __init__(self, heard_T, fail=False):
        super().__init__("sounddevice")
        card = self
        self.played = []

        class Stream:
            def __init__(self, *, samplerate, blocksize, callback, **options):
                if fail:
                    raise card.PortAudioError("no device")
                self.options = options | {"samplerate": samplerate}
                self.frame, self.callback = blocksize, callback

            def __enter__(self):
                self.task = asyncio.get_running_loop().create_task(self.run())

            def __exit__(self, *exception):
                self.task.cancel()

            async def run(self):
                for start in range(0, len(heard_T) - self.frame + 1, self.frame):
                    said = np.full((self.frame, 1), np.nan, np.float32)
                    frame = heard_T[start : start + self.frame, None].copy()
                    self.callback(frame, said, None, None, None)
                    # the card's memory is used again
                    frame[:] = np.nan
                    card.played.append(said[:, 0])
                    await asyncio.sleep(self.frame / RATE_HZ)

        self.Stream = Stream


def test_a_sound_card_plays_what_it_heard_after_the_time_ahead(voice, make_audio, monkeypatch):
    samples_T = make_audio(4, 0.4)
    card = Card(samples_T)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    ahead = DELAY + 1000
    said_T, report = live.run(
        voice, lambda: SoundCard(RATE_HZ, 80, ahead, "", 0.4), 1, seed=1, backend=BACKEND
    )
    assert (said_T == offline(voice, samples_T, 1)).all()
    played_T = np.concatenate(card.played)
    assert (played_T[:ahead] == 0).all()
    if not report["silent_ms"]:
        assert (played_T[ahead:] == said_T[: len(played_T) - ahead]).all()


def test_a_card_that_cant_be_opened_is_a_sentence(monkeypatch):
    async def opened():
        SoundCard(RATE_HZ, 80, 0, "3")

    monkeypatch.setitem(sys.modules, "sounddevice", Card(np.zeros(1), fail=True))
    with pytest.raises(ConfigError, match=r"sound card can't be opened \(no device\)"):
        asyncio.run(opened())
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConfigError, match="pip install sounddevice"):
        asyncio.run(opened())


# ---- the socket ----


@pytest.mark.parametrize("kind", ["s16le", "f32le"])
def test_the_live_socket_says_what_it_hears(running, voice, make_audio, kind):
    samples_T = np.rint(make_audio(6) * 32768).astype("<i2")
    heard_T = samples_T.astype("<f4") / 32768
    data = (samples_T if kind == "s16le" else heard_T).tobytes()
    url = running.url.replace("http", "ws") + "/v1/live"
    with connect(url, open_timeout=LONG, close_timeout=1, proxy=None) as socket:
        assert json.loads(socket.recv(LONG))["config"]["input"] == "audio"
        socket.send(json.dumps({"type": "session.config", "seed": 3, "input_format": kind}))
        socket.recv(LONG)
        for start in range(0, len(data), 252):
            socket.send(data[start : start + 252])
        socket.send('{"type": "input.done"}')
        begin = json.loads(socket.recv(LONG))
        assert begin["type"] == "audio.start" and begin["delay"]["samples"] == DELAY
        chunks = []
        while isinstance(message := socket.recv(LONG), bytes):
            chunks.append(message)
    assert b"".join(chunks) == pcm(offline(voice, heard_T, 3))
    done = json.loads(message)
    assert done["reason"] == "done"
    assert done["deadlines"]["frames"] == -(-len(data) // 252)


def test_large_and_bad_pieces_of_audio(running, voice, make_audio):
    heard_T = make_audio(7, 1.0)
    url = running.url.replace("http", "ws") + "/v1/live"
    with connect(url, open_timeout=LONG, close_timeout=1, proxy=None) as socket:
        socket.recv(LONG)
        socket.send('{"type": "session.config", "seed": 3, "input_format": "f32le"}')
        socket.recv(LONG)
        for bad, words in ((b"12345", "float32 samples"), (b"\0\0\xc0\x7f", "NaN")):
            socket.send(bad)
            assert words in json.loads(socket.recv(LONG))["error"]["message"]
        socket.send(heard_T.tobytes())
        socket.send('{"type": "input.flush"}')
        chunks = []
        assert json.loads(socket.recv(LONG))["type"] == "audio.start"
        while isinstance(message := socket.recv(LONG), bytes):
            chunks.append(message)
    assert b"".join(chunks) == pcm(offline(voice, heard_T, 3))
