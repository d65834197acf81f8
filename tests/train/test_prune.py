import numpy as np
import pytest
import torch

from wavernn import checkpoint
from wavernn.sparse import kept_blocks, scheduled_density
from wavernn.train.report import Report

H, P = 64, 32
SHAPES = {"R_u": (H, H), "R_r": (H, H), "R_e": (H, H), "O1": (P, H // 2), "O4": (256, P)}
SHAPES |= {"O2": (256, P), "O3": (P, H // 2)}


class Stop(Exception):
    pass


class StopAt(Report):
    def __init__(self, step):
        super().__init__(None)
        self.step = step

    def stepped(self, state, coarse, fine, norm, rate):
        if state.step == self.step:
            raise Stop


class Zeros(Report):
    """Keeps, after each step, which weights of each matrix aren't zero."""

    def __init__(self):
        super().__init__(None)
        self.kept = []

    def stepped(self, state, coarse, fine, norm, rate):
        self.kept.append({k: (w != 0).numpy() for k, w in state.model.matrices().items()})


def blocks(mask_RW, rows, columns):
    """The blocks of a mask, each of which is kept whole or not at all: bool [R / rows, ...]."""
    R, W = mask_RW.shape
    whole = np.asarray(mask_RW).reshape(R // rows, rows, W // columns, columns)
    assert (whole.all((1, 3)) == whole.any((1, 3))).all()
    return whole.all((1, 3))


@pytest.mark.parametrize("balanced", [False, True], ids=["free", "balanced"])
@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (16, 4)], ids=["16x1", "16x4"])
def test_masks_are_exact_after_training_in_the_voice_and_after_resuming(
    runs, quick, rows, columns, balanced
):
    overrides = (
        f"prune.block_rows={rows}",
        f"prune.block_columns={columns}",
        f"prune.balanced={str(balanced).lower()}",
    )
    with pytest.raises(Stop):
        runs.train("a", *overrides, report=StopAt(20))
    before, tensors = runs.state("a")
    assert before["step"] == 18
    masks = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("mask.")}
    path = runs.train("a", *overrides, resume=True)
    _, after = runs.state("a")
    prune = quick(*overrides).prune
    weights = {
        "state": {k.partition(".")[2]: v for k, v in after.items() if k.startswith("model.")},
        "voice": checkpoint.load(path).tensors,
    }
    assert masks.keys() == prune.density.keys()
    for name, mask_RW in masks.items():
        assert torch.equal(after[f"mask.{name}"], mask_RW)
        kept = blocks(mask_RW, rows, columns)
        R, W = SHAPES[name]
        wanted = prune.density[name] * R * W / rows / columns
        if balanced:
            assert len(set(kept.sum(1))) == 1
            assert abs(kept.sum(1)[0] - wanted / len(kept)) <= 0.5
        else:
            assert abs(kept.sum() - wanted) <= 0.5
        for tensors in weights.values():
            assert torch.equal(matrix(tensors, name) != 0, mask_RW)
    for tensors in weights.values():
        for name in SHAPES.keys() - masks.keys():
            assert (matrix(tensors, name) != 0).all()


def matrix(tensors, name):
    if name.startswith("R"):
        return tensors["R"].chunk(3)[("R_u", "R_r", "R_e").index(name)]
    return tensors[f"{name}.weight"]


def test_density_falls_on_schedule_and_zeros_stay_zeros(runs, quick):
    watch = Zeros()
    runs.train("a", report=watch)
    prune = quick().prune
    due = [4, 7, 10, 13, 16]
    present = dict.fromkeys(prune.density, 1.0)
    for step, kept in enumerate(watch.kept, 1):
        for name, final in prune.density.items():
            if step in due:
                present[name] = scheduled_density(step, final, prune)
            R, W = SHAPES[name]
            assert kept[name].sum() == 64 * kept_blocks(R, W, present[name], prune)
        if step > 1:
            before = watch.kept[step - 2]
            assert not any((kept[name] & ~before[name]).any() for name in prune.density)


def test_the_last_update_comes_where_the_schedule_ends(runs):
    # 13 isn't a whole number of updates after 4
    watch = Zeros()
    runs.train("a", "prune.ramp_steps=13", "prune.every_steps=5", "train.steps=20", report=watch)
    shares = [kept["O4"].mean() for kept in watch.kept]
    assert shares[16 - 1] > shares[17 - 1] == shares[-1] == 0.25


def test_the_schedule_is_a_cubic(quick):
    prune = quick("prune.start_step=100", "prune.ramp_steps=200").prune
    assert [scheduled_density(step, 0.05, prune) for step in (0, 100)] == [1.0, 1.0]
    assert scheduled_density(200, 0.05, prune) == pytest.approx(1 - 0.95 * (1 - 0.5**3))
    assert scheduled_density(300, 0.05, prune) == pytest.approx(0.05)
    assert scheduled_density(10**6, 0.05, prune) == pytest.approx(0.05)


def test_the_diagonal_survives_beside_the_blocks(runs):
    path = runs.train("a", "prune.keep_diagonal=true")
    for gate_HH in checkpoint.load(path).tensors["R"].chunk(3):
        kept = (gate_HH != 0).numpy()
        assert kept.diagonal().all()
        whole = kept.reshape(H // 16, 16, H // 4, 4).all((1, 3))
        # 5 % of 64 blocks
        assert whole.sum() == 3
        outside = ~whole.repeat(16, 0).repeat(4, 1)
        assert (kept & outside == (np.eye(H, dtype=bool) & outside)).all()


def test_a_matrix_of_density_one_is_left_alone(runs):
    runs.train("a", "prune.density.R_u=1.0", "prune.density.O1=1.0")
    _, tensors = runs.state("a")
    masks = {k.partition(".")[2] for k in tensors if k.startswith("mask.")}
    assert masks == {"R_r", "R_e", "O4"}
    assert (tensors["model.R"].chunk(3)[0] != 0).all()


def test_fine_tuning_keeps_the_blocks_of_a_voice(runs):
    source = runs.train("a")
    path = runs.train("b", "train.input_noise=0.0", init_from=source)
    before, after = checkpoint.load(source).tensors, checkpoint.load(path).tensors
    for name in SHAPES:
        assert torch.equal(matrix(before, name) != 0, matrix(after, name) != 0)
    assert not torch.equal(matrix(before, "R_u"), matrix(after, "R_u"))
