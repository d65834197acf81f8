import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from wavernn.config import MelConfig, ModelConfig
from wavernn.model import SILENT_CODE, WaveRNN
from wavernn.subscale import Order

MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=16, bands=5, high_hz=4000
)
# U, F and layers: receptive fields that end far beyond the horizon, at it, and within the clip
SIZES = [(2, 0, 1), (2, 3, 2), (4, 1, 3), (4, 5, 3), (8, 2, 2)]


def make_model(U, F, layers, **fields):
    sizes = {"hidden": 12, "projection": 8, "embedding": 4, "channels": 6, "layers": 0}
    sizes |= {"conditioning_hop_samples": 8, "subscale": U, "subscale_horizon": F}
    sizes |= {"context_channels": 16, "context_layers": layers}
    torch.manual_seed(1)
    return WaveRNN(ModelConfig(**(sizes | fields)), MEL).double()


class Clip:
    """A whole utterance, as a slice of it would be cut."""

    def __init__(self, model, frames, seed=2):
        self.model, self.T = model, frames * MEL.hop_samples
        conditioner, random = model.conditioner, torch.Generator().manual_seed(seed)
        context = conditioner.history_frames + conditioner.lookahead_frames
        self.mel = torch.randn(1, frames + context, MEL.bands, generator=random).double()
        self.codes = torch.randint(0, 256, (self.T, 2), generator=random)

    def cut(self, codes, first, last):
        """Previous codes, codes and what is around, of samples first .. last - 1."""
        context, U = self.model.context, self.model.config.subscale
        at = torch.arange(first - context.before_samples, last + context.after_samples)
        inside = (at >= 0) & (at < len(codes))
        around = codes[at.clamp(0, len(codes) - 1)]
        around = torch.where(inside[:, None], around, torch.tensor(SILENT_CODE))
        past = around[context.before_samples - U :][: last - first]
        around = torch.cat((around, inside[:, None].long()), dim=1)
        return past[None], codes[None, first:last], around[None]

    def score(self, codes=None, first=0, last=None, h=None):
        """Coarse and fine logits [2, T, Q] and the state."""
        codes = self.codes if codes is None else codes
        last = self.T if last is None else last
        if h is None:
            h = torch.zeros(1, self.model.config.state_size).double()
        frames = slice(first // MEL.hop_samples, last // MEL.hop_samples)
        context = self.model.conditioner.history_frames + self.model.conditioner.lookahead_frames
        mel = self.mel[:, frames.start : frames.stop + context]
        previous, known, around = self.cut(codes, first, last)
        coarse, fine, h = self.model(mel, previous, known, h, around_BW3=around)
        return torch.stack((coarse[:, 0], fine[:, 0])), h


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_changes_those_that_may_see_it_and_no_others(size):
    model = make_model(*size)
    clip = Clip(model, 3)
    with torch.no_grad():
        whole, _ = clip.score()
        # the recurrence passes on what earlier steps saw
        allowed = Order(*size[:2]).visible(clip.T)
        for n in range(clip.T):
            codes = clip.codes.clone()
            codes[n] = (codes[n] + 128) % 256
            changed = (clip.score(codes)[0] != whole).any(-1).numpy()
            # the fine byte sees the coarse one of its own sample
            expected = allowed[:, n]
            assert (changed[0] == expected).all(), n
            expected[n] = True
            assert (changed[1] == expected).all(), n


@pytest.mark.parametrize("size", SIZES)
def test_what_one_context_vector_sees(size):
    U, F, _ = size
    model = make_model(*size)
    clip, context = Clip(model, 4), model.context
    columns = clip.T // U

    def vectors(codes):
        # y [I, U, C]
        with torch.no_grad():
            return context(clip.cut(codes, 0, clip.T)[2], model.rows[0])

    whole = vectors(clip.codes)
    assert whole.shape == (columns, U, model.config.context_channels)
    for n in range(clip.T):
        codes = clip.codes.clone()
        codes[n] = (codes[n] + 128) % 256
        changed = (vectors(codes) != whole).any(-1).numpy()
        i, s = np.mgrid[:columns, :U]
        z, k = n % U, n // U
        # the last layer sees `reach` columns up to the horizon, the present column is seen anyway
        seen = (k <= i + F) & (k > i + F - context.reach) | (k == i)
        assert (changed == (seen & (z < s))).all(), n


@pytest.mark.parametrize("size", SIZES)
def test_slices_with_the_state_carried_are_the_whole(size):
    model = make_model(*size)
    clip = Clip(model, 6)
    whole, last = clip.score()
    parts, h = [], None
    for first, end in ((0, 16), (16, 64), (64, 96)):
        logits, h = clip.score(None, first, end, h)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-12)
    assert torch.allclose(h, last, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_every_part_of_the_context_changes_the_output_and_learns(size):
    model = make_model(*size)
    clip = Clip(model, 4)
    whole, _ = clip.score()
    logits = whole.flatten(0, 1)
    cross_entropy(logits, clip.codes.t().flatten()).backward()
    parts = dict(model.context.named_parameters()) | {"X": model.X}
    assert len(parts) == 3 + 2 * size[2]
    for name, weight in parts.items():
        assert weight.grad.abs().max() > 0, name
        with torch.no_grad():
            kept = weight.clone()
            weight.zero_()
            differs = (clip.score()[0] != whole).any(-1)
            weight.copy_(kept)
        # the first sub-tensor has no earlier one, but a vector of its own
        assert differs[:, 1 :: size[0]].any(), name
    # each tap of each convolution
    for name, layer in model.context.named_modules():
        if isinstance(layer, torch.nn.Conv1d):
            assert (layer.weight.grad.abs().amax((0, 1)) > 0).all(), name


def test_sub_tensors_have_the_vector_of_their_index():
    model = make_model(4, 1, 2)
    clip = Clip(model, 2)
    whole, _ = clip.score()
    for lane in range(4):
        with torch.no_grad():
            kept = model.context.lanes.clone()
            model.context.lanes[lane] += 1
            differs = (clip.score()[0] != whole).any(-1)
            model.context.lanes.copy_(kept)
        only = torch.arange(clip.T) % 4 == lane
        assert (differs == only).all()


def test_bfloat16_is_near():
    model = make_model(4, 3, 3, hidden=32).float()
    clip = Clip(model, 4)
    clip.mel = clip.mel.float()
    previous, codes, around = clip.cut(clip.codes, 0, clip.T)
    h = torch.zeros(1, model.config.state_size)
    plain, _, last = model(clip.mel, previous, codes, h, around_BW3=around)
    narrow, _, narrow_last = model(clip.mel, previous, codes, h, "bfloat16", around)
    assert (plain - narrow).abs().max() < 0.02
    assert (last - narrow_last).abs().max() < 0.05


def test_a_subscale_voice_without_what_is_around_is_our_mistake():
    model = make_model(4, 1, 2)
    clip = Clip(model, 1)
    previous, codes, _ = clip.cut(clip.codes, 0, clip.T)
    with pytest.raises(AssertionError):
        model(clip.mel, previous, codes, torch.zeros(1, model.config.state_size).double())


def test_what_stands_outside_of_the_utterance_is_not_seen():
    model = make_model(4, 3, 3)
    clip = Clip(model, 2)
    around = clip.cut(clip.codes, 0, clip.T)[2]
    other = torch.where(around[..., 2:] == 1, around, (around + 77) * torch.tensor([1, 1, 0]))
    assert (other != around).any()
    y, same = (model.context(known, model.rows[0]) for known in (around, other))
    assert torch.equal(y, same)


def test_the_present_column_and_the_newest_are_seen_without_the_convolutions():
    model = make_model(4, 3, 3)
    clip = Clip(model, 3)
    with torch.no_grad():
        for weight in model.context.layers.parameters():
            weight.zero_()
        around = clip.cut(clip.codes, 0, clip.T)[2]
        whole = model.context(around, model.rows[0])
        # sample 0 of column 5
        around[0, model.context.before_samples + 20, 0] += 100
        changed = (model.context(around % 256, model.rows[0]) != whole).any(-1)
    assert changed.nonzero().tolist() == [[i, s] for i in (2, 5) for s in (1, 2, 3)]
