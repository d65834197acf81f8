from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from wavernn.errors import DataError
from wavernn.model import SILENT_CODE
from wavernn.train.sampler import Batches, Lanes, Slices, add_noise

FRAMES = np.array([7, 30, 2, 11, 18, 3, 25])
SLICE = 3
FLOOR = -11.5


def walk(lanes, steps):
    return [tuple(x.copy() for x in lanes.next()) for _ in range(steps)]


@pytest.mark.parametrize("carry", [True, False])
def test_every_slice_lies_within_its_clip(carry):
    lanes = Lanes(FRAMES, 5, SLICE, carry, seed=1)
    for clip, frame, _ in walk(lanes, 300):
        assert (frame >= 0).all()
        assert (frame + SLICE <= FRAMES[clip]).all()


def test_a_lane_goes_on_where_it_stopped_until_its_clip_ends():
    lanes = Lanes(FRAMES, 5, SLICE, True, seed=1)
    steps = walk(lanes, 300)
    assert steps[0][2].all()
    for (clip, frame, _), (next_clip, next_frame, fresh) in pairwise(steps):
        went_on = (next_clip == clip) & (next_frame == frame + SLICE)
        fits = frame + 2 * SLICE <= FRAMES[clip]
        assert (went_on == fits).all()
        assert (fresh == ~fits).all()
        # a walk leaves out less than a slice at the start of a clip
        assert (next_frame[fresh] < SLICE).all()


def test_an_epoch_visits_every_clip_that_is_long_enough_once():
    lanes = Lanes(FRAMES, 1, SLICE, True, seed=3)
    started = [int(clip[0]) for clip, _, fresh in walk(lanes, 400) if fresh[0]]
    long_enough = set(np.flatnonzero(FRAMES >= SLICE))
    size = len(long_enough)
    assert size == 6
    for epoch in range(5):
        assert set(started[epoch * size : (epoch + 1) * size]) == long_enough


def test_without_carry_every_slice_is_fresh_and_every_place_as_likely():
    lanes = Lanes(FRAMES, 50, SLICE, False, seed=3)
    seen = Counter()
    for clip, frame, fresh in walk(lanes, 400):
        assert fresh.all()
        seen.update(zip(clip.tolist(), frame.tolist(), strict=True))
    places = sum(max(0, n - SLICE + 1) for n in FRAMES)
    assert len(seen) == places
    assert max(seen.values()) < 1.3 * 20_000 / places


@pytest.mark.parametrize("carry", [True, False])
def test_a_state_that_is_put_back_gives_the_same_slices(carry):
    lanes = Lanes(FRAMES, 5, SLICE, carry, seed=1)
    walk(lanes, 17)
    state = lanes.state()
    expected = walk(lanes, 40)
    # another seed, so that everything must come from the state
    other = Lanes(FRAMES, 5, SLICE, carry, seed=2)
    other.set_state(state)
    for mine, theirs in zip(walk(other, 40), expected, strict=True):
        assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))


def test_seeds_give_other_slices():
    first, second = (walk(Lanes(FRAMES, 5, SLICE, True, seed), 9) for seed in (1, 2))
    assert any((a[0] != b[0]).any() for a, b in zip(first, second, strict=True))


def test_clips_that_are_all_too_short_are_refused():
    with pytest.raises(DataError, match=r"at least a slice \(31 frames\), but the longest has 30"):
        Lanes(FRAMES, 5, 31, True, seed=1)


@pytest.fixture
def slices(features):
    return Slices(features, 4, 2, FLOOR, torch.device("cpu"))


def codes_of(features, clip):
    first, frames = features.first[clip], features.frames[clip]
    return features.codes_T[first * 64 : (first + frames) * 64].astype(np.int64)


def test_a_slice_holds_the_codes_and_those_one_sample_before(features, slices):
    batch = slices.cut(np.array([3, 5]), np.array([7, 1]), np.array([True, False]), 2)
    assert batch.fresh_B.tolist() == [True, False]
    for row, (clip, frame) in enumerate(((3, 7), (5, 1))):
        codes = codes_of(features, clip)
        for codes_T2, start in ((batch.codes_BT2[row], 0), (batch.previous_BT2[row], -1)):
            wanted = codes[frame * 64 + start : frame * 64 + start + 128]
            assert (codes_T2[:, 0] * 256 + codes_T2[:, 1]).tolist() == wanted.tolist()


def test_silence_stands_before_a_clip_and_after_it(features, slices):
    last = int(features.frames[2]) - 1
    batch = slices.cut(np.array([2, 2]), np.array([0, last]), np.array([True, False]), 3)
    assert tuple(batch.previous_BT2[0, 0].tolist()) == SILENT_CODE
    assert batch.previous_BT2[0, 1:].tolist() == batch.codes_BT2[0, :-1].tolist()
    assert (batch.codes_BT2[1, 64:] == torch.tensor(SILENT_CODE)).all()
    assert (batch.codes_BT2[1, :64] != torch.tensor(SILENT_CODE)).any()


def test_context_outside_a_clip_is_the_floor(features, slices):
    clip, N = 2, int(features.frames[2])
    first = features.first[clip]
    mel_NM = features.mel_NM[first : first + N]
    batch = slices.cut(np.array([clip, clip]), np.array([1, N - 3]), np.zeros(2, bool), 3)
    start_NM, end_NM = batch.mel_BNM.numpy()
    # frames 1 - 4 .. 1 + 3 + 2 and N - 3 - 4 .. N + 2
    assert (start_NM[:3] == np.float32(FLOOR)).all()
    assert (start_NM[3:] == mel_NM[:6]).all()
    assert (end_NM[:7] == mel_NM[N - 7 :]).all()
    assert (end_NM[7:] == np.float32(FLOOR)).all()


def test_a_subscale_slice_has_the_past_of_each_sub_tensor_and_what_is_around(features):
    clip, frame, T, N = 3, 1, 128, int(features.frames[3])
    slices = Slices(features, 4, 2, FLOOR, torch.device("cpu"), subscale=16, before=96, after=48)
    batch = slices.cut(np.array([clip, clip]), np.array([frame, N - 1]), np.zeros(2, bool), 2)
    silence = np.full(1000, SILENT_CODE[0] << 8 | SILENT_CODE[1])
    codes = np.concatenate((silence, codes_of(features, clip), silence))
    for row, first in enumerate((1000 + 64, 1000 + 64 * (N - 1))):
        parts = (batch.around_BW3[row, :, :2], batch.codes_BT2[row], batch.previous_BT2[row])
        spans = ((first - 96, first + T + 48), (first, first + T), (first - 16, first - 16 + T))
        for codes_T2, (start, end) in zip(parts, spans, strict=True):
            assert (codes_T2[:, 0] * 256 + codes_T2[:, 1]).tolist() == codes[start:end].tolist()
        at = np.arange(*spans[0]) - 1000
        inside = (at >= 0) & (at < 64 * N)
        assert not inside.all()
        assert batch.around_BW3[row, :, 2].tolist() == inside.tolist()


def test_noise_of_a_subscale_slice_is_on_all_that_is_seen(features, quick):
    train = quick("train.input_noise=3.0").train
    slices = Slices(features, 4, 2, FLOOR, torch.device("cpu"), subscale=16, before=96, after=48)
    clips = np.arange(len(features.names))

    def first(noise):
        lanes = Lanes(features.frames, train.batch, 2, True, seed=1)
        settings = replace(train, input_noise=noise)
        return Batches(lanes, slice(0, train.batch), slices, clips, settings).next(7)

    clean, noisy = first(0.0), first(3.0)
    assert torch.equal(clean.codes_BT2, noisy.codes_BT2)
    difference = (noisy.around_BW3 - clean.around_BW3)[..., :2] @ torch.tensor([256, 1])
    assert 2 < difference.double().std() < 4
    assert torch.equal(clean.around_BW3[..., 2], noisy.around_BW3[..., 2])
    # the past of a sub-tensor has the noise that others see of it
    assert torch.equal(noisy.previous_BT2, noisy.around_BW3[:, 80 : 80 + 128, :2])


def test_processes_share_the_lanes_and_their_noise(features, slices, quick):
    train = quick().train
    clips = np.arange(len(features.names))

    def batches(mine):
        lanes = Lanes(features.frames, train.batch, 2, True, seed=1)
        return Batches(lanes, mine, slices, clips, train)

    whole, low, high = (batches(x) for x in (slice(0, 4), slice(0, 2), slice(2, 4)))
    for step in range(5):
        parts = [low.next(step), high.next(step)]
        given = {k: v for k, v in vars(whole.next(step)).items() if v is not None}
        for name, tensor in given.items():
            assert torch.equal(tensor, torch.cat([getattr(part, name) for part in parts]))


def test_noise_is_on_the_inputs_alone_and_a_function_of_seed_and_step(features, slices, quick):
    def first(step, *overrides):
        train = quick(*overrides).train
        lanes = Lanes(features.frames, train.batch, 2, True, seed=1)
        return Batches(lanes, slice(0, 4), slices, np.arange(8), train).next(step)

    clean, noisy = first(3, "train.input_noise=0.0"), first(3)
    assert torch.equal(clean.codes_BT2, noisy.codes_BT2)
    difference = (noisy.previous_BT2 - clean.previous_BT2) @ torch.tensor([256, 1])
    assert 1.8 < difference.float().std() < 2.2
    assert abs(float(difference.float().mean())) < 0.3
    assert torch.equal(noisy.previous_BT2, first(3).previous_BT2)
    assert not torch.equal(noisy.previous_BT2, first(4).previous_BT2)
    assert not torch.equal(noisy.previous_BT2, first(3, "train.seed=1").previous_BT2)


def test_noise_stays_within_16_bit_and_carries_between_the_bytes():
    codes_BT2 = torch.tensor([[[0, 3], [255, 250], [128, 0], [127, 255]]])
    noisy = add_noise(codes_BT2, torch.tensor([[-9, 9, -1, 1]]))
    assert noisy.tolist() == [[[0, 0], [255, 255], [127, 255], [128, 0]]]
