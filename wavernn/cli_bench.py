"""The commands that measure: `wavernn bench`, `wavernn tune`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from wavernn.options import (
    Backend,
    CheckpointArg,
    Format,
    JsonLines,
    Overrides,
    Threads,
    positive,
    show,
)


def bench(
    checkpoint: Annotated[str | None, typer.Argument(help="A voice; without it, a recipe.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe to fill with random weights.")] = "sparse-384",
    set_: Overrides = [],  # noqa: B006
    backend: Backend = "auto",
    format_: Format = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 1,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Threads of the engine and of torch; 0: one, all.")
    ] = 0,
    suite: Annotated[bool, typer.Option(help="Time all recipes on the native engine.")] = False,
    table: Annotated[bool, typer.Option(help="The suite as Markdown tables.")] = False,
    quick: Annotated[bool, typer.Option(help="A few rows of the suite.")] = False,
    end_to_end: Annotated[bool, typer.Option(help="Time a mel file to a WAV file.")] = False,
    seconds: Annotated[
        float, typer.Option(callback=positive, help="Speech to make, end to end.")
    ] = 60.0,
    mel: Annotated[bool, typer.Option(help="Time the mel beside librosa instead.")] = False,
    training: Annotated[bool, typer.Option("--train", help="Time training instead.")] = False,
    json_: JsonLines = False,
) -> None:
    """Measure speed, with the share of what this machine could do."""
    import torch

    if table and json_:
        raise typer.BadParameter("choose one of --table and --json", param_hint="--table")
    if threads:
        torch.set_num_threads(threads)
    engine = (backend, format_, max(threads, 1))
    if mel or training:
        rows = _others(mel, recipe, set_)
    elif suite or table or quick:
        rows = _suite(quick, table)
    elif end_to_end:
        rows = _end_to_end(checkpoint, recipe, set_, *engine, seconds)
    else:
        rows = _loop(checkpoint, recipe, set_, *engine, streams)
    for row in rows:
        show(row, json_)


Rows = Iterator[dict[str, Any]]


def _voice(checkpoint: str | None, recipe: str, overrides: list[str]) -> Any:
    """A voice by name, or a recipe's of random weights, which is at 24 kHz."""
    from wavernn import recipe as recipes
    from wavernn.kernels.bench import random_voice
    from wavernn.voices import open_voice

    if checkpoint:
        return open_voice(checkpoint)
    return random_voice(recipes.load(recipe, ['mel="24k"', *overrides]))


def _loop(
    checkpoint: str | None,
    recipe: str,
    set_: list[str],
    backend: str,
    format: str | None,
    threads: int,
    streams: int,
) -> Rows:
    from wavernn.kernels.bench import bench

    voice = _voice(checkpoint, recipe, set_)
    yield bench(voice, backend, streams, format=format, threads=threads)


def _end_to_end(
    checkpoint: str | None,
    recipe: str,
    set_: list[str],
    backend: str,
    format: str | None,
    threads: int,
    seconds: float,
) -> Rows:
    from wavernn.endtoend import bench_file

    voice = _voice(checkpoint, recipe, set_)
    yield bench_file(voice, backend, format, threads, seconds)


def _others(mel: bool, recipe: str, set_: list[str]) -> Rows:
    if mel:
        from wavernn.kernels.bench_mel import bench_mel

        yield from bench_mel()
        return
    from wavernn import recipe as recipes
    from wavernn.kernels.bench import machine
    from wavernn.train.throughput import bench_training

    yield machine() | bench_training(recipes.load(recipe, set_))


def _suite(quick: bool, as_table: bool) -> Rows:
    """Rows as they are measured, or all of them as text on stdout."""
    from wavernn.kernels.bench_suite import bench_suite
    from wavernn.kernels.bench_table import tables

    if not as_table:
        yield from bench_suite(quick)
        return
    rows = []
    for row in bench_suite(quick):
        rows.append(row)
        typer.echo(f"{len(rows)} {row.get('bench', 'loop')} {row.get('recipe', '')}", err=True)
    typer.echo(tables(rows), nl=False)


def tune(
    checkpoint: CheckpointArg,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    json_: JsonLines = False,
) -> None:
    """Raise the streams on a core until real time with 20 % to spare is no longer kept."""
    from wavernn.kernels.tune import answer, sentence
    from wavernn.kernels.tune import tune as measure
    from wavernn.voices import open_voice

    rows = []
    for row in measure(open_voice(checkpoint), backend, format_, threads):
        rows.append(row)
        if json_:
            show(row, True)
        else:
            typer.echo(sentence(row))
    show(answer(rows), json_)
