"""The rows of the suite as the tables of the pages, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wavernn.kernels.native import PARTS

Row = dict[str, Any]


def markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    """A table of cells, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))


def _loops(rows: list[Row], **wanted: Any) -> list[Row]:
    loops = (row for row in rows if "bench" not in row)
    return [row for row in loops if row.items() >= wanted.items()]


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["recipe"] for row in rows))


def _cell(rows: list[Row], **wanted: Any) -> str:
    found = _loops(rows, **wanted)
    if not found:
        return ""
    return f"{found[0]['realtime_factor']:.3g}x, {100 * found[0]['roof_share']:.0f} %"


def _best_isa(rows: list[Row]) -> str:
    return next((row["isa"] for row in rows if "bench" not in row), "")


def speed_table(rows: list[Row]) -> str:
    """Real-time factor and share of the roof of the default format, voices by streams."""
    main = _loops(rows, format="int8", threads=1, isa=_best_isa(rows))
    counts = sorted({row["streams"] for row in main})
    head = ["voice", "weights", "KB read", *(f"N = {n}" for n in counts)]
    lines = []
    for name in _names(main):
        one = _loops(main, recipe=name)[0]
        cells = [_cell(main, recipe=name, streams=n) for n in counts]
        lines.append([name, f"{one['nonzeros']:,}", f"{one['bytes'] / 1e3:.0f}", *cells])
    return markdown(head, lines)


def isa_table(rows: list[Row]) -> str:
    """Real-time factor and share of the roof by format and instruction set, for 1 and 8 streams."""
    loops = _loops(rows, threads=1)
    kinds = list(dict.fromkeys((row["format"], row["isa"]) for row in loops))
    names = [n for n in _names(loops) if len({r["isa"] for r in _loops(loops, recipe=n)}) > 1]
    counts = (1, 8)
    head = ["format", "instructions", *(f"{name}, N = {n}" for name in names for n in counts)]
    lines = []
    for format, isa in kinds:
        same = {"format": format, "isa": isa}
        cells = [_cell(loops, recipe=name, streams=n, **same) for name in names for n in counts]
        lines.append([format, isa, *cells])
    return markdown(head, lines) if names else ""


def threads_table(rows: list[Row]) -> str:
    """What a second thread brings: two batches, or one stream whose rows are split."""
    ratios = [row for row in rows if row.get("bench") == "threads"]
    head = ["voice", "format", "streams on 2 threads", "real-time factor, roof", "times one thread"]
    lines = []
    for row in ratios:
        same = {key: row[key] for key in ("recipe", "format", "streams", "threads")}
        lines.append(
            [
                row["recipe"],
                row["format"],
                str(row["streams"]),
                _cell(rows, **same),
                f"{row['ratio']:.2f}",
            ]
        )
    return markdown(head, lines) if lines else ""


def parts_table(rows: list[Row]) -> str:
    """Microseconds a step by part; the last two columns are their sum and the loop uncut."""
    main = _loops(rows, format="int8", threads=1, isa=_best_isa(rows))
    lines = []
    for row in main:
        if row["streams"] not in (1, 8):
            continue
        parts = [row["parts"][f"{part}_us"] for part in PARTS]
        numbers = [*parts, sum(parts), row["parts"]["step_us"]]
        lines.append([row["recipe"], str(row["streams"]), *(f"{us:.2f}" for us in numbers)])
    return markdown(["voice, us a step", "N", *PARTS, "sum", "uncut"], lines)


def machine_table(rows: list[Row]) -> str:
    """The roofs of one core."""
    lines = []
    for row in rows:
        if row.get("bench") != "machine":
            continue
        for isa, rates in row["roofs"].items():
            values = (*rates["read"].values(), *rates["multiply"].values())
            lines.append([isa, *(f"{value / 1e9:.3g}" for value in values)])
    reads = [f"{level}, GB/s" for level in ("L1", "L2", "L3", "DRAM")]
    return markdown(["instructions", *reads, "float32, GMAC/s", "int8, GMAC/s"], lines)


# what the costs' table says of a voice: words, key, form
_COSTS = (
    ("pack, ms", "pack_ms", "{:.0f}"),
    ("load packed, ms", "load_ms", "{:.1f}"),
    ("packed file, MB", "packed_bytes", "{:.2f}"),
    ("first sample, ms", "first_sample_ms", "{:.3f}"),
    ("a call, us", "call_overhead_us", "{:.1f}"),
    ("conditioner, us a frame", "conditioner_us_per_frame", "{:.0f}"),
    ("mel, us a frame", "mel_us_per_frame", "{:.0f}"),
    ("process with its libraries, MB", "libraries_mb", "{:.0f}"),
    ("at most, speaking a second, MB", "peak_mb", "{:.0f}"),
)


def costs_table(rows: list[Row]) -> str:
    """What is paid besides the loop, and the cost model beside what was measured."""
    costs = [row for row in rows if row.get("bench") == "costs"]
    if not costs:
        return ""
    lines = []
    for words, key, form in _COSTS:
        unit = 1e6 if key == "packed_bytes" else 1
        known = ("" if row[key] is None else form.format(row[key] / unit) for row in costs)
        lines.append([words, *known])
    for place, call in enumerate(costs[0]["calls"]):
        calls = [row["calls"][place] for row in costs]
        cells = [f"{call['measured_us']:.1f} / {call['predicted_us']:.1f}" for call in calls]
        lines.append([f"{call['samples']} samples: measured / predicted, us", *cells])
    return markdown(["", *(row["recipe"] for row in costs)], lines)


def tables(rows: list[Row]) -> str:
    """All tables, after a line on the machine that they are of."""
    versions = ", ".join(f"{name} {version}" for name, version in rows[0]["versions"].items())
    caption = f"One core of {rows[0]['machine']}, {versions}, commit {rows[0]['commit']}.\n"
    parts = (machine_table, speed_table, isa_table, threads_table, parts_table, costs_table)
    return "\n".join([caption, *(text for part in parts if (text := part(rows)))])
