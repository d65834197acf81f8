"""The plots of a sweep as SVG text: the same table gives the same text."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wavernn.config import PRUNABLE, PRUNABLE_CONTEXT
from wavernn.train.sweep_table import Point, budgets, front

# column, label, whether higher is better
METRICS = (
    ("mel_l1", "mel L1", False),
    ("mr_stft", "multi-resolution STFT", False),
    ("pesq", "PESQ", True),
)
# one fewer than there are colours, so that many series still differ
MARKERS = "osD^vPX<>"


def _svg(figure: Figure) -> str:
    # names of clip paths and glyphs would be random
    with matplotlib.rc_context({"svg.hashsalt": "wavernn", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", bbox_inches="tight", metadata=nothing)
    # without the prolog, which doesn't belong within a page
    return text.getvalue()[text.getvalue().index("<svg") :]


def _empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes)


def _series(
    axes: Axes,
    label: str,
    some: Sequence[tuple[float, Point]],
    column: str,
    index: int,
    line: str = "-",
) -> None:
    """Draws means over seeds with their standard deviation as bars."""
    known = [(x, p) for x, p in some if p.mean(column) is not None]
    axes.errorbar(
        [x for x, _ in known],
        [p.mean(column) or 0.0 for _, p in known],
        [p.deviation(column) for _, p in known],
        marker=MARKERS[index % len(MARKERS)],
        color=f"C{index % 10}",
        linestyle=line,
        capsize=3,
        label=label,
    )


def bits_against_nonzeros(points: Sequence[Point]) -> str:
    """Bits/sample against weights, a line for each sparsity and block shape."""
    figure = Figure((8, 5))
    axes = figure.subplots()
    lines: dict[str, list[Point]] = {}
    for point in points:
        sparsity = "" if point.shape == "dense" else f"{point.sparsity} % "
        start = "parent, " if point["kind"] == "parent" else ""
        lines.setdefault(f"{start}{sparsity}{point.shape}", []).append(point)
    for index, (label, some) in enumerate(lines.items()):
        placed = sorted(((float(p["nonzeros"]), p) for p in some), key=lambda pair: pair[0])
        _series(axes, label, placed, "bits_per_sample", index)
    flac = [p["flac_bits"] for p in points]
    if flac:
        axes.axhline(flac[0], color="grey", linestyle=":", label="FLAC")
        axes.set_xscale("log")
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        _empty(axes)
    axes.set_xlabel("non-zero weights of R and heads")
    axes.set_ylabel("bits per sample, held-out clips")
    return _svg(figure)


def bits_against_sparsity(points: Sequence[Point]) -> str | None:
    """Bits/sample against sparsity at equal weights; None where no two points have as many."""
    several = [
        group
        for group in budgets(p for p in points if p["kind"] != "parent")
        if len({point.sparsity for point in group}) > 1
    ]
    if not several:
        return None
    figure = Figure((8, 5))
    axes, index = figure.subplots(), 0
    for group in several:
        dense = [p for p in group if p.shape == "dense"]
        nonzeros = (dense or group)[0]["nonzeros"]
        for shape in sorted({p.shape for p in group} - {"dense"}):
            some = [*dense, *(p for p in group if p.shape == shape)]
            placed = sorted(((float(p.sparsity), p) for p in some), key=lambda pair: pair[0])
            _series(axes, f"{nonzeros} non-zeros, {shape}", placed, "bits_per_sample", index)
            index += 1
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel("zeros of R, %")
    axes.set_ylabel("bits per sample, held-out clips")
    return _svg(figure)


def bits_and_speed_against_samples(points: Sequence[Point]) -> str | None:
    """Bits/sample and the real-time factor against samples made at a time.

    None where all points make one sample at a time.
    """
    if all(p.subscale == p.fused == 1 for p in points):
        return None
    lines: dict[str, list[tuple[float, Point]]] = {}
    for point in sorted(points, key=lambda p: p.subscale):
        sparsity = "" if point.shape == "dense" else f", {point.sparsity} %"
        fused = ", fused" if point.fused > 1 else ""
        label = f"H = {point['hidden']}, {point.shape}{sparsity}, {point['format']}{fused}"
        lines.setdefault(label, []).append((float(point.subscale * point.fused), point))
    figure = Figure((12, 4.2))
    panels = figure.subplots(1, 2)
    labels = ("bits per sample, held-out clips", "real-time factor")
    for axes, column, label in zip(
        panels, ("bits_per_sample", "realtime_factor"), labels, strict=True
    ):
        for index, (name, placed) in enumerate(lines.items()):
            _series(axes, name, placed, column, index)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("samples a step: U, or 2 where fused")
        axes.set_ylabel(label)
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    return _svg(figure)


def quality_against_speed(points: Sequence[Point]) -> str:
    """Each metric of copy synthesis against the real-time factor, with the Pareto front."""
    figure = Figure((14, 4.2))
    panels = figure.subplots(1, len(METRICS))
    for axes, (column, label, higher) in zip(panels, METRICS, strict=True):
        known = [p for p in points if p.mean(column) is not None]
        for index, point in enumerate(known):
            _series(axes, point.name, [(point.mean("realtime_factor") or 0, point)], column, index)
        best = front(known, "realtime_factor", column, higher)
        axes.plot(
            [p.mean("realtime_factor") or 0 for p in best],
            [p.mean(column) or 0 for p in best],
            color="black",
            linewidth=0.8,
            zorder=0,
        )
        if known:
            axes.set_xscale("log")
        else:
            _empty(axes)
        axes.set_xlabel("real-time factor")
        axes.set_ylabel(f"{label} ({'higher' if higher else 'lower'} is better)")
    if points:
        handles, labels = panels[0].get_legend_handles_labels()
        columns = max(1, min(4, len(labels)))
        figure.legend(
            handles,
            labels,
            fontsize="x-small",
            ncols=columns,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
        )
    figure.tight_layout()
    return _svg(figure)


def density_of_matrices(points: Sequence[Point]) -> str:
    """The share of weights that is left in each gate and head, by point."""
    figure = Figure((max(6.0, 0.35 * len(points) + 2), 4))
    axes = figure.subplots()
    names = [*PRUNABLE, *(PRUNABLE_CONTEXT if any(p.subscale > 1 for p in points) else ())]
    for index, name in enumerate(names):
        # side by side, since the gates are often equally dense
        shift = (index - len(names) / 2) / (len(names) + 3)
        placed = [(x + shift, point) for x, point in enumerate(points)]
        _series(axes, name, placed, f"density_{name}", index, line="")
    if points:
        axes.set_yscale("log")
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks(range(len(points)), [p.name for p in points], rotation=90, fontsize="small")
    axes.set_ylabel("density")
    return _svg(figure)
