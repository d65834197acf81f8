import numpy as np
import pytest
import torch

from wavernn.rng import philox, uniforms, uniforms_torch

# the philox4x32 10 rows of kat_vectors in Random123 (Salmon et al. 2011)
KNOWN = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    assert tuple(philox(np.array(counter, np.uint32), key)) == words


def test_uniforms_are_the_first_two_words_in_24_bits():
    words = philox(np.array([5, 0, 0, 0], np.uint32), (7, 3))[:2]
    drawn = uniforms((3 << 32) | 7, 5, 1)[0]
    assert drawn.dtype == np.float32
    assert (drawn.astype(np.float64) * 2**24 == (words >> 8)).all()


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("start", [0, 12345, 2**32 - 3])
def test_torch_and_numpy_agree(seed, start):
    assert torch.equal(uniforms_torch(seed, start, 7), torch.from_numpy(uniforms(seed, start, 7)))


def test_a_stream_can_be_drawn_in_pieces():
    whole = uniforms(9, 0, 300)
    assert (np.concatenate([uniforms(9, 0, 7), uniforms(9, 7, 293)]) == whole).all()
    assert whole.min() >= 0 and whole.max() < 1
    assert abs(whole.mean() - 0.5) < 0.05
    assert uniforms(9, 0, 0).shape == (0, 2)


@pytest.mark.parametrize("draw", [uniforms, uniforms_torch])
def test_refuses_what_is_no_seed(draw):
    with pytest.raises(ValueError, match=r"0\.\.2\^64-1, got -1"):
        draw(-1, 0, 1)
    with pytest.raises(ValueError, match="must not be negative"):
        draw(0, -1, 1)
