import json
import re

import numpy as np
import pytest
import torch

from wavernn import checkpoint, kernels
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.kernels import bench_costs, bench_cpu, bench_suite, bench_table, native, roofs, tune
from wavernn.kernels.bench import bench, random_voice
from wavernn.kernels.native import PARTS
from wavernn.kernels.roofs import Roofs

CONFIG = Config(
    "small",
    MelConfig(bands=5),
    ModelConfig(hidden=64, projection=32, embedding=2, channels=4, layers=0),
    PruneConfig(16, 4, density={"R_u": 0.5, "R_r": 0.5, "R_e": 0.25, "O1": 0.5}),
)


@pytest.fixture(scope="module")
def voice():
    return random_voice(CONFIG)


@pytest.fixture(autouse=True)
def quick(monkeypatch, absent):
    """Short windows beside limits that needn't be measured."""
    if reason := kernels.unavailable("cpu"):
        absent("cpu", reason)
    read = dict.fromkeys(("L1", "L2", "L3", "DRAM"), 1e9)
    limits = {"float32": 1e9, "int8": 2e9}
    monkeypatch.setattr(roofs, "measure", lambda isa: Roofs(isa, read, limits))
    monkeypatch.setattr(bench_cpu, "WINDOW_S", 1e-4)


def synthesizer(voice, streams=1, format="int8", threads=1):
    return kernels.load("cpu")(voice, streams, format, threads)


@pytest.mark.parametrize(
    ("sample_us", "samples"),
    # 2000 us hold 31 steps of 64 us, 3 of 640, one of 3200; none of 4480, but a quarter of it
    [(1, 31 * 64), (10, 3 * 64), (50, 64), (70, 16), (300, 4), (5000, 1)],
)
def test_a_window_is_of_whole_steps_or_an_even_part(monkeypatch, sample_us, samples):
    monkeypatch.setattr(bench_cpu, "WINDOW_S", 2e-3)
    assert bench_cpu.window_samples(1e-6 * sample_us, 64) == samples


def test_gate_input_is_each_streams_own(voice):
    rows = bench_cpu.gate_rows(voice, 3, 150)
    assert rows.shape == (3, 150, 192)
    assert rows.is_contiguous()
    assert torch.equal(rows[0], rows[2])
    # 32 frames of 4 rows, over and over
    assert torch.equal(rows[0, :22], rows[0, 128:])


def test_only_some_streams_of_a_synthesizer_are_timed(voice):
    engine = synthesizer(voice, 4)
    timed = bench_cpu.Windows(voice, engine, 3)
    assert (timed.times(10, 5) > 0).all()
    # five windows and two that don't count
    assert engine.state()["sample"].tolist() == [70, 70, 70, 0]


def test_parts_sum_to_a_step(voice, monkeypatch):
    clock = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(bench_cpu.time, "perf_counter", lambda: next(clock))
    engine = synthesizer(voice)
    parts = bench_cpu.Windows(voice, engine, 1).parts(50, 2)
    assert list(parts) == [f"{part}_us" for part in PARTS]
    assert sum(parts.values()) == pytest.approx(0.5e6 / 50)
    assert engine.ticks is None


@pytest.mark.parametrize(
    ("format", "isa"), [("int8", "avx512vnni"), ("int8", "avx2"), ("float32", "avx512vnni")]
)
def test_work_by_hand(voice, format, isa):
    engine = synthesizer(voice, format=format)
    engine.isa = isa
    work = bench_cpu.work_of(engine, 64)
    # half of u and r, a quarter of e, each 64 x 64; half of O1 and all of O3, 32 x 32; O2 and O4
    weights = 2048 + 2048 + 1024 + 512 + 1024 + 2 * 8192
    # e and O2 are words in int8
    words = 1024 + 8192
    assert work.weight_bytes == (weights + words if format == "int8" else 4 * weights)
    twice = format == "int8" and isa == "avx512vnni"
    assert work.multiplies == weights + twice * words
    # two rows of 192, one of 96
    assert work.row_bytes == (2 if format == "int8" else 4) * 480
    blocks = (5120 + 512) // (64 if format == "int8" else 16)
    assert work.index_bytes == 2 * blocks


@pytest.mark.parametrize(("format", "threads"), [("int8", 1), ("float32", 2)])
def test_a_row_fits_itself(voice, format, threads):
    row = bench(voice, "cpu", 2, format=format, threads=threads)
    assert json.loads(json.dumps(row)) == row
    assert (row["backend"], row["format"], row["threads"]) == ("cpu", format, threads)
    assert row["isa"] == native.isa()
    assert 0 < row["p10"] <= row["p50_ms"] <= row["p99_ms"]
    samples = row["chunk_ms"] * 22.05
    # the best window is at least as fast as a tenth of them
    assert row["samples_per_s"] >= 2 * samples / row["p10"] * 1e3 * (1 - 1e-9)
    assert row["realtime_factor"] == pytest.approx(row["samples_per_s"] / 22_050)
    assert row["roof_share"] == pytest.approx(row["samples_per_s"] / row["roof"])
    assert row["bound"] in ("read", "multiply")
    assert row["parts"]["step_us"] == pytest.approx(2e6 / row["samples_per_s"])
    named = {"step_us", "conditioner_us", "mel_us"} | {f"{p}_us" for p in PARTS if threads == 1}
    assert set(row["parts"]) == named
    keys = list(bench(voice, "reference", 1, seconds=0.05))
    assert list(row) == keys


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    with bench_cpu.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_cost_of_a_call_by_hand():
    # 10 us a call and 2 a sample, but long calls a little more
    costs = bench_costs.call_costs({1: 12.0, 24: 60.0, 240: 490.0, 2400: 4900.0})
    assert costs["step_us"] == pytest.approx(2)
    assert costs["call_overhead_us"] == pytest.approx(10)
    assert [c["predicted_us"] for c in costs["calls"]] == pytest.approx([12, 58, 490, 4810])
    assert [c["measured_us"] for c in costs["calls"]] == [12, 60, 490, 4900]


def test_costs_are_measured(voice, monkeypatch):
    monkeypatch.setattr(bench_costs, "peak_memory", lambda *_: {"libraries_mb": 1, "peak_mb": None})
    row = bench_costs.bench_costs(voice, windows=2)
    assert row["bench"] == "costs"
    positive = "packed_bytes pack_ms load_ms first_sample_ms step_us conditioner_us_per_frame"
    assert all(row[key] > 0 for key in positive.split())
    assert [call["samples"] for call in row["calls"]] == [1, 24, 240, 2400]


def test_memory_is_measured_in_a_process_that_opens_the_voice(voice, tmp_path, capsys):
    checkpoint.save(tmp_path / "a.safetensors", voice)
    bench_costs.grow(str(tmp_path / "a.safetensors"), "int8")
    before, most = json.loads(capsys.readouterr().out)
    assert before is None or 10 < before <= most
    code = bench_costs.CHILD.format(path="a", format="int8")
    assert code == ("from wavernn.kernels.bench_costs import grow; grow('a', 'int8')")


def test_every_recipe_is_in_the_suite_with_both_kinds_of_heads():
    recipes = {recipe for recipe, _ in bench_suite.VOICES.values()}
    assert recipes == {"sparse-384", "sparse-512", "sparse-1024", "sparse-2048", "dense-896"}
    items = bench_suite.work_items(("fast", "slow"))
    assert len(items) == len(set(items))
    for voice in bench_suite.VOICES:
        streams = [w.streams for w in items if w[:3] == (voice, "int8", 1) and w.isa is None]
        assert streams == [1, 2, 4, 8, 16]
    for voice in bench_suite.CHOSEN:
        kinds = {w[1:3] for w in items if w.voice == voice}
        assert kinds == {(f, t) for f in ("int8", "float32") for t in (1, 2)}
        assert {w.isa for w in items if w.voice == voice} == {None, "fast", "slow"}
    assert set(bench_suite.COSTS) | set(bench_suite.CHOSEN) <= set(bench_suite.VOICES)


def test_voices_of_the_suite_are_as_they_are_called():
    voice = bench_suite.voice_of("sparse-384, heads 10 %")
    assert voice.config.name == "sparse-384, heads 10 %"
    assert voice.config.mel.rate_hz == 24_000
    density = voice.config.prune.density
    assert [density[f"O{i}"] for i in (1, 2, 3, 4)] == [0.1] * 4
    assert density["R_u"] == 0.1


@pytest.fixture
def rows(monkeypatch):
    """A suite of two small voices."""
    small = ("tiny", ("model.hidden=32", "model.projection=16"))
    monkeypatch.setattr(bench_suite, "VOICES", {"one": small, "two": small})
    monkeypatch.setattr(bench_suite, "CHOSEN", ("two",))
    monkeypatch.setattr(bench_suite, "COSTS", ("one",))
    monkeypatch.setattr(bench_suite, "WINDOWS", 3)
    monkeypatch.setattr(bench_suite, "bench_costs", lambda voice: {"bench": "costs"} | COSTS)
    one = native.isas()[:1]
    monkeypatch.setattr(native, "isas", lambda: one)
    return list(bench_suite.bench_suite())


COSTS = bench_costs.call_costs({1: 12.0, 24: 60.0, 240: 490.0, 2400: 4900.0}) | {
    "recipe": "one",
    **dict.fromkeys(("pack_ms", "load_ms", "first_sample_ms", "packed_bytes"), 2e6),
    **dict.fromkeys(("conditioner_us_per_frame", "mel_us_per_frame"), 3.0),
    "libraries_mb": 100.0,
    "peak_mb": None,
}


def test_the_suite_and_its_tables(rows):
    assert rows[0]["bench"] == "machine"
    assert all(row["commit"] == rows[0]["commit"] for row in rows)
    kinds = [row.get("bench", "loop") for row in rows]
    assert kinds.count("costs") == 1
    # of each format one stream and two batches of eight
    ratios = [(r["format"], r["streams"]) for r in rows if r.get("bench") == "threads"]
    assert ratios == [(f, n) for f in ("int8", "float32") for n in (1, 16)]
    text = bench_table.tables(rows)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    heads = [table.splitlines()[0].split("|")[1].strip() for table in tables]
    assert heads == ["instructions", "voice", "voice", "voice, us a step", ""]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "| N = 16 |" in tables[1]
    assert "| 24 samples: measured / predicted, us | 60.0 / 58.0 |" in tables[-1]
    assert "| at most, speaking a second, MB |  |" in tables[-1]


def test_a_table_of_instruction_sets_needs_two_of_them(rows):
    assert bench_table.isa_table(rows) == ""
    more = [row | {"isa": "other"} for row in rows if row.get("recipe") == "two"]
    head, _, *lines = bench_table.isa_table([*rows, *more]).splitlines()
    assert head == "| format | instructions | two, N = 1 | two, N = 8 |"
    assert len(lines) == 4


def test_a_ratio_is_of_the_same_work():
    one = {"recipe": "a", "format": "int8", "isa": "x", "threads": 1, "streams": 8}
    two = one | {"threads": 2, "streams": 16, "samples_per_s": 36.0}
    alone = one | {"samples_per_s": 20.0}
    row = bench_suite.batches_row([alone | {"format": "float32"}, alone, two], two)
    assert row["ratio"] == 1.8
    assert bench_suite.batches_row([alone | {"isa": "y"}, two], two) is None


@pytest.mark.parametrize(("each", "streams"), [([9, 3, 1.3, 1.1], 6), ([1.1], 0)])
def test_streams_are_added_until_real_time_is_lost(voice, monkeypatch, each, streams):
    rates = iter(each)

    class Fixed:
        def __init__(self, voice, synthesizer, streams):
            self.streams, self.rate = streams, next(rates) * 22_050

        def samples(self):
            return 64

        def times(self, samples, count):
            return np.full(count, samples / self.rate)

    monkeypatch.setattr(tune, "Windows", Fixed)
    rows = list(tune.tune(voice, "cpu", threads=2))
    assert [row["streams"] for row in rows] == [2, 4, 6, 8][: len(each)]
    assert [row["realtime_factor_per_stream"] for row in rows] == pytest.approx(each)
    assert rows[0]["realtime_factor"] == pytest.approx(2 * each[0])
    # 10 ms are 220 samples
    assert rows[0]["p50_ms"] == pytest.approx(1e3 * 220 / 22_050 / each[0])
    said = tune.answer(rows)
    assert (said["streams"], said["streams_per_core"]) == (streams, streams // 2)
    assert said["too_many"] == rows[-1]["streams"]
    assert tune.sentence(rows[0]).startswith("2 streams: ")


def test_a_curve_that_never_ends_has_no_too_many():
    row = {"real_time": True, "streams": 512, "threads": 2}
    assert tune.answer([row])["too_many"] is None
    assert tune.answer([row])["streams_per_core"] == 256


def test_any_backend_can_be_tuned(voice, monkeypatch):
    monkeypatch.setattr(tune, "SIZES", (1,))
    (row,) = tune.tune(voice, "reference", windows=2)
    assert row["samples_per_s"] > 0
