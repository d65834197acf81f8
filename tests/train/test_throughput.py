import pytest
import torch

from wavernn.model import WaveRNN
from wavernn.train import throughput
from wavernn.train.throughput import bench_training, matrix_rate, operations_per_sample


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_says_how_fast_a_recipe_trains(quick, monkeypatch, precision):
    monkeypatch.setattr(throughput, "SIDE", 256)
    row = bench_training(quick(f"train.precision={precision}"), steps=2)
    assert row["recipe"] == "quick"
    assert row["precision"] == precision
    assert row["threads"] == torch.get_num_threads()
    assert row["audio_seconds_per_s"] == row["samples_per_s"] / 8_000
    used = row["samples_per_s"] * row["operations_per_sample"]
    assert row["matrix_share"] == pytest.approx(used / row["matrix_rate"])
    assert 0 < row["matrix_share"] < 1


def test_operations_are_three_products_a_weight(quick):
    config = quick()
    model = WaveRNN(config.model, config.mel)
    H, P, E, C, M = 64, 32, 4, 8, 16
    sample = 3 * H * (H + 3 * E) + 2 * P * H // 2 + 2 * 256 * P
    # weights and biases of enter, one layer, spread; once a frame of 64 samples
    frame = C * (M * 5 + 1) + C * (C * 3 + 1) + C * (C + 1) + 2 * C * (C + 1)
    # once for each of two conditioning vectors
    gates = 2 * 3 * H * C
    assert operations_per_sample(model) == 6 * (sample + (frame + gates) / 64)


def test_the_rate_of_a_matrix_product_is_its_operations_per_second(monkeypatch):
    monkeypatch.setattr(throughput, "SIDE", 64)
    times = iter([0.0, 1.0, 5.0, 7.0, 10.0, 14.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))
    rate = matrix_rate(torch.float32, torch.device("cpu"), repeats=3)
    assert rate == 2 * 64**3 / 2.0
