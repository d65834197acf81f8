from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wavernn.config import PRUNABLE, Config, ModelConfig, PruneConfig
from wavernn.model import WaveRNN
from wavernn.sparse import Pruner, block_mask, density, kept_blocks, scheduled_density

SHAPES = [(16, 1), (16, 4), (4, 4)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block_magnitudes(weight_RW, R, W):
    rows, columns = weight_RW.shape
    return [
        [weight_RW[i : i + R, j : j + W].abs().mean().item() for j in range(0, columns, W)]
        for i in range(0, rows, R)
    ]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("shape", "count", "balanced_count"),
    [
        # of 64 x 1024, 64 x 256 and 256 x 256 blocks, 95 % go
        ((16, 1), 3277, 64 * 51),
        ((16, 4), 819, 64 * 13),
        ((4, 4), 3277, 256 * 13),
    ],
)
def test_counts_at_95_percent_are_exact(shape, count, balanced_count, balanced):
    R, W = shape
    prune = PruneConfig(block_rows=R, block_columns=W, balanced=balanced)
    mask = block_mask(random(1024, 1024), 0.05, prune)
    expected = balanced_count if balanced else count
    assert kept_blocks(1024, 1024, 0.05, prune) == expected
    assert mask.sum() == expected * R * W
    # whole blocks, nothing but
    blocks = mask.view(1024 // R, R, 1024 // W, W)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_balanced_mask_has_as_many_blocks_in_every_row(shape):
    R, W = shape
    prune = PruneConfig(block_rows=R, block_columns=W, balanced=True)
    # one row of blocks outweighs all others
    weight_RW = random(64, 96)
    weight_RW[:R] *= 100
    for kept in (0.05, 0.25, 0.6):
        in_row = block_mask(weight_RW, kept, prune)[::R, ::W].sum(1)
        assert (in_row == round(96 // W * kept)).all()


@given(
    st.sampled_from(SHAPES),
    st.integers(1, 4),
    st.integers(1, 6),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_kept_blocks_are_the_heaviest(shape, high, wide, kept, balanced, seed):
    R, W = shape
    prune = PruneConfig(block_rows=R, block_columns=W, balanced=balanced)
    weight_RW = random(R * high, W * wide, seed=seed)
    mask = block_mask(weight_RW, kept, prune)[::R, ::W]
    assert mask.sum() == kept_blocks(R * high, W * wide, kept, prune)
    weights = block_magnitudes(weight_RW, R, W)
    rows = [range(i, i + 1) for i in range(high)] if balanced else [range(high)]
    for row in rows:
        chosen = [weights[i][j] for i in row for j in range(wide) if mask[i, j]]
        left = [weights[i][j] for i in row for j in range(wide) if not mask[i, j]]
        assert min(chosen, default=9e9) >= max(left, default=0) - 1e-6


@pytest.mark.parametrize("kept", [0.0, 1.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_all_or_nothing(kept, balanced):
    assert (block_mask(random(32, 8), kept, PruneConfig(balanced=balanced)) == bool(kept)).all()


def test_equal_blocks_are_kept_by_position():
    prune = PruneConfig(block_rows=4, block_columns=4)
    for weight_RW in (torch.ones(16, 16), torch.zeros(16, 16)):
        assert block_mask(weight_RW, 0.5, prune).nonzero()[:, 0].max() == 7
        assert block_mask(weight_RW, 0.25, prune)[:4].all()
    # blocks whose mean is the same but whose entries differ in order
    weight_RW = random(4, 4).repeat(4, 4).flip(0)
    first = block_mask(weight_RW, 3 / 16, prune)
    assert first[:4, :12].all() and first.sum() == 48


def test_a_mask_is_the_same_in_other_precisions_and_of_a_parameter():
    prune = PruneConfig(block_rows=4, block_columns=4)
    weight_RW = random(32, 32).bfloat16()
    expected = block_mask(weight_RW.double(), 0.1, prune)
    assert torch.equal(block_mask(weight_RW, 0.1, prune), expected)
    parameter = torch.nn.Parameter(weight_RW.float())
    assert torch.equal(block_mask(parameter, 0.1, prune), expected)
    assert not block_mask(parameter, 0.1, prune).requires_grad


def test_the_diagonal_survives_beside_the_blocks():
    prune = PruneConfig(block_rows=16, block_columns=1, keep_diagonal=True)
    plain = PruneConfig(block_rows=16, block_columns=1)
    weight_RW = random(64, 64)
    # however large, it doesn't bring its blocks along
    weight_RW.diagonal().mul_(100)
    mask = block_mask(weight_RW, 0.05, prune)
    off_diagonal_RW = weight_RW - weight_RW.diag().diag()
    blocks = block_mask(off_diagonal_RW, 0.05, plain)
    assert torch.equal(mask, blocks | torch.eye(64, dtype=torch.bool))
    # heads have no diagonal
    wide_RW = random(64, 32)
    assert torch.equal(block_mask(wide_RW, 0.05, prune), block_mask(wide_RW, 0.05, plain))


def test_blocks_must_divide_the_matrix():
    with pytest.raises(ValueError, match="blocks of 16 x 4 don't divide a matrix of 24 x 8"):
        block_mask(torch.zeros(24, 8), 0.5, PruneConfig())
    with pytest.raises(ValueError, match="blocks of 16 x 4 don't divide a matrix of 32 x 6"):
        block_mask(torch.zeros(32, 6), 0.5, PruneConfig())


@pytest.mark.parametrize(
    ("step", "pruned"),
    [
        # Z = 0.95, t0 = 100, S = 1000: Z (1 - (1 - (t - t0) / S)^3)
        (0, 0.0),
        (99, 0.0),
        (100, 0.0),
        (200, 0.95 * (1 - 0.9**3)),
        (600, 0.95 * 0.875),
        (1099, 0.95 * (1 - 0.001**3)),
        (1100, 0.95),
        (999_999, 0.95),
    ],
)
def test_the_schedule_is_cubic(step, pruned):
    prune = PruneConfig(start_step=100, ramp_steps=1000)
    assert scheduled_density(step, 0.05, prune) == pytest.approx(1 - pruned, abs=1e-12)


def make_pruner(weight_RW, **fields):
    settings = {"start_step": 10, "ramp_steps": 100, "every_steps": 20, "density": {"R_u": 0.05}}
    return Pruner({"R_u": weight_RW}, PruneConfig(**{**settings, **fields}))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("balanced", [False, True])
def test_pruning_goes_on_schedule_and_never_back(shape, balanced):
    R, W = shape
    weight_RW = random(128, 128)
    pruner = make_pruner(weight_RW, block_rows=R, block_columns=W, balanced=balanced)
    masks = []
    for step in range(1, 150):
        # an optimizer moves pruned weights, too
        weight_RW += 0.05 * random(128, 128, seed=step)
        pruner.step(step)
        masks.append(pruner.masks["R_u"].clone())
        assert (weight_RW[~masks[-1]] == 0).all()
        assert (weight_RW[masks[-1]] != 0).all()
        current = step if step <= 110 else 110
        due = 10 + (current - 10) // 20 * 20 if current >= 10 else 0
        aim = scheduled_density(due, 0.05, pruner.prune)
        assert masks[-1].sum() == kept_blocks(128, 128, aim, pruner.prune) * R * W
    assert all((later <= earlier).all() for earlier, later in pairwise(masks))
    assert density(weight_RW) == kept_blocks(128, 128, 0.05, pruner.prune) * R * W / 128**2


def test_the_last_step_of_the_ramp_is_never_missed():
    weight_RW = random(128, 128)
    pruner = make_pruner(weight_RW, ramp_steps=95, every_steps=50)
    for step in range(1, 106):
        pruner.step(step)
    assert density(weight_RW) == kept_blocks(128, 128, 0.05, pruner.prune) * 64 / 128**2


def test_matrices_that_arent_named_or_stay_dense_are_left_alone():
    weights = {"R_u": random(32, 32), "R_r": random(32, 32), "O1": random(32, 32)}
    before = {name: weight.clone() for name, weight in weights.items()}
    prune = PruneConfig(density={"R_u": 0.5, "R_r": 1.0}, start_step=0, ramp_steps=1)
    pruner = Pruner(weights, prune)
    pruner.step(0)
    pruner.step(1)
    assert set(pruner.masks) == {"R_u"}
    assert density(weights["R_u"]) == 0.5
    assert torch.equal(weights["R_r"], before["R_r"])
    assert torch.equal(weights["O1"], before["O1"])


def test_masks_apply_to_the_model_and_to_its_averaged_copy():
    sizes = ModelConfig(hidden=32, projection=16, channels=4, embedding=2)
    prune = PruneConfig(
        block_rows=16,
        block_columns=4,
        density=dict.fromkeys(PRUNABLE, 0.25),
        start_step=0,
        ramp_steps=1,
    )
    config = Config(model=sizes, prune=prune)
    model, average = (WaveRNN(config.model, config.mel) for _ in range(2))
    pruner = Pruner(model.matrices(), prune)
    pruner.step(1)
    before = {name: weight.clone() for name, weight in average.matrices().items()}
    pruner.apply(average.matrices())
    for name, weight in average.matrices().items():
        mask = pruner.masks[name]
        assert torch.equal(weight, before[name] * mask)
        assert torch.equal(model.matrices()[name] != 0, mask)
        assert density(weight) == 0.25
    # the views are of the parameters themselves
    assert density(average.R) == 0.25


def test_gates_are_pruned_apart():
    model = WaveRNN(ModelConfig(hidden=64, projection=16, channels=4), Config().mel)
    matrices = model.matrices()
    # by far the heaviest matrix may not take the others' blocks
    matrices["R_u"].mul_(100)
    prune = PruneConfig(density={"R_u": 0.25, "R_r": 0.5, "R_e": 0.125}, start_step=0, ramp_steps=1)
    Pruner(matrices, prune).step(1)
    assert [density(gate) for gate in model.R.chunk(3)] == [0.25, 0.5, 0.125]


@pytest.mark.parametrize("keep_diagonal", [False, True])
def test_blocks_that_were_pruned_before_stay_so(keep_diagonal):
    prune = PruneConfig(
        block_rows=16,
        block_columns=4,
        density={"R_u": 0.25},
        keep_diagonal=keep_diagonal,
        start_step=0,
        ramp_steps=4,
        every_steps=1,
    )
    weight_RW = random(64, 64)
    before = block_mask(weight_RW, 0.5, prune)
    weight_RW.mul_(before)
    pruner = Pruner({"R_u": weight_RW}, prune)
    pruner.adopt()
    assert torch.equal(pruner.masks["R_u"], before)
    for step in range(6):
        # the optimizer moves every weight
        weight_RW.add_(0.01)
        pruner.step(step)
        assert (weight_RW[~before] == 0).all()
    kept = block_mask(weight_RW, 0.25, prune)
    assert torch.equal(pruner.masks["R_u"], kept)
