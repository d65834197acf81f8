"""What the commands share: options that several take, and how results are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer


def positive(value: float) -> float:
    """Refuses a number that isn't positive and finite."""
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a row.")]
Backend = Annotated[str, typer.Option(help="reference, cpu, gpu, or auto: the first that runs.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="Of weights: int8 or float32 on cpu, bfloat16, float16 or float32 on gpu."
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the engine.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**64 - 1, help="The same seed gives the same samples.")
]
Temperature = Annotated[
    float, typer.Option(callback=positive, help="Below 1 is duller, above 1 rougher.")
]
Overrides = Annotated[
    list[str], typer.Option("--set", help="A key of the recipe, as model.hidden=512; repeatable.")
]
CheckpointArg = Annotated[
    str, typer.Argument(help="A .safetensors file, or a shipped voice's name.")
]


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Shows bars on stderr for work that is reported as (label, done, total)."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        yield show


def show(table: dict[str, Any], as_json: bool) -> None:
    """Prints a table as one line of JSON, or key by key."""
    if as_json:
        # JSON has no NaN; what has no value is null
        finite = json.loads(json.dumps(table), parse_constant=lambda _: None)
        typer.echo(json.dumps(finite))
        return
    for key, value in table.items():
        if isinstance(value, list):
            value = "\n  ".join(["", *map(str, value)])
        elif isinstance(value, dict):
            value = "".join(f"\n  {k} {_short(v)}" for k, v in value.items())
        typer.echo(f"{key}: {_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
