"""The rows of `device_bench` as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def _plain(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key, ""))


def _number(key: str, digits: int) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:,.{digits}f}"


def _either(key: str, digits: int) -> Callable[[Row], str]:
    number = _number(key, digits)
    return lambda row: number(row) if key in row else ""


def _whose(row: Row) -> str:
    factor = f", U = {row['subscale']}" if "subscale" in row else ""
    return f"{row['kernel']}, {row['voice']}{factor}"


TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "device": (
        "Device",
        (
            ("device", _plain("device")),
            ("multiprocessors", _plain("multiprocessors")),
            ("clocks", _plain("clocks")),
            ("versions", lambda row: ", ".join(f"{k} {v}" for k, v in row["versions"].items())),
        ),
    ),
    "exchange": (
        "Exchange of 512 values or 256 sums",
        (
            ("protocol", _plain("protocol")),
            ("programs", _plain("programs")),
            ("ns", _number("ns", 0)),
            ("wrong", _plain("wrong")),
        ),
    ),
    "judge": (
        "The graph in float64 against the reference on the CPU",
        (("voice", _plain("voice")), ("codes equal", _plain("same")), ("state", _plain("h"))),
    ),
    "correct": (
        "Draws against float64: the graph, or the reference for subscale voices",
        (
            ("kernel", _whose),
            ("samples", _plain("samples")),
            ("draws", _plain("draws")),
            ("other level", _plain("on_edges")),
            ("furthest from its edge", _number("furthest", 6)),
            ("first [stream, sample, half]", _plain("first")),
            ("mean of the largest probability", _number("likeliest", 2)),
            ("right", _plain("ok")),
        ),
    ),
    "same": (
        "Bit-equal",
        (("kernel", _whose), ("in chunks", _plain("chunks")), ("alone", _plain("alone"))),
    ),
    "speed": (
        "Speed at 24 kHz, data on the device",
        (
            ("kernel", _whose),
            ("lanes", _plain("lanes")),
            ("us a step", _number("step_us", 2)),
            ("samples/s", _number("samples_per_s", 0)),
            ("times real time, each", _number("realtime_factor", 2)),
            ("streams at real time", _number("realtime_streams", 0)),
            ("launch, of 10 ms", lambda row: f"{100 * row['launch_share']:.1f} %"),
        ),
    ),
    "utterance": (
        "One utterance at 24 kHz: U samples a tick, data on the device; from host to host",
        (
            ("voice", _plain("voice")),
            ("U", _plain("subscale")),
            ("kernel", lambda row: str(row.get("plain", row["kernel"]))),
            ("programs", _plain("programs")),
            ("us a tick", _number("tick_us", 2)),
            ("samples/s", _number("samples_per_s", 0)),
            ("times real time", _number("realtime_factor", 1)),
            ("beside U = 1", _number("beside", 2)),
            ("samples/s to the host", _either("spoken_samples_per_s", 0)),
        ),
    ),
    "chunk": (
        "Latency of a chunk, from host to host",
        (
            ("kernel", _whose),
            ("lanes", _plain("lanes")),
            ("samples", _plain("samples")),
            ("p50 ms", _number("p50_ms", 2)),
            ("p99 ms", _number("p99_ms", 2)),
        ),
    ),
    "code": (
        "Machine code as loaded",
        (
            ("kernel", _whose),
            ("function", _plain("function")),
            ("registers", _plain("registers")),
            ("spills", _plain("spills")),
            ("shared memory", _plain("shared")),
        ),
    ),
    "clocks": ("Clocks after it", (("kernel", _whose), ("clocks", _plain("clocks")))),
    "absent": ("Not made for", (("kernel", _whose), ("reason", _plain("reason")))),
    "failure": ("Failed", (("stage", _whose), ("reason", _plain("reason")))),
}


def tables(rows: Iterable[Row]) -> str:
    """A table for each kind of row that there is, in the order of TABLES."""
    found, parts = list(rows), []
    for kind, (title, columns) in TABLES.items():
        chosen = [row for row in found if row["bench"] == kind]
        if not chosen:
            continue
        lines = [f"## {title}", ""]
        lines.append("| " + " | ".join(name for name, _ in columns) + " |")
        lines.append("|---" * len(columns) + "|")
        for row in chosen:
            cells = [show(row).replace("|", "/") for _, show in columns]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    wrong = sum(not row["ok"] for row in found)
    return "\n\n".join([*parts, f"{len(found)} rows, {wrong} failed."])
