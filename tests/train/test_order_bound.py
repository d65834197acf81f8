import sys

import numpy as np
import pytest

from wavernn.subscale import Order
from wavernn.train import order_bound
from wavernn.train.order_bound import PAST, PIECE, autocorrelation, excess_bits, seen

LAGS = np.arange(2 * PAST + 200)


def test_what_is_seen_is_what_the_order_allows():
    order = Order(4, 1)
    visible = order.visible(40)
    for lane in range(4):
        sample = 20 + lane
        offsets = seen(order, lane)
        inside = offsets[(sample + offsets >= 0) & (sample + offsets < 40)]
        assert sorted(sample + inside) == np.flatnonzero(visible[sample]).tolist()


def test_a_recursion_of_one_step_has_the_bits_that_are_known():
    a = 0.9
    first, last = excess_bits(a**LAGS, Order(2, 8))
    # from two steps back, and between two neighbours
    assert first == pytest.approx(0.5 * np.log2(1 + a * a), abs=1e-9)
    assert last == pytest.approx(-0.5 * np.log2(1 + a * a), abs=1e-9)


def test_noise_costs_the_same_in_any_order():
    r_K = np.zeros(len(LAGS))
    r_K[0] = 3.0
    assert np.abs(excess_bits(r_K, Order(8, 3))).max() < 1e-12


def test_without_a_horizon_nothing_is_lost():
    r_K = np.exp(-((LAGS / 3.0) ** 2)) * np.cos(0.9 * LAGS)
    r_K[0] += 0.01
    near, far = (excess_bits(r_K, Order(4, horizon)).mean() for horizon in (0, 32))
    assert near > 0.05
    assert abs(far) < 1e-3


def test_the_autocorrelation_is_that_of_the_signal():
    x_T = np.random.default_rng(0).standard_normal(PIECE)
    x_T[1:] += 0.5 * x_T[:-1]
    r_K = autocorrelation(x_T)
    assert r_K[1] / r_K[0] == pytest.approx(0.4, abs=0.07)


def test_it_prints_the_mean_and_each_sub_tensor(data, monkeypatch, capsys):
    arguments = ["order_bound", str(data), "--subscale", "4", "--rate", "8000", "--clips", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    order_bound.main()
    said = capsys.readouterr().out
    assert "bits/sample beyond the plain order" in said
    assert len(said.splitlines()[1].split(":")[1].split()) == 4
