import math
from dataclasses import FrozenInstanceError, fields

import pytest

from wavernn.config import (
    MEL_PRESETS,
    PRUNABLE,
    Config,
    MelConfig,
    ModelConfig,
    PruneConfig,
    TrainConfig,
    matrix_shape,
)
from wavernn.errors import ConfigError
from wavernn.model import WaveRNN

BAD = [
    (MelConfig, {"rate_hz": 0}, "mel.rate_hz must be positive, got 0"),
    (MelConfig, {"fft_samples": 0}, "mel.fft_samples must be positive and even, got 0"),
    (MelConfig, {"fft_samples": 1023}, "mel.fft_samples must be positive and even, got 1023"),
    (MelConfig, {"window_samples": 0}, r"lie in 1..fft_samples \(1024\), got 0"),
    (MelConfig, {"window_samples": 1025}, r"lie in 1..fft_samples \(1024\), got 1025"),
    (MelConfig, {"hop_samples": 0}, "mel.hop_samples must be at most fft_samples .*got 0"),
    (MelConfig, {"hop_samples": 1026}, "mel.hop_samples must be at most fft_samples .*got 1026"),
    (MelConfig, {"hop_samples": 255}, "differ from it by an even number, got 255"),
    (MelConfig, {"bands": 0}, "mel.bands must be positive, got 0"),
    (MelConfig, {"low_hz": -1.0}, "low_hz < high_hz <= rate_hz / 2, got -1.0, 8000.0 at 22050 Hz"),
    (MelConfig, {"low_hz": 8000.0}, "low_hz < high_hz <= rate_hz / 2, got 8000.0, 8000.0"),
    (MelConfig, {"high_hz": 11_026.0}, "low_hz < high_hz <= rate_hz / 2, got 0.0, 11026.0"),
    (MelConfig, {"high_hz": math.nan}, "low_hz < high_hz <= rate_hz / 2, got 0.0, nan"),
    (MelConfig, {"scale": "bark"}, "mel.scale is slaney or htk, not bark"),
    (MelConfig, {"norm": "l2"}, "mel.norm is slaney or none, not l2"),
    (MelConfig, {"log": "db"}, "mel.log is ln or log10, not db"),
    (MelConfig, {"floor": 0.0}, "mel.floor must be positive, got 0.0"),
    (ModelConfig, {"hidden": 0}, "model.hidden must lie in 1..65536, got 0"),
    (ModelConfig, {"hidden": 65_538}, "model.hidden must lie in 1..65536, got 65538"),
    (ModelConfig, {"hidden": 383}, "model.hidden must be even, got 383"),
    (ModelConfig, {"projection": -1}, "model.projection must lie in 1..65536, got -1"),
    (ModelConfig, {"embedding": 0}, "model.embedding must lie in 1..65536, got 0"),
    (ModelConfig, {"channels": 0}, "model.channels must lie in 1..65536, got 0"),
    (ModelConfig, {"conditioning_hop_samples": 0}, "conditioning_hop_samples must lie in 1..65536"),
    (ModelConfig, {"input": "onehot"}, "model.input is embedding or scalar, not onehot"),
    (ModelConfig, {"layers": -1}, "model.layers must lie in 0..64, got -1"),
    (ModelConfig, {"layers": 65}, "model.layers must lie in 0..64, got 65"),
    (ModelConfig, {"lookahead_frames": -1}, "model.lookahead_frames must lie in 0..3, got -1"),
    (ModelConfig, {"lookahead_frames": 4}, "model.lookahead_frames must lie in 0..3, got 4"),
    (ModelConfig, {"pre_emphasis": 1.0}, r"model.pre_emphasis must lie in \[0, 1\), got 1.0"),
    (ModelConfig, {"pre_emphasis": -0.1}, r"model.pre_emphasis must lie in \[0, 1\), got -0.1"),
    (ModelConfig, {"subscale": 0}, "model.subscale must lie in 1..64, got 0"),
    (ModelConfig, {"subscale": 65}, "model.subscale must lie in 1..64, got 65"),
    (ModelConfig, {"subscale": 12}, r"must divide model.conditioning_hop_samples \(64\), got 12"),
    (ModelConfig, {"subscale_horizon": -1}, "subscale_horizon must lie in 0..1023, got -1"),
    (ModelConfig, {"context_channels": 0}, "context_channels must lie in 1..4096, got 0"),
    (ModelConfig, {"context_layers": 17}, "context_layers must lie in 1..16, got 17"),
    (
        ModelConfig,
        {"subscale": 8, "subscale_horizon": 16},
        "context_layers of 4 see 16 steps, but the horizon alone is 16; .* to 5 or more",
    ),
    (ModelConfig, {"fused": 3}, "fused is 1, or 2 with subscale 1, .*; got 3, 1, 384, 64"),
    (ModelConfig, {"fused": 0}, "model.fused is 1, or 2"),
    (ModelConfig, {"fused": 2, "subscale": 8}, "got 2, 8, 384, 64"),
    (ModelConfig, {"fused": 2, "hidden": 36}, "that 8 divides .* got 2, 1, 36, 64"),
    (ModelConfig, {"fused": 2, "conditioning_hop_samples": 1}, "even conditioning_hop_samples; "),
    (
        Config,
        {"prune": PruneConfig(density={"X_u": 0.5})},
        "prune.density.X_u is of a subscale voice, but model.subscale is 1",
    ),
    (PruneConfig, {"block_rows": 0}, "block_rows and block_columns must be positive, got 0 x 4"),
    (PruneConfig, {"block_columns": -4}, "block_columns must be positive, got 16 x -4"),
    (PruneConfig, {"density": {"R": 0.1}}, "unknown matrix prune.density.R; known: R_u, R_r, R_e"),
    (PruneConfig, {"density": {"O1": 0.0}}, r"prune.density.O1 must lie in \(0, 1\], got 0.0"),
    (PruneConfig, {"density": {"O1": 1.5}}, r"prune.density.O1 must lie in \(0, 1\], got 1.5"),
    (PruneConfig, {"density": {"O1": math.nan}}, r"prune.density.O1 must lie in \(0, 1\], got nan"),
    (PruneConfig, {"start_step": -1}, "every_steps > 0, got -1, 200000, 500"),
    (PruneConfig, {"ramp_steps": 0}, "every_steps > 0, got 1000, 0, 500"),
    (PruneConfig, {"every_steps": 0}, "every_steps > 0, got 1000, 200000, 0"),
    (TrainConfig, {"seed": -1}, r"train.seed must lie in 0..2\^63-1, got -1"),
    (TrainConfig, {"seed": 1 << 63}, r"train.seed must lie in 0..2\^63-1, got 9223372036854775808"),
    (TrainConfig, {"ema": 1.0}, r"train.ema must lie in \[0, 1\), got 1.0"),
    (TrainConfig, {"final_rate": 1.1}, r"train.final_rate must lie in \[0, 1\], got 1.1"),
    (TrainConfig, {"warmup_steps": -1}, "input_noise must not be negative, got -1, 0.0"),
    (TrainConfig, {"input_noise": -0.5}, "input_noise must not be negative, got 200, -0.5"),
    (TrainConfig, {"precision": "float16"}, "is float32 or bfloat16, not float16"),
    *(
        (TrainConfig, {key: 0}, f"train.{key} must be positive, got 0")
        for key in [
            "steps",
            "batch",
            "slice_samples",
            "learning_rate",
            "clip",
            "validate_every_steps",
            "save_every_steps",
            "log_every_steps",
            "validation_clips",
            "validation_seconds_per_clip",
            "nan_patience",
        ]
    ),
    (
        Config,
        {"model": ModelConfig(conditioning_hop_samples=100)},
        r"model.conditioning_hop_samples must divide mel.hop_samples \(256\), got 100",
    ),
    (
        Config,
        {"train": TrainConfig(slice_samples=300)},
        r"train.slice_samples must be a multiple of mel.hop_samples \(256\), got 300",
    ),
    (
        Config,
        {"prune": PruneConfig(block_rows=100, density={"R_u": 0.1})},
        r"prune blocks of 100 x 4 don't divide R_u \(384 x 384\)",
    ),
    (
        Config,
        {"prune": PruneConfig(block_columns=5, density={"O2": 0.1})},
        r"prune blocks of 16 x 5 don't divide O2 \(256 x 192\)",
    ),
]


@pytest.mark.parametrize(
    ("kind", "values", "sentence"), BAD, ids=[f"{k.__name__}-{v}" for k, v, _ in BAD]
)
def test_an_illegal_value_is_named(kind, values, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        kind(**values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [MelConfig, ModelConfig, PruneConfig, TrainConfig])
def test_every_field_with_a_range_has_a_case(kind):
    # what any value of the right type is right for
    free = {"balanced", "keep_diagonal", "carry_state"}
    cases = {key for case, values, _ in BAD if case is kind for key in values}
    assert {f.name for f in fields(kind)} - free == cases


def test_the_edges_of_ranges_are_legal():
    MelConfig(window_samples=1, hop_samples=1024, low_hz=0.0, high_hz=11_025.0)
    ModelConfig(hidden=2, projection=1, layers=0, lookahead_frames=0, pre_emphasis=0.0)
    PruneConfig(density={"R_u": 1.0, "O4": 1e-9}, start_step=0, ramp_steps=1, every_steps=1)
    TrainConfig(ema=0.0, final_rate=1.0, warmup_steps=0, seed=(1 << 63) - 1)


def test_a_dense_matrix_need_not_hold_whole_blocks():
    assert Config(prune=PruneConfig(block_rows=100, density={"R_u": 1.0}))


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Config().name = "other"


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_every_preset_suits_a_model(name):
    mel = MEL_PRESETS[name]
    hop = mel.hop_samples
    model = ModelConfig(conditioning_hop_samples=hop // 4)
    assert Config(mel=mel, model=model, train=TrainConfig(slice_samples=hop)).mel is mel


def test_presets_are_at_the_rates_they_are_named_after():
    rates = {name: mel.rate_hz for name, mel in MEL_PRESETS.items()}
    assert rates == {
        "hifigan-22k": 22_050,
        "16k": 16_000,
        "24k": 24_000,
        "44k": 44_100,
        "48k": 48_000,
    }
    assert MEL_PRESETS["hifigan-22k"] == MelConfig()


def test_the_floor_is_the_logarithm_of_the_least_magnitude():
    assert MelConfig().floor_value == math.log(1e-5)
    assert MelConfig(log="log10").floor_value == math.log10(1e-5)


def test_derived_sizes():
    model = ModelConfig(hidden=384, layers=2)
    assert model.gate_rows == 1152
    assert model.history_frames == 6


def test_matrix_shapes_are_those_of_the_model():
    config = Config(model=ModelConfig(hidden=20, projection=12, channels=4, embedding=3))
    matrices = WaveRNN(config.model, config.mel).matrices()
    assert tuple(matrices) == PRUNABLE
    for name, weight in matrices.items():
        assert matrix_shape(config.model, name) == tuple(weight.shape)


def test_to_dict_holds_plain_values_only():
    table = Config(prune=PruneConfig(density={"R_u": 0.5})).to_dict()
    assert table["prune"]["density"] == {"R_u": 0.5}
    leaves = [v for part in table.values() if isinstance(part, dict) for v in part.values()]
    assert {type(leaf) for leaf in leaves} <= {int, float, bool, str, dict}
