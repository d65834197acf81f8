"""The recipes over numbers of streams, threads, formats and instruction sets: what the pages show.

What is measured is data: voices as recipes with overrides, and the work on each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from wavernn import recipe as recipes
from wavernn.checkpoint import Checkpoint
from wavernn.kernels import native, roofs
from wavernn.kernels.bench import machine, random_voice
from wavernn.kernels.bench_costs import bench_costs
from wavernn.kernels.bench_cpu import WINDOWS, front_us, measure
from wavernn.kernels.cpu import Synthesizer

STREAMS = (1, 2, 4, 8, 16)
HEADS = ("O1", "O2", "O3", "O4")


def _density(names: tuple[str, ...], density: float) -> tuple[str, ...]:
    return tuple(f"prune.density.{name}={density}" for name in names)


_BLOCKS = ("prune.block_rows=16", "prune.block_columns=4")
_DENSE, _TENTH = _density(HEADS, 1.0), _density(HEADS, 0.1)
_R3 = _density(("R_u", "R_r", "R_e"), 0.03)
# name, recipe, overrides; a recipe's heads are pruned as it says, dense, or to what the name says
VOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sparse-384": ("sparse-384", ()),
    "sparse-384, heads 10 %": ("sparse-384", _TENTH),
    "sparse-384, heads dense": ("sparse-384", _DENSE),
    "sparse-512": ("sparse-512", ()),
    "sparse-512, heads dense": ("sparse-512", _DENSE),
    "sparse-1024": ("sparse-1024", ()),
    "sparse-1024, heads dense": ("sparse-1024", _DENSE),
    "sparse-2048": ("sparse-2048", ()),
    "sparse-2048, R 3 %, heads 10 %": ("sparse-2048", (*_R3, *_TENTH)),
    "sparse-2048, heads dense": ("sparse-2048", _DENSE),
    "dense-896": ("dense-896", ()),
    "dense-896, heads 10 %": ("dense-896", (*_BLOCKS, *_TENTH)),
}
# those that instruction sets, formats and threads are compared on
CHOSEN = ("sparse-384, heads 10 %", "sparse-1024", "sparse-2048, R 3 %, heads 10 %", "dense-896")
COSTS = ("sparse-384", "sparse-1024")


class Work(NamedTuple):
    """One row: streams of a voice on threads, in a format, on an instruction set or the best."""

    voice: str
    format: str
    threads: int
    streams: int
    isa: str | None = None


def work_items(isas: tuple[str, ...], quick: bool = False) -> tuple[Work, ...]:
    """The rows in the order in which they are measured, those of a voice and format together."""
    if quick:
        some = ("sparse-384", "sparse-1024")
        return tuple(Work(voice, "int8", 1, streams) for voice in some for streams in (1, 8))
    items = []
    for voice in VOICES:
        items += [Work(voice, "int8", 1, streams) for streams in STREAMS]
        if voice in CHOSEN:
            items += [Work(voice, "int8", 1, n, isa) for isa in isas[1:] for n in (1, 8)]
            # two batches, and one stream whose rows are split where the weights exceed L2
            items += [Work(voice, "int8", 2, n) for n in (1, 16)]
            items += [Work(voice, "float32", 1, n, isa) for isa in isas for n in (1, 8)]
            items += [Work(voice, "float32", 2, n) for n in (1, 16)]
    return tuple(items)


def voice_of(name: str) -> Checkpoint:
    """A voice of VOICES, of random weights, at 24 kHz."""
    recipe, overrides = VOICES[name]
    named = f'name="{name}"'
    return random_voice(recipes.load(recipe, ['mel="24k"', *overrides, named]))


def machine_row(isas: tuple[str, ...]) -> dict[str, Any]:
    """The limits of one core: bytes read and multiply-adds done per second."""
    limits = [roofs.measure(isa) for isa in isas]
    rates = {r.isa: {"read": r.read, "multiply": r.multiply} for r in limits}
    return {"bench": "machine", "caches": roofs.cache_bytes(), "roofs": rates}


def batches_row(rows: list[dict[str, Any]], two: dict[str, Any]) -> dict[str, Any] | None:
    """How much more two threads make, each with as many streams as one had."""
    streams = max(two["streams"] // 2, 1)
    same = {key: two[key] for key in ("recipe", "format", "isa")} | {"threads": 1}
    alone = [r for r in rows if r.items() >= (same | {"streams": streams}).items()]
    if not alone:
        return None
    ratio = two["samples_per_s"] / alone[0]["samples_per_s"]
    return {"bench": "threads", **same, "threads": 2, "streams": two["streams"], "ratio": ratio}


def bench_suite(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Measures all of it, row by row; the rows of the loop have the keys of `bench`.

    Raises BackendUnavailable where there is no native engine.
    """
    isas = native.isas()
    about = machine()
    yield about | machine_row(isas[:1] if quick else isas)
    windows = WINDOWS // 5 if quick else WINDOWS
    for name, of_voice in groupby(work_items(isas, quick), lambda work: work.voice):
        voice = voice_of(name)
        front, rows = front_us(voice), list[dict[str, Any]]()
        items = list(of_voice)
        for format, threads in dict.fromkeys((work.format, work.threads) for work in items):
            most = max(work.streams for work in items if work[1:3] == (format, threads))
            synthesizer = Synthesizer(voice, most, format, threads)
            for work in items:
                if work[1:3] != (format, threads):
                    continue
                synthesizer.isa = work.isa or isas[0]
                rows.append(measure(voice, synthesizer, work.streams, windows, front))
                yield about | rows[-1]
                if threads == 2 and (ratio := batches_row(rows, rows[-1])):
                    yield about | ratio
        if name in COSTS:
            yield about | bench_costs(voice)
