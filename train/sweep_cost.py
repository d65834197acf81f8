"""What a plan costs before it's run: weights that are kept, samples, operations, time."""

from __future__ import annotations

from typing import Any

import torch

from wavernn.config import Config, matrix_shape
from wavernn.fused import network
from wavernn.sparse import kept_blocks
from wavernn.train.sweep_grid import Plan, Run
from wavernn.train.throughput import bench_training, operations_per_sample


def planned_nonzeros(config: Config) -> int:
    """The weights of the prunable matrices that the schedule leaves in the end.

    With `keep_diagonal` the diagonal counts as if blocks were spread evenly over it.
    """
    prune, total = config.prune, 0
    for name in config.model.prunable:
        rows, columns = matrix_shape(config.model, name)
        density = prune.density.get(name, 1.0)
        kept = rows * columns
        if density < 1:
            block = prune.block_rows * prune.block_columns
            kept = block * kept_blocks(rows, columns, density, prune)
            if prune.keep_diagonal and rows == columns:
                kept += round(rows * (1 - density))
        total += kept
    return total


def operations(run: Run) -> float:
    """Floating-point operations of a run's training, its parent's left out."""
    with torch.device("meta"):
        model = network(run.config.model, run.config.mel)
    return run.samples * operations_per_sample(model)


class Rates:
    """Samples/s that this machine trains at: measured once a shape, or by an overall rate."""

    def __init__(self, gflops: float | None = None) -> None:
        self.gflops = gflops
        self.measured: dict[Any, float] = {}

    def seconds(self, run: Run) -> float:
        """Seconds that a run's training takes, without validation and judging."""
        if self.gflops is not None:
            return operations(run) / (1e9 * self.gflops)
        config = run.config
        train = config.train
        shape = (config.model, config.mel, train.batch, train.slice_samples, train.precision)
        if shape not in self.measured:
            self.measured[shape] = bench_training(config, steps=4)["samples_per_s"]
        return run.samples / self.measured[shape]


def estimate(plan: Plan, gflops: float | None, workers: int) -> dict[str, Any]:
    """The plan as `wavernn sweep --dry-run --json` prints it.

    Times are of training alone, on this machine as it is now, shared evenly by the workers.
    """
    rates = Rates(gflops)
    rows: list[dict[str, Any]] = []
    # what branches would cost if each were trained for its parent's steps as well
    alone = 0.0
    for run in plan.runs:
        seconds = rates.seconds(run)
        if run.kind != "parent":
            alone += seconds * (run.steps + run.parent_steps) / run.steps
        rows.append(
            {
                "run": run.name,
                "kind": run.kind,
                "parent": run.parent.name if run.parent else None,
                "nonzeros": planned_nonzeros(run.config),
                "steps": run.steps,
                "parent_steps": run.parent_steps,
                "samples": run.samples,
                "train_seconds": seconds,
            }
        )
    total = sum(row["train_seconds"] for row in rows)
    return {
        "runs": len(rows),
        "rows": len(rows) * len(plan.judging.formats),
        "samples": sum(row["samples"] for row in rows),
        "train_seconds": total,
        "train_seconds_without_parents": alone,
        "workers": workers,
        "wall_seconds": total / workers,
        "plan": rows,
    }
