import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wavernn
from wavernn import checkpoint
from wavernn.audio import de_emphasis, decode
from wavernn.conditioning import BLOCK_FRAMES, Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.errors import BackendUnavailable, CheckpointError, MelError
from wavernn.kernels.bench import random_voice
from wavernn.kernels.reference import Synthesizer
from wavernn.rng import uniforms
from wavernn.vocoder import Vocoder, check_mel

HOP, BANDS = 16, 5
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000
)


def make_voice(loud=False, **fields):
    sizes = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
    model = ModelConfig(**{**sizes, "conditioning_hop_samples": 4, **fields})
    voice = random_voice(Config("tiny", MEL, model, train=TrainConfig(slice_samples=256)))
    # a fresh model hardly listens to its input, and draws noise that de-emphasis overloads
    tensors = {k: 4 * v if k[0] in "Og" else v for k, v in voice.tensors.items()}
    if not loud:
        tensors["O2.bias"] = -(((torch.arange(256) - 128) / 4) ** 2)
    return replace(voice, tensors=tensors)


def make_mel(frames, seed=0):
    noise = np.random.default_rng(seed).normal(size=(frames, BANDS))
    return (MEL.floor_value / 2 - MEL.floor_value / 4 * noise).astype(np.float32)


def cut(array, places):
    return [piece for piece in np.split(array, sorted(places)) if len(piece)]


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder(make_voice(), "reference")


def pushed(conditioning, pieces):
    conditioning.reset()
    given = [rows for piece in pieces for rows in conditioning.push(torch.from_numpy(piece))]
    return torch.cat([*given, *conditioning.push(torch.empty(0, BANDS), last=True)])


LOOKAHEADS = st.integers(0, 3)
PLACES = st.lists(st.integers(0, 40), max_size=8)


@given(st.integers(1, 40), PLACES, LOOKAHEADS)
def test_gate_input_is_bit_equal_for_any_pieces(frames, places, lookahead):
    conditioning = Conditioning(make_voice(lookahead_frames=lookahead))
    mel_NM = make_mel(frames)
    whole = pushed(conditioning, [mel_NM])
    assert whole.shape == (frames * 4, 24)
    assert torch.equal(pushed(conditioning, cut(mel_NM, places)), whole)
    assert torch.equal(pushed(conditioning, cut(mel_NM, range(frames))), whole)


@pytest.mark.parametrize("lookahead", [0, 3])
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("frames", [1, 2, 8, 9, 16, 30])
def test_gate_input_is_that_of_the_whole_padded_mel(frames, layers, lookahead):
    voice = make_voice(layers=layers, lookahead_frames=lookahead)
    mel_NM, model = make_mel(frames), voice.model(torch.float64)
    padded = model.conditioner.pad(torch.from_numpy(mel_NM).double()[None])
    streamed = pushed(Conditioning(voice), [mel_NM])
    assert (streamed - model.gate_input(padded)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("lookahead", [0, 1, 2, 3])
def test_a_frame_is_given_as_soon_as_its_lookahead_is_there(lookahead):
    conditioning, given = Conditioning(make_voice(lookahead_frames=lookahead)), 0
    for frame in make_mel(20):
        before = given
        for rows in conditioning.push(torch.from_numpy(frame[None])):
            given += len(rows) // 4
        assert given - before <= 1
    assert given == 20 - lookahead
    assert sum(map(len, conditioning.push(torch.empty(0, BANDS), last=True))) == 4 * lookahead


def test_what_a_stream_keeps_is_bounded():
    conditioning = Conditioning(make_voice())
    most = conditioning.history + conditioning.lookahead + BLOCK_FRAMES
    for frames in (1, 300, 5):
        for _ in conditioning.push(torch.from_numpy(make_mel(frames))):
            pass
        assert conditioning.mel_NM.untyped_storage().nbytes() <= most * BANDS * 4


def test_a_reset_forgets_the_stream():
    conditioning, mel_NM = Conditioning(make_voice()), make_mel(12)
    whole = pushed(conditioning, [mel_NM])
    next(conditioning.push(torch.from_numpy(make_mel(11, seed=1))))
    assert torch.equal(pushed(conditioning, [mel_NM]), whole)


@settings(max_examples=20)
@given(st.integers(1, 14), PLACES, st.integers(0, 2**64 - 1))
def test_a_stream_is_the_whole_for_any_pieces(vocoder, frames, places, seed):
    mel_NM = make_mel(frames)
    whole = vocoder.synthesize(mel_NM, seed)
    pieces = list(vocoder.stream(cut(mel_NM, places), seed))
    assert (np.concatenate(pieces) == whole).all()
    assert whole.shape == (frames * HOP,)
    assert whole.dtype == np.float32
    assert np.abs(whole).max() < 1


def test_a_stream_is_a_function_of_the_seed(vocoder):
    mel_NM = make_mel(6)
    first, second = vocoder.synthesize(mel_NM, 1), vocoder.synthesize(mel_NM, 2)
    assert (first != second).any()
    assert (vocoder.synthesize(mel_NM, 1) == first).all()
    assert (Vocoder(make_voice(), "reference").synthesize(mel_NM, 1) == first).all()
    assert (vocoder.synthesize(mel_NM) == vocoder.synthesize(mel_NM, 0)).all()


def test_a_stream_is_a_function_of_the_mel(vocoder):
    mel_NM = make_mel(6)
    other = mel_NM.copy()
    other[3:] += 1
    a, b = vocoder.synthesize(mel_NM), vocoder.synthesize(other)
    # the change is heard two frames ahead of itself, the look-ahead, and no earlier
    assert (a[:HOP] == b[:HOP]).all()
    assert (a[HOP : 3 * HOP] != b[HOP : 3 * HOP]).any()


@pytest.mark.parametrize("loud", [False, True], ids=["quiet", "overload"])
@pytest.mark.parametrize("a", [0.0, 0.85])
def test_de_emphasis_is_carried_through_the_stream(a, loud):
    voice, frames = make_voice(loud, pre_emphasis=a), 11
    mel_NM = make_mel(frames)
    gates_NG = pushed(Conditioning(voice), [mel_NM])
    codes = Synthesizer(voice, 1).run(gates_NG[None], uniforms(5, 0, frames * HOP)[None])
    expected, _ = de_emphasis(decode(codes[0]), a)
    pieces = Vocoder(voice, "reference").stream(cut(mel_NM, range(0, frames, 3)), seed=5)
    samples = np.concatenate(list(pieces))
    assert (samples == np.clip(expected, -1, 32767 / 32768).astype(np.float32)).all()
    assert samples.min() >= -1 and samples.max() < 1
    assert (np.abs(expected).max() > 1) == (loud and a > 0)


def test_samples_come_while_frames_are_missing(vocoder):
    asked = []

    def frames():
        for frame in make_mel(10):
            asked.append(frame)
            yield frame[None]

    first = next(vocoder.stream(frames()))
    assert len(first) == HOP
    # the frame itself and its look-ahead
    assert len(asked) == 3


def test_a_stream_of_nothing_is_empty(vocoder):
    assert list(vocoder.stream([])) == []


def test_a_vocoder_is_used_again_after_a_stream_that_was_left(vocoder):
    mel_NM = make_mel(12)
    whole = vocoder.synthesize(mel_NM, 3)
    left = vocoder.stream([make_mel(9, seed=1)], 7)
    next(left)
    assert (vocoder.synthesize(mel_NM, 3) == whole).all()
    left.close()
    assert (vocoder.synthesize(mel_NM, 3) == whole).all()


def test_a_new_stream_ends_the_one_before_and_isnt_disturbed(vocoder):
    mel_NM = make_mel(20)
    whole = vocoder.synthesize(mel_NM, 3)
    old = vocoder.stream([make_mel(20, seed=1)], 7)
    next(old)
    new = vocoder.stream([mel_NM], 3)
    pieces = [next(new)]
    with pytest.raises(RuntimeError, match="another stream was started on this vocoder"):
        next(old)
    assert (np.concatenate([*pieces, *new]) == whole).all()


def test_a_stream_in_an_event_loop_is_the_same(vocoder):
    mel_NM = make_mel(20)
    whole = vocoder.synthesize(mel_NM, 3, 0.8)

    async def collect():
        async def arriving():
            for frame in range(0, 20, 3):
                await asyncio.sleep(0)
                yield mel_NM[frame : frame + 3]

        return [samples async for samples in vocoder.astream(arriving(), 3, 0.8)]

    pieces = asyncio.run(collect())
    assert len(pieces) > 3
    assert (np.concatenate(pieces) == whole).all()


def test_two_vocoders_take_turns():
    voice, mels = make_voice(), [make_mel(12), make_mel(12, seed=1)]
    alone = [Vocoder(voice, "reference").synthesize(mel_NM, 9) for mel_NM in mels]
    streams = [Vocoder(voice, "reference").stream([mel_NM], 9) for mel_NM in mels]
    turns = list(zip(*streams, strict=True))
    assert len(turns) > 1
    for samples, pieces in zip(alone, zip(*turns, strict=True), strict=True):
        assert (np.concatenate(pieces) == samples).all()


def test_a_vocoder_goes_on_after_a_bad_mel(vocoder):
    mel_NM = make_mel(9)
    whole = vocoder.synthesize(mel_NM)
    with pytest.raises(MelError):
        list(vocoder.stream([mel_NM, make_mel(3)[:, :4]]))
    assert (vocoder.synthesize(mel_NM) == whole).all()


def test_without_temperature_the_seed_doesnt_matter(vocoder):
    mel_NM = make_mel(8)
    cold = [vocoder.synthesize(mel_NM, seed, temperature=1e-6) for seed in (1, 2)]
    assert (cold[0] == cold[1]).all()
    warm = [vocoder.synthesize(mel_NM, seed, temperature=1.0) for seed in (1, 2)]
    assert (warm[0] != warm[1]).any()


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_positive(vocoder, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive.*got {temperature}"):
        vocoder.synthesize(make_mel(1), temperature=temperature)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(vocoder, seed):
    with pytest.raises(ValueError, match=f"a seed is a whole number.*got {seed}"):
        vocoder.synthesize(make_mel(1), seed)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (
            np.zeros((3, 4), np.float32),
            r"shape \[frames, 5\] with at least one frame, got \[3, 4\]",
        ),
        (np.zeros((5, 3), np.float32), r"got \[5, 3\]"),
        (np.zeros(5, np.float32), r"got \[5\]"),
        (np.zeros((1, 3, 5), np.float32), r"got \[1, 3, 5\]"),
        (np.zeros((0, 5), np.float32), r"got \[0, 5\]"),
        (np.zeros((3, 5), np.int16), "floating-point values, got int16"),
        (np.zeros((3, 5), complex), "floating-point values, got complex128"),
        (np.full((3, 5), np.nan, np.float32), "NaN or infinite"),
        (np.full((3, 5), -np.inf), "NaN or infinite"),
        # finite, until it is float32
        (np.full((3, 5), 1e300), "NaN or infinite"),
    ],
    ids=["bands", "turned", "1d", "3d", "empty", "whole", "complex", "nan", "infinite", "huge"],
)
def test_what_is_no_mel_is_refused(vocoder, mel, message):
    with pytest.raises(MelError, match=message):
        check_mel(mel, BANDS)
    with pytest.raises(MelError, match=message):
        vocoder.synthesize(mel)


def test_a_mel_may_have_any_layout_and_width(vocoder):
    mel_NM = make_mel(4)
    whole = vocoder.synthesize(mel_NM)
    frozen = mel_NM.copy()
    frozen.flags.writeable = False
    swapped = mel_NM.astype(">f4")
    for form in (mel_NM.astype(np.float64), np.asfortranarray(mel_NM), frozen, swapped):
        assert (vocoder.synthesize(form) == whole).all()
    assert (vocoder.synthesize(mel_NM.tolist()) == whole).all()


def test_a_voice_is_opened_from_its_file(tmp_path, vocoder, caplog):
    checkpoint.save(tmp_path / "tiny.safetensors", vocoder.voice)
    with caplog.at_level(logging.INFO):
        opened = wavernn.load(tmp_path / "tiny.safetensors")
    assert "backend " in caplog.text
    assert opened.rate_hz == vocoder.rate_hz == 8000
    opened = wavernn.load(str(tmp_path / "tiny.safetensors"), "reference")
    assert (opened.synthesize(make_mel(3)) == vocoder.synthesize(make_mel(3))).all()
    with pytest.raises(BackendUnavailable, match="unknown backend fast"):
        wavernn.load(tmp_path / "tiny.safetensors", "fast")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        wavernn.load(tmp_path / "other.safetensors")
