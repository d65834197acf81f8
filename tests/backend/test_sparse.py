from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.config import PRUNABLE, PruneConfig
from wavernn.sparse import block_mask

SHAPES = {"16x4": (16, 4), "16x1": (16, 1), "4x4": (4, 4), "8x4": (8, 4)}


@pytest.fixture(scope="module")
def make_sparse(make_voice):
    """A voice of which a share of each matrix's blocks is kept, and the same called dense."""

    def make(kept, shape=(16, 4), balanced=False, diagonal=False):
        voice = make_voice(hidden=64, projection=32)
        # a density is more than 0
        density = dict.fromkeys(PRUNABLE, max(kept, 1e-3))
        prune = PruneConfig(*shape, balanced, diagonal, density)
        tensors = {name: tensor.clone() for name, tensor in voice.tensors.items()}
        matrices = [*tensors["R"].chunk(3), *(tensors[f"O{i}.weight"] for i in (1, 2, 3, 4))]
        for matrix in matrices:
            matrix *= block_mask(matrix, kept, prune)
        sparse = replace(voice, tensors=tensors, config=replace(voice.config, prune=prune))
        return sparse, replace(voice, tensors=tensors)

    return make


@pytest.fixture
def check(backend, make_work, make_oracle):
    def compare(sparse, dense):
        work = make_work(dense, 3, 80)
        codes = np.random.default_rng(2).integers(0, 256, (3, 80, 2)).astype(np.uint8)
        _, exact, after = make_oracle(dense)(work, codes_BT2=codes)
        plain, plain_h = backend.plain(dense, work, codes)
        for voice in (sparse, dense):
            synthesizer = backend.synthesizer(voice, 3)
            logits = np.stack(synthesizer.score(work.gates_BNG, codes), axis=2)
            allowed = backend.allowed(np.abs(plain - exact).max())
            assert np.abs(logits - exact).max() <= allowed
            allowed = backend.allowed(np.abs(plain_h - after["h"]).max())
            assert np.abs(synthesizer.state()["h"] - after["h"]).max() <= allowed

    return compare


@pytest.mark.parametrize("pruned", [0, 50, 95, 100], ids="{}%".format)
def test_sparse_is_dense_with_the_zeros_written_out(check, make_sparse, pruned):
    sparse, dense = make_sparse(1 - pruned / 100)
    zeros = (sparse.tensors["R"] == 0).float().mean().item() * 100
    assert abs(zeros - pruned) < 1
    check(sparse, dense)


@pytest.mark.parametrize("balanced", [False, True], ids=["any-rows", "balanced"])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_shape(check, make_sparse, shape, balanced):
    check(*make_sparse(0.2, SHAPES[shape], balanced))


def test_a_diagonal_beside_the_blocks(check, make_sparse):
    sparse, dense = make_sparse(0.1, diagonal=True)
    assert all(bool((part.diagonal() != 0).all()) for part in sparse.tensors["R"].chunk(3))
    check(sparse, dense)


def test_one_block_at_each_place(check, make_sparse):
    # a block of its own in each of R's block rows, first and last columns among them
    sparse, dense = make_sparse(0)
    for row in range(12):
        column = (row * 5 % 16) * 4 if row else 60
        sparse.tensors["R"][16 * row : 16 * row + 16, column : column + 4] = torch.randn(
            16, 4, generator=torch.Generator().manual_seed(row)
        )
    check(sparse, dense)
