"""What a fused voice sees, learns and is refused, and that it goes where other voices go."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn import checkpoint, cost, recipe
from wavernn.audio import de_emphasis, decode
from wavernn.conditioning import Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig, matrix_shape
from wavernn.errors import BackendUnavailable, ConfigError
from wavernn.fused import FusedWaveRNN, network
from wavernn.kernels import memory, reference_fused
from wavernn.kernels.bench import bench, random_voice
from wavernn.model import SILENT_CODE, WaveRNN, nats_of
from wavernn.rng import uniforms
from wavernn.train.throughput import bench_training
from wavernn.vocoder import Vocoder

HOP, BANDS = 16, 5
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000.0
)
SIZES = {"hidden": 32, "projection": 8, "embedding": 2, "channels": 6, "layers": 1}
SIZES |= {"conditioning_hop_samples": 8, "fused": 2}


def make_model(**fields):
    torch.manual_seed(1)
    model = network(ModelConfig(**(SIZES | fields)), MEL).double()
    # livelier than a fresh one, so that what is seen counts
    for name, weight in model.named_parameters():
        if name.startswith(("R", "I_", "O")):
            torch.nn.init.normal_(weight, std=0.25)
        if name in ("O1.bias", "O3.bias"):
            # some unit of each head is above zero
            torch.nn.init.ones_(weight)
    return model


class Clip:
    """A whole utterance, as slices of it would be cut."""

    def __init__(self, model, frames, seed=2):
        self.model, self.T, self.frames = model, frames * HOP, frames
        random = torch.Generator().manual_seed(seed)
        self.mel = torch.randn(1, frames, BANDS, generator=random).double()
        self.codes = torch.randint(0, 256, (self.T, 2), generator=random)

    def score(self, codes=None, first=0, last=None, h=None, mel=None):
        """Logits [T, 4, 16] and the state."""
        codes = self.codes if codes is None else codes
        last = self.T if last is None else last
        h = torch.zeros(1, self.model.config.state_size).double() if h is None else h
        around, conditioner = self.model.surroundings, self.model.conditioner
        at = torch.arange(first - around.before_samples, last + around.after_samples)
        inside = ((at >= 0) & (at < len(codes)))[:, None]
        near = torch.where(inside, codes[at.clamp(0, len(codes) - 1)], torch.tensor(SILENT_CODE))
        edges = (0, 0, conditioner.history_frames, conditioner.lookahead_frames + 1)
        mel = self.mel if mel is None else mel
        padded = torch.nn.functional.pad(mel, edges, value=conditioner.floor)
        wide = (last - first) // HOP + edges[2] + edges[3]
        padded = padded[:, first // HOP : first // HOP + wide]
        coarse, fine, h = self.model(
            padded,
            near[None],
            codes[None, first:last],
            h,
            around_BW3=torch.cat((near, inside.long()), dim=1)[None],
        )
        return torch.cat((coarse, fine), dim=2)[:, 0], h


def step_of(n):
    return n // 2 + 3 * (n % 2)


@pytest.mark.parametrize("bit", [4, 0])
@pytest.mark.parametrize("half", [0, 1])
def test_a_nibble_changes_those_that_may_see_it_and_no_others(half, bit):
    clip = Clip(make_model(), 2)
    made = 2 * half + (bit == 0)
    step_T = np.array([step_of(n) for n in range(clip.T)])
    with torch.no_grad():
        whole, _ = clip.score()
        for n in range(clip.T):
            codes = clip.codes.clone()
            codes[n, half] ^= 8 << bit
            changed = (clip.score(codes)[0] != whole).any(-1).numpy()
            # all of later steps, and of its own step the later nibbles of its own sample
            expected = np.tile((step_T > step_of(n))[:, None], (1, 4))
            expected[n, made + 1 :] = True
            assert not (changed & ~expected).any(), n
            # what is far back may be below the logits' last bit
            near = step_T < step_of(n) + 5
            assert changed[near & expected.any(1)].sum() == expected[near].sum(), n


def test_slices_with_the_state_carried_are_the_whole():
    clip = Clip(make_model(), 6)
    with torch.no_grad():
        whole, last = clip.score()
        parts, h = [], None
        for first, end in ((0, 16), (16, 64), (64, 96)):
            logits, h = clip.score(None, first, end, h)
            parts.append(logits)
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
        assert torch.allclose(h, last, atol=1e-12)
        # and the sum of what a slice scores is that of its samples
        assert not torch.allclose(clip.score(None, 16, 64)[0], whole[16:64], atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_torch_module_scores_as_the_reference(frames):
    model = make_model()
    clip = Clip(model, frames)
    voice = checkpoint.Checkpoint(
        Config("small", MEL, model.config), {k: v.float() for k, v in model.state_dict().items()}
    )
    clip.model = model = voice.model(torch.float64)
    with torch.no_grad():
        given, _ = clip.score()
        gates_NG = model.gate_input(model.conditioner.pad(clip.mel))[0]
    synthesizer = reference_fused.Synthesizer(voice)
    logits = synthesizer.score(gates_NG, clip.codes.numpy().astype(np.uint8))
    # the module gives float32
    assert np.abs(given.numpy() - np.concatenate(logits, axis=1)).max() < 1e-5


def test_bfloat16_is_near_float32():
    model = make_model().float()
    clip = Clip(model, 3)
    clip.mel = clip.mel.float()
    forward = model.forward
    with torch.no_grad():
        exact, _ = clip.score(h=torch.zeros(1, 32))
        model.forward = lambda *known, **more: forward(*known, "bfloat16", **more)
        near, _ = clip.score(h=torch.zeros(1, 32))
    assert 0 < (near - exact).abs().max() < 0.3


def test_every_weight_learns_and_scalars_do_not():
    for kind in ("embedding", "scalar"):
        clip = Clip(make_model(input=kind), 3)
        logits, _ = clip.score()
        target = clip.codes[:, None]
        nats = nats_of(logits[:, None, :2], target[..., 0], "mean")
        (nats + nats_of(logits[:, None, 2:], target[..., 1], "mean")).backward()
        for name, weight in clip.model.named_parameters():
            fixed = kind == "scalar" and name in ("rows", "upper")
            assert weight.requires_grad != fixed, name
            assert fixed or weight.grad.abs().sum() > 0, name


def test_nats_are_those_of_the_byte():
    logits, codes = torch.randn(5, 3, 2, 16), torch.randint(0, 256, (5, 3))
    p = torch.softmax(logits, dim=-1)
    first = p[..., 0, :].gather(-1, codes[..., None] // 16)[..., 0]
    second = p[..., 1, :].gather(-1, codes[..., None] % 16)[..., 0]
    assert torch.allclose(nats_of(logits, codes), -(first * second).log(), atol=1e-5)
    assert torch.allclose(nats_of(logits, codes, "mean"), nats_of(logits, codes).mean())


def make_voice(**fields):
    prune = PruneConfig(block_rows=4, density={"R_u": 0.5, "O1": 0.5, "O4": 0.5})
    return random_voice(Config("small", MEL, ModelConfig(**(SIZES | fields)), prune))


def make_mel(frames):
    noise = np.random.default_rng(0).normal(size=(frames, BANDS))
    return (MEL.floor_value / 2 - MEL.floor_value / 4 * noise).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 11])
def test_a_mel_becomes_as_many_samples_as_it_says(frames):
    voice, mel_NM = make_voice(), make_mel(frames)
    whole = Vocoder(voice, "reference").synthesize(mel_NM, seed=3)
    assert whole.shape == (frames * HOP,)
    gates_NG = [*Conditioning(voice).push(torch.from_numpy(mel_NM), last=True)]
    synthesizer = reference_fused.Synthesizer(voice)
    codes = synthesizer.run(torch.cat(gates_NG), uniforms(3, 0, frames * HOP), True)
    expected, _ = de_emphasis(decode(codes), voice.config.model.pre_emphasis)
    assert (whole == np.clip(expected, -1, 32767 / 32768).astype(np.float32)).all()


def test_a_stream_is_the_whole_and_late_by_what_is_stated():
    vocoder, mel_NM = Vocoder(make_voice(), "reference"), make_mel(12)
    whole = vocoder.synthesize(mel_NM)
    assert vocoder.delay_samples == 5
    pushed, pieces, late = 0, [], []

    def frames():
        nonlocal pushed
        for frame_1M in mel_NM[:, None]:
            pushed += HOP
            yield frame_1M

    for piece in vocoder.stream(frames()):
        assert len(piece)
        pieces.append(piece)
        late.append(pushed - sum(map(len, pieces)))
    assert (np.concatenate(pieces) == whole).all()
    # the conditioner has its own look-ahead, in frames
    ahead = vocoder.voice.config.model.lookahead_frames * HOP
    assert max(late) <= vocoder.delay_samples + ahead
    assert late[-1] == 0


def test_a_voice_goes_through_a_file(tmp_path):
    voice = make_voice()
    checkpoint.save(tmp_path / "voice.safetensors", voice)
    read = checkpoint.load(tmp_path / "voice.safetensors")
    assert read.config == voice.config and read.sha256 == voice.sha256
    assert isinstance(read.model(), FusedWaveRNN)
    mel_NM = make_mel(3)
    spoken = [Vocoder(v, "reference").synthesize(mel_NM) for v in (voice, read)]
    assert (spoken[0] == spoken[1]).all()


def test_other_voices_are_described_as_ever():
    assert "fused" not in Config().to_dict()["model"]
    assert "fused" not in replace(Config(), model=ModelConfig(subscale=8)).to_dict()["model"]
    assert make_voice().config.to_dict()["model"]["fused"] == 2
    assert type(network(ModelConfig(**SIZES | {"fused": 1}), MEL)) is WaveRNN


def test_matrix_shapes_are_those_of_the_model():
    voice = make_voice()
    for name, weight in voice.model().matrices().items():
        assert matrix_shape(voice.config.model, name) == tuple(weight.shape)


def test_blocks_must_divide_an_eighth():
    with pytest.raises(ConfigError, match=r"blocks of 16 x 8 don't divide O1 \(32 x 4\)"):
        Config("x", MEL, ModelConfig(**SIZES), PruneConfig(block_columns=8, density={"O1": 0.5}))


def test_cost_counts_a_step_for_two_samples():
    voice = make_voice()
    described = cost.describe(voice, {})
    assert set(described["density"]) == set(voice.config.model.prunable)
    parts = described["operations_per_sample"]
    # R: 3 x 32 x 32 less a sixth; O1, O3: 32 x 4, O2, O4: 64 x 8, O1 and O4 halved
    assert parts["recurrence"] == 3 * 32 * 32 * 5 / 6 / 2
    assert parts["heads"] == (32 * 4 * 1.5 + 64 * 8 * 1.5) / 2
    assert parts["softmax"] == 4 * 3 * 16 and parts["gates"] == 10 * 32 / 2
    assert parts["input"] == 27 * 32 / 2
    plain = cost.memory_bytes(replace(voice.config, model=ModelConfig(**SIZES | {"fused": 1})), 1)
    assert cost.memory_bytes(voice.config, 1) != plain
    assert memory.table(voice)["4"] > memory.table(voice)["1"] > 0
    assert "doesn't run fused voices" in memory.backends(1, 2)["gpu"]


def test_the_recipe_is_whole():
    config = recipe.load("fused-384")
    assert config.model.fused == 2
    assert set(config.prune.density) == set(config.model.prunable)
    plain = recipe.load("sparse-384")
    assert config.train == plain.train and replace(config.model, fused=1) == plain.model


def test_bench_times_one_utterance():
    row = bench(make_voice(), "reference", 1)
    assert row["fused"] == 2 and row["samples_per_s"] > 0 and row["backend"] == "reference"
    with pytest.raises(BackendUnavailable, match="a fused voice is spoken an utterance at a time"):
        bench(make_voice(), "reference", 2)


def test_training_can_be_timed():
    config = make_voice().config
    train = replace(config.train, batch=2, slice_samples=64)
    assert bench_training(replace(config, train=train), steps=1)["samples_per_s"] > 0
