"""The report of a sweep: one HTML file with its plots inside, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from wavernn.train.sweep_grid import Plan
from wavernn.train.sweep_plots import (
    bits_against_nonzeros,
    bits_against_sparsity,
    bits_and_speed_against_samples,
    density_of_matrices,
    quality_against_speed,
)
from wavernn.train.sweep_table import CSV, Point, Row, points

# column, heading, digits after the point
COLUMNS = (
    ("subscale", "subscale", 0),
    ("fused", "fused", 0),
    ("nonzeros", "non-zeros", 0),
    ("bits_per_sample", "bits/sample", 3),
    ("bits_coarse", "coarse", 3),
    ("bits_fine", "fine", 3),
    ("mel_l1", "mel L1", 3),
    ("mr_stft", "MR-STFT", 3),
    ("pesq", "PESQ", 2),
    ("realtime_factor", "real-time factor", 2),
    ("parent_steps", "parent's steps", 0),
    ("steps", "steps", 0),
    ("train_seconds", "training, s", 0),
)

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: 0.15em 0.7em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto }
"""


def page(plan: Plan, rows: Sequence[Row]) -> str:
    """The report as HTML: the plots, and a table of means over seeds."""
    some = points(rows)
    # a parent has no budget of its own; it is shown where weights are
    ends = [point for point in some if point["kind"] != "parent"]
    done = len({row["run"] for row in rows})
    parts = [
        f"<h1>Sweep {escape(plan.name)}</h1>",
        f"<p>{done} of {len(plan.runs)} runs are finished. Bars are standard deviations over "
        f'seeds. Every row, with what repeats it, is in <a href="{CSV}">{CSV}</a>.</p>',
        _steps(ends),
        "<h2>Bits per sample against non-zero weights</h2>",
        bits_against_nonzeros(some),
    ]
    equal = bits_against_sparsity(ends)
    if equal is not None:
        parts += ["<h2>Bits per sample against sparsity at equal non-zeros</h2>", equal]
    factors = bits_and_speed_against_samples(ends)
    if factors is not None:
        parts += ["<h2>Bits per sample and speed against samples a step</h2>", factors]
    parts += [
        "<h2>Quality against speed</h2>",
        "<p>Copy synthesis of held-out clips; the line joins the points that no other beats in "
        "both. The real-time factor is that of one stream on the machine that judged the run.</p>",
        quality_against_speed(ends),
        "<h2>Density of each matrix</h2>",
        density_of_matrices(ends),
        "<h2>Means over seeds</h2>",
        _table(some),
    ]
    head = f'<meta charset="utf-8"><title>Sweep {escape(plan.name)}</title><style>{STYLE}</style>'
    return (
        f"<!doctype html>\n<html><head>{head}</head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _steps(ends: Sequence[Point]) -> str:
    """Says what was equal between the runs, and what wasn't."""
    totals = sorted({(int(p["parent_steps"]), int(p["steps"])) for p in ends})
    if not totals:
        return ""
    if len(totals) > 1:
        listed = ", ".join(f"{parent} + {own}" for parent, own in totals)
        return (
            "<p>Runs were <strong>not trained equally long</strong>: optimizer steps of the parent "
            f"and of the run are {listed}.</p>"
        )
    parent, own = totals[0]
    if not parent:
        return f"<p>Every run was trained from the start for {own} optimizer steps.</p>"
    return (
        f"<p>Every run has seen {parent + own} optimizer steps: {parent} as a dense parent of its "
        f"own size, which runs of equal size and seed share, and {own} of its own, with a new "
        "optimizer.</p>"
    )


def _table(some: Sequence[Point]) -> str:
    headings = "".join(f"<th>{heading}</th>" for _, heading, _ in COLUMNS)
    lines = [f"<tr><th>run</th><th>seeds</th>{headings}</tr>"]
    for point in some:
        cells = "".join(f"<td>{_cell(point, column, n)}</td>" for column, _, n in COLUMNS)
        lines.append(f"<tr><td>{escape(point.name)}</td><td>{len(point.rows)}</td>{cells}</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def _cell(point: Point, column: str, digits: int) -> str:
    value, deviation = point.mean(column), point.deviation(column)
    if value is None:
        return ""
    bars = f" ± {deviation:.{digits}f}" if deviation and column != "nonzeros" else ""
    return f"{value:.{digits}f}{bars}"
