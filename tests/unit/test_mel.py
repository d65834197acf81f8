import math

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wavernn.audio import read_audio
from wavernn.config import MEL_PRESETS, MelConfig
from wavernn.errors import MelError
from wavernn.mel import GROUP, LogMel, StreamingLogMel, frame_count
from wavernn.mel import mel_filterbank as filterbank

SMALL = MelConfig(fft_samples=256, window_samples=200, hop_samples=64, bands=20)
CONFIGS = {
    **MEL_PRESETS,
    "small": SMALL,
    "htk": MelConfig(scale="htk", low_hz=50.0),
    "no norm": MelConfig(norm="none", floor=1e-2),
    "log10": MelConfig(log="log10"),
    # no padding at all
    "hop is fft": MelConfig(fft_samples=128, window_samples=127, hop_samples=128, bands=8),
    "hop is 2": MelConfig(fft_samples=32, window_samples=32, hop_samples=2, bands=4),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request):
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    # a group is too small to gain by more, and on busy cores they wait for each other
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def librosa_filters(config):
    return librosa.filters.mel(
        sr=config.rate_hz,
        n_fft=config.fft_samples,
        n_mels=config.bands,
        fmin=config.low_hz,
        fmax=config.high_hz,
        htk=config.scale == "htk",
        norm="slaney" if config.norm == "slaney" else None,
    )


def librosa_log_mel(audio_T, config):
    """HiFi-GAN's definition by librosa's parts, float32: the floor(T / hop) whole frames."""
    side = (config.fft_samples - config.hop_samples) // 2
    spectrum = librosa.stft(
        np.pad(audio_T, side, mode="reflect"),
        n_fft=config.fft_samples,
        hop_length=config.hop_samples,
        win_length=config.window_samples,
        center=False,
    )
    mel = librosa_filters(config) @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9)
    log = np.log if config.log == "ln" else np.log10
    return log(np.maximum(mel, config.floor)).T


def stream(log_mel, audio_T, cuts):
    streaming, start, parts = StreamingLogMel(log_mel), 0, []
    for size in cuts:
        parts.append(streaming.push(audio_T[start : start + size]))
        start += size
    parts += [streaming.push(audio_T[start:]), streaming.flush()]
    return torch.cat(parts)


def test_filterbank_equals_librosa(config):
    np.testing.assert_allclose(filterbank(config), librosa_filters(config), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["noise", "sweep", "quiet"])
def test_synthetic_signals_equal_librosa(config, kind):
    T = config.rate_hz
    audio_T = {
        "noise": noise(T).numpy(),
        "sweep": librosa.chirp(fmin=30, fmax=config.rate_hz / 3, sr=config.rate_hz, length=T) * 0.5,
        "quiet": noise(T).numpy() * 1e-3,
    }[kind].astype(np.float32)
    mel_NM = LogMel(config)(torch.from_numpy(audio_T)[None])[0].numpy()
    expected_NM = librosa_log_mel(audio_T.astype(np.float64), config)
    assert len(mel_NM) - len(expected_NM) in (0, 1)
    assert np.abs(mel_NM[: len(expected_NM)] - expected_NM).max() < 1e-4


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_speech_equals_librosa(speech_dir, name):
    config = MEL_PRESETS[name]
    log_mel = LogMel(config)
    clips = sorted(speech_dir.glob("LJ*.flac"))[:3]
    assert clips
    for clip in clips:
        audio_T = read_audio(clip, config.rate_hz)
        mel_NM = log_mel(torch.from_numpy(audio_T)[None])[0].numpy()
        expected_NM = librosa_log_mel(audio_T, config)
        assert np.abs(mel_NM[: len(expected_NM)] - expected_NM).max() < 1e-4


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 97, 127, 128, 129, 160, 161, 257, 1021, 5000])
def test_every_length_has_all_its_frames(T):
    mel_BNM = LogMel(SMALL)(noise(2, T))
    assert mel_BNM.shape == (2, math.ceil(T / 64), 20) == (2, frame_count(T, SMALL), 20)
    assert mel_BNM.dtype == torch.float32
    assert mel_BNM.isfinite().all()


@pytest.mark.parametrize("T", [2, 5, 100, 1500, 3000])
def test_the_ends_are_mirrored_as_by_numpy(T):
    config = MelConfig()
    audio_T = noise(T)
    lacking = frame_count(T, config) * 256 - T
    # numpy's reflection goes on at the mirror image's end as ours
    padded_T = torch.from_numpy(np.pad(audio_T.numpy(), (384, 384 + lacking), mode="reflect"))
    frames_NS = padded_T.double().unfold(0, 1024, 256)
    log_mel = LogMel(config)
    assert torch.equal(log_mel(audio_T[None])[0], log_mel.frames_to_mel(frames_NS, 0))


def test_a_tail_changes_no_earlier_whole_frame_of_hifigan():
    # of the frames that floor(T / hop) counts, none depends on the last being incomplete
    audio_T = noise(10 * 256 + 100)
    mel_NM = LogMel(MelConfig())(audio_T[None])[0].numpy()
    expected_NM = librosa_log_mel(audio_T.numpy(), MelConfig())
    assert (len(mel_NM), len(expected_NM)) == (11, 10)
    assert np.abs(mel_NM[:10] - expected_NM).max() < 1e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1, 7, 160, 256, 4096])
def test_stream_equals_offline(device, chunk):
    for config in (SMALL, CONFIGS["hop is fft"], CONFIGS["hop is 2"], MelConfig()):
        log_mel = LogMel(config).to(device)
        for T in (1, 5, 128, 129, 383, 384, 385, 1024, 1409, 2311):
            audio_T = noise(T).to(device)
            streamed_NM = stream(log_mel, audio_T, [chunk] * (T // chunk))
            assert torch.equal(streamed_NM, log_mel(audio_T[None])[0]), (config, T)


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_stream_equals_offline_for_every_preset(name):
    log_mel = LogMel(MEL_PRESETS[name])
    audio_T = noise(20_011)
    expected_NM = log_mel(audio_T[None])[0]
    for chunk in (160, 7001):
        assert torch.equal(stream(log_mel, audio_T, [chunk] * (20_011 // chunk)), expected_NM)


def test_stream_equals_offline_with_two_threads():
    torch.set_num_threads(2)
    log_mel = LogMel(MelConfig())
    audio_T = noise(10_007)
    assert torch.equal(stream(log_mel, audio_T, [700] * 14), log_mel(audio_T[None])[0])


@given(st.integers(1, 3000), st.lists(st.integers(0, 900), max_size=12), st.integers(0, 99))
def test_stream_equals_offline_however_it_is_cut(T, cuts, seed):
    log_mel = LogMel(SMALL)
    audio_T = noise(T, seed=seed)
    assert torch.equal(stream(log_mel, audio_T, cuts), log_mel(audio_T[None])[0])


def test_a_stream_gives_frames_early_and_holds_little():
    streaming = StreamingLogMel(LogMel(SMALL))
    frames = 0
    for i in range(400):
        frames += len(streaming.push(noise(10, seed=i)))
        # a frame waits for (256 - 64) / 2 samples after its own 64
        assert frames == max(0, (10 * (i + 1) - 96) // 64)
        assert streaming._held_T.numel() <= 256 + 64


def test_a_stream_starts_anew_after_flush_and_reset():
    log_mel = LogMel(SMALL)
    streaming = StreamingLogMel(log_mel)
    assert streaming.flush().shape == (0, 20)
    for _ in range(2):
        parts = [streaming.push(noise(500).numpy()), streaming.flush()]
        assert torch.equal(torch.cat(parts), log_mel(noise(1, 500))[0])
    streaming.push(noise(77, seed=3))
    streaming.reset()
    parts = [streaming.push(noise(500)), streaming.flush()]
    assert torch.equal(torch.cat(parts), log_mel(noise(1, 500))[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_of_a_batch_equals_the_recording_alone(device):
    log_mel = LogMel(MelConfig()).to(device)
    audio_BT = noise(5, 6007).to(device)
    mel_BNM = log_mel(audio_BT)
    for row_T, mel_NM in zip(audio_BT, mel_BNM, strict=True):
        assert torch.equal(log_mel(row_T[None])[0], mel_NM)


def test_a_group_is_never_computed_in_another_shape():
    shapes = []
    rfft = torch.fft.rfft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.fft, "rfft", lambda x: shapes.append(tuple(x.shape)) or rfft(x))
        stream(LogMel(SMALL), noise(3000), [1, 500, 77, 1000])
        LogMel(SMALL)(noise(2, 3000))
    assert set(shapes) == {(GROUP, 256)}


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_silence_is_the_floor(name):
    config = MEL_PRESETS[name]
    mel_BNM = LogMel(config)(torch.zeros(1, 4 * config.hop_samples))
    assert (mel_BNM == torch.tensor(config.floor_value, dtype=torch.float32)).all()


@pytest.mark.parametrize("hz", [220.0, 1000.0, 4321.0])
def test_a_sine_peaks_in_the_band_around_its_frequency(hz):
    config = MelConfig()
    audio_T = 0.5 * torch.sin(2 * math.pi * hz * torch.arange(8192) / config.rate_hz)
    band = LogMel(config)(audio_T[None])[0, 16].argmax().item()
    corners_hz = librosa.mel_frequencies(82, fmin=0.0, fmax=8000.0)
    assert corners_hz[band] < hz < corners_hz[band + 2]


def test_gradients_flow_and_are_right():
    config = MelConfig(fft_samples=32, window_samples=32, hop_samples=8, bands=4, norm="none")
    log_mel = LogMel(config)
    # two groups, both mirrors and an incomplete last frame
    audio_BT = noise(2, 141).double().requires_grad_()
    log_mel(audio_BT).sum().backward()
    assert audio_BT.grad.isfinite().all()
    assert (audio_BT.grad != 0).all()
    direction_BT = noise(2, 141, seed=1).double()
    with torch.no_grad():
        step = 1e-4 * direction_BT
        change = log_mel(audio_BT + step).double().sum() - log_mel(audio_BT - step).double().sum()
    expected = (audio_BT.grad * 2 * step).sum()
    assert abs(change - expected) < 1e-2 * abs(expected)


def test_gradients_are_finite_in_silence():
    audio_BT = torch.zeros(1, 600, requires_grad=True)
    LogMel(CONFIGS["no norm"])(audio_BT).sum().backward()
    assert audio_BT.grad.isfinite().all()


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float"])
def test_a_cast_and_autocast_leave_the_result_alone(cast):
    audio_BT = noise(1, 2000)
    expected_BNM = LogMel(SMALL)(audio_BT)
    log_mel = getattr(torch.nn.Sequential(LogMel(SMALL)), cast)()
    assert torch.equal(log_mel(audio_BT), expected_BNM)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(audio_BT), expected_BNM)


def test_nothing_of_it_is_in_a_state_dict():
    assert not LogMel(SMALL).state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu_to_float32_rounding():
    audio_BT = noise(2, 50_000)
    mel_BNM = LogMel(MelConfig()).cuda()(audio_BT.cuda()).cpu()
    torch.testing.assert_close(mel_BNM, LogMel(MelConfig())(audio_BT), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        (torch.zeros(600), r"shape \[batch, samples\], got \[600\]"),
        (torch.zeros(1, 1, 600), r"got \[1, 1, 600\]"),
        (torch.zeros(1, 0), r"at least one sample, got shape \[1, 0\]"),
        (torch.zeros(0, 9), r"at least one sample, got shape \[0, 9\]"),
        (torch.zeros(1, 9, dtype=torch.int16), r"got torch.int16; divide 16-bit samples by 32768"),
        (torch.full((1, 9), math.nan), "NaN or infinite"),
        (torch.full((1, 9), math.inf), "NaN or infinite"),
    ],
)
def test_unusable_audio_is_refused(audio, sentence):
    with pytest.raises(MelError, match=sentence):
        LogMel(SMALL)(audio)


def test_a_stream_refuses_unusable_samples_and_goes_on():
    log_mel = LogMel(SMALL)
    streaming = StreamingLogMel(log_mel)
    parts = [streaming.push(noise(300)[:200])]
    for bad, sentence in [
        (torch.zeros(1, 5), r"rank 1, got \[1, 5\]"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.zeros(3, np.int16), "floating-point audio"),
    ]:
        with pytest.raises(MelError, match=sentence):
            streaming.push(bad)
    parts += [streaming.push(noise(300)[200:]), streaming.flush()]
    assert torch.equal(torch.cat(parts), log_mel(noise(300)[None])[0])


def test_frame_count_rounds_up():
    assert [frame_count(T, MelConfig()) for T in (0, 1, 256, 257)] == [0, 1, 1, 2]
    with pytest.raises(MelError, match="must not be negative"):
        frame_count(-1, MelConfig())
