import pytest

from wavernn import kernels
from wavernn.kernels import native, roofs
from wavernn.kernels.roofs import Roofs, Work, cache_bytes, level_of, roof

LIMITS = Roofs(
    "none",
    {"L1": 4000.0, "L2": 1000.0, "L3": 100.0, "DRAM": 10.0},
    {"float32": 5000.0, "int8": 50_000.0},
)
# a step reads 90 bytes of weights, 6 of their index and 4 for each stream
WORK = Work(weight_bytes=90, index_bytes=6, row_bytes=4, multiplies=100)


@pytest.fixture(autouse=True)
def small_caches(monkeypatch):
    monkeypatch.setattr(roofs, "cache_bytes", lambda: {"L1": 50, "L2": 96, "L3": 500})


def bound(work=WORK, format="int8", streams=1, threads=1, lanes=16, split=False):
    return roof(LIMITS, work, format, streams, threads, lanes, split)


def test_a_size_belongs_to_the_smallest_level_that_holds_it():
    assert [level_of(n) for n in (0, 50, 51, 96, 97, 500, 501)] == [
        *("L1", "L1", "L2", "L2", "L3", "L3", "DRAM")
    ]


def test_one_stream_reads_all_weights_for_a_sample():
    # 100 bytes from L2; 100 multiply-adds would allow 500
    assert bound() == (1000 / 100, "read")


def test_streams_share_what_is_read():
    # 96 + 4 x 4 bytes for 4 samples
    assert bound(streams=4) == (pytest.approx(4 * 1000 / 112), "read")


def test_multiplying_binds_many_streams():
    # 50 samples of 100 multiply-adds; reading would allow 16 for 160 bytes
    assert bound(format="float32", streams=16) == (50, "multiply")


def test_no_more_streams_share_than_a_loop_carries():
    assert bound(streams=8, lanes=4) == bound(streams=4)


def test_threads_have_caches_and_units_of_their_own():
    assert bound(streams=8, threads=2)[0] == pytest.approx(2 * bound(streams=4)[0])
    assert bound(format="float32", streams=32, threads=2) == (100, "multiply")
    # a thread without a stream does nothing
    assert bound(streams=1, threads=2) == bound(streams=1)


def test_split_rows_read_from_a_nearer_level():
    large = Work(weight_bytes=180, index_bytes=12, row_bytes=8, multiplies=100)
    assert bound(large) == (100 / 200, "read")
    # each of two threads reads a half from L2
    assert bound(large, threads=2, split=True) == (1000 / 100, "read")


def test_weights_beyond_the_caches_come_from_memory():
    assert bound(Work(900, 96, 4, 100)) == (10 / 1000, "read")


def test_a_window_is_long_enough_for_the_clock():
    asked = []

    def rate(rounds):
        asked.append(rounds)
        return 1e6 * len(asked)

    # 2 ms at 1e6 and more per second are 2000 and more
    assert roofs._best(rate, 10, 3) == 1e6 * len(asked)
    assert len(set(asked[-3:])) == 1
    assert asked[-1] * 10 >= 2000


def test_caches_are_known():
    levels = cache_bytes()
    assert list(levels) == ["L1", "L2", "L3"]
    assert 0 < levels["L1"] < levels["L2"] <= levels["L3"]


def test_a_system_that_doesnt_say_gets_usual_sizes(monkeypatch):
    monkeypatch.setattr(roofs.os, "sysconf", lambda name: 0)
    assert cache_bytes() == roofs.SIZES
    monkeypatch.delattr(roofs.os, "sysconf")
    monkeypatch.setattr(roofs.os, "sysconf", lambda name: int(name), raising=False)
    assert cache_bytes() == roofs.SIZES


def test_this_machine_has_limits(monkeypatch, absent):
    if reason := kernels.unavailable("cpu"):
        absent("cpu", reason)
    monkeypatch.setattr(roofs, "cache_bytes", lambda: {"L1": 1 << 14, "L2": 1 << 15, "L3": 1 << 18})
    monkeypatch.setattr(roofs, "L3_READ", 1 << 16)
    monkeypatch.setattr(roofs, "WINDOW_S", 1e-5)
    limits = roofs.measure.__wrapped__(native.isas()[-1], 2)
    assert list(limits.read) == ["L1", "L2", "L3", "DRAM"]
    assert list(limits.multiply) == ["float32", "int8"]
    assert all(rate > 0 for rate in (*limits.read.values(), *limits.multiply.values()))
