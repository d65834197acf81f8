"""The command that trains a grid of voices: `wavernn sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wavernn.errors import ConfigError
from wavernn.options import Json, positive, show


def _optional(value: float | None) -> float | None:
    return None if value is None else positive(value)


def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID.toml", help="What is varied.")],
    data: Annotated[Path, typer.Option(help="Folder of recordings.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep; it goes on where it stopped.")],
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes to start.")] = 1,
    storage: Annotated[
        str, typer.Option(help="Of Optuna: journal, a file in --out, or a database's URL.")
    ] = "journal",
    engine: Annotated[str, typer.Option(help="What starts workers: optuna or ray.")] = "optuna",
    dry_run: Annotated[bool, typer.Option(help="Print plan and cost, and write nothing.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(callback=_optional, help="GFLOP/s of training to plan with; else measured."),
    ] = None,
    json_: Json = False,
) -> None:
    """Train and judge every voice of a grid: results.csv, report.html."""
    from wavernn.train import sweep_grid

    plan = sweep_grid.load(grid)
    if dry_run:
        from wavernn.train.features import find_recordings
        from wavernn.train.sweep_cost import estimate

        find_recordings(data)
        table = estimate(plan, rate, workers)
        show(table if json_ else _readable(table), json_)
        return
    try:
        from wavernn.train.sweep import sweep as run
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "matplotlib"):
            raise
        raise ConfigError(
            f"wavernn sweep needs the package {error.name}: pip install 'wavernn[train]'"
        ) from None
    outcome = run(plan, data, out, workers, storage, engine)
    if not json_:
        del outcome["rows"]
    show(outcome, json_)


def _readable(table: dict[str, Any]) -> dict[str, Any]:
    """The plan with a line a run."""
    width = max(len(row["run"]) for row in table["plan"])
    lines = [
        f"{row['run']:{width}} {row['nonzeros']:>9} non-zeros, {row['parent_steps']:>6} + "
        f"{row['steps']:<6} steps, {row['samples'] / 1e6:8.2f} M samples, "
        f"{row['train_seconds'] / 60:7.1f} min"
        for row in table["plan"]
    ]
    hours = {f"{key}_hours": table.pop(f"{key}_seconds") / 3600 for key in ("train", "wall")}
    alone = table.pop("train_seconds_without_parents") / 3600
    return table | {"plan": lines} | hours | {"train_hours_without_parents": alone}
