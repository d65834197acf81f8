import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wavernn.subscale import Order, deinterleave, interleave

factors, horizons, lengths = st.integers(1, 17), st.integers(0, 9), st.integers(0, 120)


@given(factors, lengths, st.integers(1, 3))
def test_interleaving_is_undone(U, L, B):
    x_BL = torch.arange(1, B * L + 1).view(B, L)
    x_BUI = interleave(x_BL, U)
    assert x_BUI.shape == (B, U, -(-L // U))
    assert torch.equal(deinterleave(x_BUI, L), x_BL)
    # padding, and nothing else, is the fill
    assert (x_BUI == 0).sum() == B * (x_BUI[0].numel() - L)


def test_element_s_i_is_sample_u_i_plus_s():
    x_UI = interleave(torch.arange(10.0), 4, fill=-1)
    assert x_UI.tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, -1], [3, 7, -1]]
    assert deinterleave(x_UI, 10).tolist() == list(range(10))


@pytest.mark.parametrize("samples", [-1, 5, 8, 13])
def test_a_length_that_the_sub_tensors_dont_have_is_refused(samples):
    with pytest.raises(ValueError, match=f"4 x 3 sub-tensors don't come from {samples} samples"):
        deinterleave(torch.zeros(4, 3), samples)


def test_sub_tensors_need_two_axes():
    with pytest.raises(ValueError, match=r"shape \[..., U, I\], got \[3\]"):
        deinterleave(torch.zeros(3), 3)


@given(factors, horizons, lengths)
def test_every_sample_is_made_once_at_its_tick_by_its_lane(U, F, L):
    order, made = Order(U, F), []
    for tick in range(order.ticks(L)):
        row_U = order.samples_at(tick, L)
        assert row_U.shape == (U,)
        for lane, sample in enumerate(row_U.tolist()):
            if sample >= 0:
                assert order.tick(sample) == tick
                assert order.place(sample) == (lane, tick - lane * (F + 1))
                made.append(sample)
    assert sorted(made) == list(range(L))


@given(factors, horizons, st.integers(1, 120))
def test_the_number_of_ticks_is_the_last_tick_that_makes_something(U, F, L):
    order = Order(U, F)
    assert order.ticks(L) == 1 + max(order.tick(sample) for sample in range(L))


@given(factors, horizons, lengths)
def test_all_that_a_sample_sees_was_made_before_it(U, F, L):
    order = Order(U, F)
    tick_L = np.array([order.tick(sample) for sample in range(L)], dtype=int)
    seer, seen = np.nonzero(order.visible(L))
    assert (tick_L[seen] < tick_L[seer]).all()


@given(factors, horizons, st.integers(0, 60))
def test_the_mask_is_the_rule_element_by_element(U, F, L):
    mask_LL = Order(U, F).visible(L)
    assert mask_LL.shape == (L, L)
    for n in range(L):
        s, i = n % U, n // U
        own = {U * j + s for j in range(i)}
        earlier = {U * k + z for z in range(s) for k in range(i + F + 1)}
        assert set(np.flatnonzero(mask_LL[n]).tolist()) == {m for m in own | earlier if m < L}


@given(factors, horizons)
def test_a_smaller_lag_would_need_what_is_not_made_yet(U, F):
    order = Order(U, F)
    seer, seen = np.nonzero(order.visible(3 * U * (F + 1)))
    # with a lag of F steps, a sample and what it sees at the horizon fall into one tick
    late = seen // U + (seen % U) * F >= seer // U + (seer % U) * F
    assert late.any() == (U > 1)


@given(factors, horizons, lengths)
def test_the_mask_orders_all_samples(U, F, L):
    # any two samples see one another in one direction at most, and no sample itself
    mask_LL = Order(U, F).visible(L)
    assert not (mask_LL & mask_LL.T).any()
    # what is seen of a length is seen of a longer one
    assert (Order(U, F).visible(L + U)[:L, :L] == mask_LL).all()


@given(factors, horizons, st.integers(1, 120))
def test_lookahead_is_the_furthest_that_a_stream_runs_ahead(U, F, L):
    order = Order(U, F)
    # long enough that the end doesn't cut the furthest short
    L += U * (U * (F + 1) + 2)
    tick_L = np.array([order.tick(sample) for sample in range(L)])
    due_L = np.maximum.accumulate(tick_L)
    assert due_L.tolist() == [order.due(sample) for sample in range(L)]
    newest = [order.samples_at(int(tick)).max() for tick in due_L]
    assert max(np.array(newest) - np.arange(L)) == order.lookahead_samples


@given(factors, horizons, st.integers(0, 300))
def test_what_is_made_in_order_is_what_is_due(U, F, ticks):
    order = Order(U, F)
    made = order.made(ticks)
    assert all(order.due(n) < ticks for n in range(max(made - 2 * U, 0), made))
    assert order.due(made) >= ticks


@given(horizons, lengths)
def test_one_sub_tensor_is_the_plain_model(F, L):
    order = Order(1, F)
    assert order.ticks(L) == L
    assert order.lookahead_samples == 0
    assert [order.samples_at(t, L).tolist() for t in range(L)] == [[t] for t in range(L)]
    assert (order.visible(L) == np.tri(L, k=-1, dtype=bool)).all()


def test_the_streaming_model_of_16_lanes():
    order = Order(16, 8)
    assert order.lag_steps == 9
    # 2145 samples are 89 ms at 24 kHz
    assert order.lookahead_samples == 15 * (16 * 9 - 1) == 2145
    # a second at 24 kHz
    assert order.ticks(24_000) == 1500 + 15 * 9


def test_lanes_without_a_sample_are_marked():
    order = Order(3, 1)
    rows = [order.samples_at(tick, 8).tolist() for tick in range(order.ticks(8))]
    assert rows == [[0, -1, -1], [3, -1, -1], [6, 1, -1], [-1, 4, -1], [-1, 7, 2], [-1, -1, 5]]
    assert order.samples_at(3).tolist() == [9, 4, -1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Order(0, 1), "factor must be at least 1, got 0"),
        (lambda: Order(4, -1), "the horizon must not be negative, got -1"),
        (lambda: interleave(torch.zeros(3), 0), "factor must be at least 1, got 0"),
        (lambda: Order(4, 1).tick(-1), "a sample must not be negative, got -1"),
        (lambda: Order(4, 1).samples_at(-2), "a tick must not be negative, got -2"),
        (lambda: Order(4, 1).samples_at(0, -3), "the number of samples must not be negative"),
        (lambda: Order(4, 1).made(-1), "the number of ticks must not be negative, got -1"),
        (lambda: Order(4, 1).ticks(-1), "the number of samples must not be negative, got -1"),
        (lambda: Order(4, 1).visible(-1), "the number of samples must not be negative, got -1"),
    ],
)
def test_impossible_numbers_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
