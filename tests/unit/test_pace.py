from itertools import pairwise

import pytest

from wavernn.kernels.pace import LONGEST_PAUSE, LOOK, Pace


def calls(pace, tick_s, count, ticks=10):
    """Makes calls that take so many seconds a tick by their threads; the threads of each."""
    made = []
    for _ in range(count):
        threads = pace.threads()
        pace.note(threads, ticks, ticks * tick_s[threads])
        made.append(threads)
    return made


def test_one_thread_is_one_thread():
    assert calls(Pace(1), {1: 1.0}, 50) == [1] * 50


def test_before_anything_is_known_all_threads_run():
    assert [Pace(2).threads() for _ in range(3)] == [2] * 3


@pytest.mark.parametrize("faster", [1, 4])
def test_the_faster_choice_is_taken_and_the_other_looked_at_ever_more_rarely(faster):
    tick_s = {1: 2.0, 4: 2.0, faster: 1.0}
    made = calls(Pace(4), tick_s, 4000)
    assert made.count(faster) > 3600
    other = [i for i, threads in enumerate(made) if threads != faster]
    # but for the first calls, of which nothing was known
    looks = other[-(len(other) // LOOK) * LOOK :: LOOK]
    pauses = [b - a for a, b in pairwise(looks)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE + LOOK


def test_a_choice_that_has_become_the_faster_one_is_found():
    pace = Pace(2)
    assert calls(pace, {1: 1.0, 2: 3.0}, 1200)[-200:].count(1) > 160
    later = calls(pace, {1: 3.0, 2: 1.0}, 1200)
    assert later[-20:].count(2) >= 15


def test_one_slow_call_changes_nothing():
    pace = Pace(2)
    calls(pace, {1: 1.0, 2: 0.5}, 400)
    while pace.threads() != 2:
        pace.note(1, 10, 10.0)
    pace.note(2, 10, 20.0)
    assert calls(pace, {1: 1.0, 2: 0.5}, 400).count(2) > 320
