from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig
from wavernn.kernels.pack import FORMATS, pack
from wavernn.model import WaveRNN

HEADS = ("O1", "O2", "O3", "O4")
RECURRENT = ("gates0", "gates1", "candidate0", "candidate1")
# what format int8 holds in 16 bit
WORDS = ("candidate0", "candidate1", "O2")
# what a gate's rows are multiplied by
SCALE_3 = -np.log2(np.e) * np.array([1, 1, 2])


def make_voice(seed=0, **fields):
    sizes = {"hidden": 72, "projection": 21, "embedding": 3, "channels": 4, "layers": 0}
    config = Config(mel=MelConfig(bands=4), model=replace(ModelConfig(), **(sizes | fields)))
    rng = np.random.default_rng(seed)
    tensors = {
        name: torch.from_numpy(rng.normal(0, 1, like.shape)).float()
        for name, like in sorted(WaveRNN(config.model, config.mel).state_dict().items())
    }
    return Checkpoint(config, tensors)


def only(voice, name, *places):
    """The voice with a matrix that is zero but at these places: slices of rows and columns."""
    zeros = torch.zeros_like(voice.tensors[name])
    for place in places:
        zeros[place] = voice.tensors[name][place]
    return replace(voice, tensors={**voice.tensors, name: zeros})


def padded(size):
    return -(-size // 16) * 16


def wanted(voice, name):
    """A matrix as it is to be laid out, row by row, columns padded; float64."""
    units = voice.config.model.hidden // 2
    half, P = padded(units), padded(voice.config.model.projection)
    if name in HEADS:
        weight = voice.tensors[f"{name}.weight"].double().numpy()
        matrix = np.zeros((P, half) if name in ("O1", "O3") else (256, P))
        matrix[: weight.shape[0], : weight.shape[1]] = weight
        return matrix
    R, which = voice.tensors["R"].double().numpy(), int(name[-1])
    rows = []
    for first in range(0, half, 16):
        for gate in (2,) if name.startswith("candidate") else (0, 1):
            for unit in range(first, first + 16):
                row = np.zeros((2, half))
                if unit < units:
                    own = R[2 * units * gate + units * which + unit] * SCALE_3[gate]
                    row[0, :units], row[1, :units] = own[:units], own[units:]
                rows.append(row.ravel())
    return np.array(rows)


def unpacked(packed, name):
    """A matrix written out from its blocks: [rows, columns]."""
    blocks, starts, index = (
        packed.arrays.get(f"{name}.{part}") for part in ("blocks", "starts", "columns")
    )
    half, P = packed.header["half"], packed.header["projection"]
    columns = {"O1": half, "O3": half, "O2": P, "O4": P}.get(name, 2 * half)
    width, matrix = blocks.shape[2], np.zeros((16 * (len(starts) - 1), columns))
    for g, (start, stop) in enumerate(pairwise(starts.tolist())):
        for k in range(start, stop):
            at = width * (k - start if index is None else int(index[k]))
            matrix[16 * g : 16 * g + 16, at : at + width] = blocks[k]
    return matrix


def steps(name):
    """The whole number that an activation of 1 is, in format int8; 1 where the engine finds it."""
    return 1 if name in ("O2", "O4") else 2047 if name in WORDS else 127


SIZES = {
    "no-block-multiple": {},
    "one-block": {"hidden": 32, "projection": 16},
    "smallest": {"hidden": 2, "projection": 1, "embedding": 1},
    "scalar": {"hidden": 40, "input": "scalar"},
}


@pytest.fixture(params=SIZES)
def voice(request):
    return make_voice(**SIZES[request.param])


@pytest.mark.parametrize("format", FORMATS)
def test_sizes(voice, format):
    model = voice.config.model
    assert pack(voice, format).header == {
        "format": format,
        "units": model.hidden // 2,
        "half": padded(model.hidden // 2),
        "projection": padded(model.projection),
        "hop": 64,
        "pre_emphasis": 0.85,
    }


@pytest.mark.parametrize("name", (*RECURRENT, *HEADS))
def test_float32_holds_the_weights(voice, name):
    packed = pack(voice, "float32")
    assert packed.arrays[f"{name}.blocks"].dtype == np.float32
    assert packed.arrays[f"{name}.blocks"].shape[1:] == (16, 1)
    assert (unpacked(packed, name) == wanted(voice, name).astype(np.float32)).all()
    assert f"{name}.scale" not in packed.arrays
    assert f"{name}.correction" not in packed.arrays


@pytest.mark.parametrize("name", (*RECURRENT, *HEADS))
def test_int8_holds_the_weights_within_half_a_unit(voice, name):
    packed, exact = pack(voice), wanted(voice, name)
    blocks, scale_R = (packed.arrays[f"{name}.{part}"] for part in ("blocks", "scale"))
    assert blocks.dtype == (np.int16 if name in WORDS else np.int8)
    assert blocks.shape[1:] == (16, 4)
    assert scale_R.dtype == np.float32
    whole, unit_R1 = unpacked(packed, name), scale_R.astype(np.float64)[:, None] * steps(name)
    # the unit is float32, and a word up to 32767 of them
    assert (np.abs(whole * unit_R1 - exact) <= unit_R1 * 0.502).all()
    # each row uses its range
    most_R, empty_R = np.abs(whole).max(1), (exact == 0).all(1)
    assert (most_R[~empty_R] == (32767 if name in WORDS else 127)).all()
    assert (most_R[empty_R] == 0).all()
    assert np.isfinite(scale_R).all()


@pytest.mark.parametrize("name", (*RECURRENT, *HEADS))
def test_a_sum_starts_where_h_of_zero_leads_it_to_zero(voice, name):
    packed = pack(voice)
    correction_R = packed.arrays[f"{name}.correction"]
    assert correction_R.dtype == np.int32
    # h of zero is 128 in bytes and 0 in words; what O2 and O4 read has no zero point
    zero = 128 if name in ("gates0", "gates1", "O1", "O3") else 0
    assert (correction_R + zero * unpacked(packed, name).sum(1) == 0).all()


@pytest.mark.parametrize("format", FORMATS)
def test_biases(voice, format):
    packed = pack(voice, format)
    for name in HEADS:
        bias, given = packed.arrays[f"{name}.bias"], voice.tensors[f"{name}.bias"].numpy()
        assert bias.dtype == np.float32
        assert len(bias) == padded(len(given))
        assert (bias[: len(given)] == given).all()
        assert (bias[len(given) :] == 0).all()
    # R's comes with the gate input
    assert not any(f"{name}.bias" in packed.arrays for name in RECURRENT)


def added(voice):
    """What the codes add to the gates: [c_{t-1}, f_{t-1}, c_t], [Q, 3, 2, units], float64."""
    w = {name: tensor.double().numpy() for name, tensor in voice.tensors.items()}
    units, E = voice.config.model.hidden // 2, w["rows"].shape[2]
    past = [w["rows"][k] @ w["I_past"].T[k * E : (k + 1) * E] for k in range(2)]
    now = np.zeros((256, 3, 2, units))
    now[:, :, 1] = (w["rows"][2] @ w["I_now"].T).reshape(256, 3, units)
    tables = [*(table.reshape(256, 3, 2, units) for table in past), now]
    return [table * SCALE_3[:, None, None] for table in tables]


def read_rows(packed, voice):
    """The same from a packed voice, and what lies behind the last unit."""
    past, now = packed.arrays["past"], packed.arrays["now"]
    half, units = packed.header["half"], voice.config.model.hidden // 2
    assert past.shape == (2, 256, 2, half // 16, 3, 16)
    assert now.shape == (256, 1, half // 16, 3, 16)
    whole = np.zeros((3, 256, 3, 2, half), past.dtype)
    for unit in range(half):
        group, lane = divmod(unit, 16)
        whole[:2, ..., unit] = past[:, :, :, group, :, lane].swapaxes(2, 3)
        whole[2, :, :, 1, unit] = now[:, 0, group, :, lane]
    return whole[..., :units], whole[..., units:]


@pytest.mark.parametrize("format", FORMATS)
def test_rows_that_the_codes_add(voice, format):
    packed, exact = pack(voice, format), np.stack(added(voice))
    rows, behind = read_rows(packed, voice)
    assert (behind == 0).all()
    scale_3 = packed.arrays["rows_scale"]
    assert scale_3.dtype == np.float32
    if format == "float32":
        assert rows.dtype == np.float32
        assert scale_3.tolist() == [1, 1, 1]
        assert np.allclose(rows, exact, rtol=1e-6, atol=1e-12)
        return
    assert rows.dtype == np.int16
    # one unit for a gate, of which three rows fit 16 bit
    unit = scale_3.astype(np.float64)[:, None, None]
    assert (np.abs(rows * unit - exact) <= unit * 0.501).all()
    assert np.abs(rows.astype(int)).max((0, 1, 3, 4)).tolist() == [10922] * 3


# kept parts of O4, whose 256 rows are 16 groups over 24 columns in 6 blocks
BLOCKS = {
    "16x4": ([np.s_[16:32, 4:8], np.s_[16:32, 16:20], np.s_[240:256, 0:4]], [1, 4, 0]),
    "8x4": ([np.s_[24:32, 4:8], np.s_[16:24, 16:20], np.s_[240:248, 0:4]], [1, 4, 0]),
    "4x4": (
        [np.s_[20:24, 4:8], np.s_[28:32, 4:8], np.s_[16:20, 16:20], np.s_[252:, :4]],
        [1, 4, 0],
    ),
    "16x1": ([np.s_[16:32, 7:8], np.s_[16:32, 16:17], np.s_[240:256, 3:4]], [1, 4, 0]),
    "one-weight": ([np.s_[31, 5], np.s_[17, 16], np.s_[255, 3]], [1, 4, 0]),
}


@pytest.mark.parametrize("shape", BLOCKS)
def test_blocks_of_any_shape_lie_in_blocks_of_16x4(shape):
    places, columns = BLOCKS[shape]
    voice = only(make_voice(projection=24), "O4.weight", *places)
    packed = pack(voice)
    assert packed.arrays["O4.columns"].tolist() == columns
    assert packed.arrays["O4.columns"].dtype == np.uint16
    assert packed.arrays["O4.starts"].tolist() == [0, 0] + [2] * 14 + [3]
    assert packed.arrays["O4.starts"].dtype == np.int32
    kept = voice.tensors["O4.weight"].numpy() != 0
    # a small weight may round to zero, but none appears
    assert not unpacked(packed, "O4")[:, :24][~kept].any()


@pytest.mark.parametrize("shape", BLOCKS)
def test_float32_keeps_single_columns(shape):
    voice = only(make_voice(projection=24), "O4.weight", *BLOCKS[shape][0])
    packed = pack(voice, "float32")
    weight, columns = voice.tensors["O4.weight"].numpy(), []
    for g in range(16):
        columns += np.flatnonzero(weight[16 * g : 16 * g + 16].any(0)).tolist()
    assert packed.arrays["O4.columns"].tolist() == columns
    assert (unpacked(packed, "O4")[:, :24] == weight).all()


def test_both_halves_and_gates_of_R_have_their_blocks():
    # half a voice of 36 units, padded to 48: 3 groups over 2 x 12 blocks
    voice = make_voice()
    u, r, e = (72 * gate for gate in range(3))
    places = [
        # unit 0 of u, coarse, from the first coarse unit
        np.s_[u, 0],
        # unit 35 of r, coarse, from the last coarse unit
        np.s_[r + 35, 35],
        # unit 20 of u, fine, from the first fine unit
        np.s_[u + 36 + 20, 36],
        # unit 35 of e, fine, from the last fine unit, and of e, coarse
        np.s_[e + 36 + 35, 71],
        np.s_[e + 35, 71],
    ]
    packed = pack(only(voice, "R", *places))
    found = {name: [] for name in RECURRENT}
    for name in RECURRENT:
        starts, columns = (packed.arrays[f"{name}.{part}"] for part in ("starts", "columns"))
        for g in range(len(starts) - 1):
            found[name] += [(g, int(column)) for column in columns[starts[g] : starts[g + 1]]]
    # groups of u and r take turns
    assert found == {
        "gates0": [(0, 0), (5, 8)],
        "gates1": [(2, 12)],
        "candidate0": [(2, 20)],
        "candidate1": [(2, 20)],
    }
    block = packed.arrays["gates1.blocks"][0]
    assert np.abs(block[4, 0]) == 127
    assert np.count_nonzero(block) == 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [14, 15, 16], ids="{}-of-16".format)
def test_what_is_nearly_dense_has_no_index(format, kept):
    # above 90 %
    voice = make_voice(projection=16)
    voice = only(voice, "O2.weight", np.s_[: 16 * kept])
    arrays = pack(voice, format).arrays
    columns = 4 if format == "int8" else 16
    if kept == 14:
        assert arrays["O2.columns"].tolist() == [*range(columns)] * kept
        assert arrays["O2.starts"].tolist() == [columns * min(g, kept) for g in range(17)]
    else:
        assert "O2.columns" not in arrays
        assert arrays["O2.starts"].tolist() == [columns * g for g in range(17)]
    assert (unpacked(pack(voice, format), "O2")[16 * kept :] == 0).all()


@pytest.mark.parametrize("format", FORMATS)
def test_matrices_of_zeros_have_no_blocks(format):
    voice = make_voice()
    zeros = {
        name: torch.zeros_like(tensor)
        for name, tensor in voice.tensors.items()
        if name in ("R", "I_past", "I_now") or name.startswith("O")
    }
    packed = pack(replace(voice, tensors={**voice.tensors, **zeros}), format)
    for name in (*RECURRENT, *HEADS):
        assert len(packed.arrays[f"{name}.blocks"]) == 0
        assert len(packed.arrays[f"{name}.columns"]) == 0
        assert not packed.arrays[f"{name}.starts"].any()
        if format == "int8":
            assert not packed.arrays[f"{name}.correction"].any()
            # a unit may not be zero, by which the engine's numbers would be no numbers
            assert (packed.arrays[f"{name}.scale"] > 0).all()
    assert not packed.arrays["past"].any()
    assert not packed.arrays["now"].any()
    assert (packed.arrays["rows_scale"] > 0).all()


@pytest.mark.parametrize("equal", [False, True], ids=["random", "equal"])
def test_a_sum_of_words_fits_32_bits(equal):
    voice = make_voice(hidden=2, projection=4096)
    if equal:
        weight = {"O2.weight": torch.full((256, 4096), 0.1)}
        voice = replace(voice, tensors={**voice.tensors, **weight})
    sums_R = np.abs(unpacked(pack(voice), "O2")).sum(1) * 2047
    assert (sums_R < 2**31).all()
    # without giving much away
    assert (sums_R > 0.98 * 2**31).all()


def test_a_voice_is_packed_alike_each_time():
    first, second = (pack(make_voice()).arrays for _ in range(2))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
