"""The table of a sweep: `results.csv`, and what its rows say together, over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from wavernn.files import write_atomic

CSV = "results.csv"
# columns that differ when a run is repeated
TIMINGS = ("realtime_factor", "train_seconds", "judge_seconds")
# numbers of non-zeros that are equal for the eye: blocks don't divide every budget
EQUAL = 1.05

Row = Mapping[str, Any]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table, whole or not at all."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


@dataclass(frozen=True)
class Point:
    """Rows that differ in the seed alone."""

    name: str
    rows: tuple[Row, ...]

    def __getitem__(self, column: str) -> Any:
        """A value that all rows share."""
        return self.rows[0][column]

    def mean(self, column: str) -> float | None:
        """The mean over the seeds that have a value, None where none has."""
        values = self._values(column)
        return mean(values) if values else None

    def deviation(self, column: str) -> float:
        """The sample standard deviation over seeds; 0 for a single one."""
        values = self._values(column)
        return stdev(values) if len(values) > 1 else 0.0

    def _values(self, column: str) -> list[float]:
        return [float(row[column]) for row in self.rows if row.get(column) is not None]

    @property
    def subscale(self) -> int:
        """The factor U."""
        return int(self.rows[0].get("subscale", 1))

    @property
    def fused(self) -> int:
        """Samples that one step of the recurrence makes."""
        return int(self.rows[0].get("fused", 1))

    @property
    def sparsity(self) -> int:
        """Percent of R's weights that are zero."""
        return round(100 * (1 - float(self["density"])))

    @property
    def shape(self) -> str:
        """The blocks that are kept, or "dense"."""
        if self.sparsity == 0:
            return "dense"
        return f"{self['block']}{' balanced' if self['balanced'] else ''}"


def points(rows: Iterable[Row]) -> list[Point]:
    """Puts the rows of one name, kind and format together, in order of appearance."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["point"], row["kind"], row["format"]), []).append(row)
    several = len({format for _, _, format in groups}) > 1
    return [
        Point(f"{name} {format}" if several else name, tuple(some))
        for (name, _, format), some in groups.items()
    ]


def budgets(some: Iterable[Point]) -> list[list[Point]]:
    """Groups points of equal numbers of non-zeros, up to the remainders of blocks."""
    groups: list[list[Point]] = []
    for point in sorted(some, key=lambda point: int(point["nonzeros"])):
        if groups and point["nonzeros"] <= EQUAL * groups[-1][0]["nonzeros"]:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def front(some: Sequence[Point], cost: str, quality: str, higher: bool) -> list[Point]:
    """The points that no other beats in both columns: `cost` is better when higher."""
    known = [p for p in some if p.mean(cost) is not None and p.mean(quality) is not None]
    sign = 1 if higher else -1
    best: list[Point] = []
    for point in sorted(
        known, key=lambda p: (-(p.mean(cost) or 0), -sign * (p.mean(quality) or 0))
    ):
        if not best or sign * (point.mean(quality) or 0) > sign * (best[-1].mean(quality) or 0):
            best.append(point)
    return best
