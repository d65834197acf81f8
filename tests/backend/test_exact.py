from dataclasses import replace

import numpy as np
import pytest
import torch

from wavernn.config import PRUNABLE, PruneConfig
from wavernn.sparse import block_mask

HEADS = ("O1", "O2", "O3", "O4")


def whole_numbers(voice, rng, kept, prune):
    """Weights of which every product and sum is exact in any order, and every gate saturates.

    Pre-activations are odd multiples of 1024, so u and r are 0 or 1 and e is -1 or 1.
    """

    def draw(name, scale=1):
        values = rng.integers(-2, 3, voice.tensors[name].shape)
        return torch.from_numpy(values).float() * scale

    tensors = {name: draw(name, 2048) for name in ("R", "I_past", "I_now")}
    tensors |= {name: draw(name) for name in ("rows", *(f"{o}.bias" for o in HEADS))}
    tensors |= {f"{o}.weight": draw(f"{o}.weight") for o in HEADS}
    matrices = [*tensors["R"].chunk(3), *(tensors[f"{o}.weight"] for o in HEADS)]
    for matrix in matrices if kept < 1 else []:
        matrix *= block_mask(matrix, kept, prune)
    config = replace(voice.config, prune=prune) if kept < 1 else voice.config
    return replace(voice, config=config, tensors={**voice.tensors, **tensors})


@pytest.fixture
def check(backend, make_voice, make_work):
    """Codes, logits and state must equal the oracle's, with no tolerance."""
    if backend.options.get("kernel") == "resident":
        pytest.skip("its odd rows have another weight in their last bits, so none stays whole")

    def compare(kept=1.0, shape=(16, 4), balanced=False, **fields):
        rng = np.random.default_rng(5)
        prune = PruneConfig(*shape, balanced, density=dict.fromkeys(PRUNABLE, max(kept, 1e-3)))
        voice = whole_numbers(make_voice(**fields), rng, kept, prune)
        work = make_work(voice, 2, 150)
        odd = 2 * rng.integers(-4, 4, work.gates_BNG.shape) + 1
        work = replace(work, gates_BNG=torch.from_numpy(odd).float() * 1024)
        codes, logits, after = backend.oracle(voice)(work)
        if backend.format != "int8":
            assert (logits == logits.round()).all()
        assert set(np.unique(after["h"])) <= {-1.0, 0.0, 1.0}
        synthesizer = backend.synthesizer(voice, 2)
        assert (synthesizer.run(work.gates_BNG, work.uniform_BT2) == codes).all()
        assert (synthesizer.state()["h"] == after["h"]).all()
        synthesizer.reset()
        coarse, fine = synthesizer.score(work.gates_BNG, codes)
        assert (np.stack((coarse, fine), axis=2) == logits).all()
        return codes

    return compare


@pytest.mark.parametrize("hidden", [20, 32, 96], ids="H{}".format)
def test_whole_numbers_are_exact(check, hidden):
    assert len(np.unique(check(hidden=hidden))) > 30


@pytest.mark.parametrize("pruned", [50, 95, 100], ids="{}%".format)
@pytest.mark.parametrize("balanced", [False, True], ids=["any-rows", "balanced"])
def test_packed_blocks_are_exact(check, pruned, balanced):
    check(1 - pruned / 100, balanced=balanced, hidden=64, projection=32)


@pytest.mark.parametrize("shape", [(16, 1), (8, 4), (4, 4)], ids=["16x1", "8x4", "4x4"])
def test_packed_blocks_of_other_shapes_are_exact(check, shape):
    check(0.3, shape, hidden=64, projection=32)
