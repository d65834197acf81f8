"""The command line: thin commands, heavy imports inside them, results on stdout, talk on stderr."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wavernn import __version__, cli_bench, cli_live, cli_load, cli_say, cli_serve, cli_sweep
from wavernn.errors import ConfigError, WaveRNNError
from wavernn.options import (
    Backend,
    CheckpointArg,
    Format,
    Json,
    Overrides,
    Seed,
    Temperature,
    Threads,
    progress_bars,
    show,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wavernn {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """WaveRNN: mel spectrograms to speech, one 16-bit sample at a time."""
    level = os.environ.get("WAVERNN_LOG", "INFO")
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ConfigError(f"WAVERNN_LOG must be one of {', '.join(known)}, got {level}")
    logging.basicConfig(level=level.upper(), format="%(message)s", stream=sys.stderr)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a .toml file.")],
    data: Annotated[Path, typer.Option(help="Folder of recordings.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    set_: Overrides = [],  # noqa: B006
    resume: Annotated[bool, typer.Option(help="Go on from the run's last save.")] = False,
    init_from: Annotated[str | None, typer.Option(help="Start from another voice.")] = None,
    licence: Annotated[str, typer.Option(help="The data's licence, kept in the voice.")] = "",
) -> None:
    """Train a voice, or an acoustic model, from a folder of recordings."""
    from wavernn import recipe as recipes

    table = recipes.read(recipe, set_)
    if table.get("kind") == "acoustic":
        if init_from:
            raise ConfigError("an acoustic model can't start from another yet; drop --init-from")
        typer.echo(_train_acoustic(table, data, out, resume, licence))
        return
    from wavernn.train.loop import train as run
    from wavernn.train.report import Report
    from wavernn.voices import find

    config = recipes.from_dict(table)
    source = find(init_from) if init_from else None
    path = run(config, data, out, resume, source, Report(out), licence)
    typer.echo(path)


def _train_acoustic(
    table: dict[str, Any], data: Path, out: Path, resume: bool, licence: str
) -> Path:
    from wavernn import acoustic_config
    from wavernn.train.acoustic import train as run
    from wavernn.train.acoustic_report import AcousticReport

    return run(acoustic_config.from_dict(table), data, out, resume, AcousticReport(out), licence)


@app.command()
def synth(
    checkpoint: CheckpointArg,
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", readable=False, help="A recording or a mel file.")
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .wav, .flac or .ogg.")] = None,
    seed: Seed = 0,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    temperature: Temperature = 1.0,
    stream: Annotated[bool, typer.Option(help="Raw 16-bit PCM on stdout as it's made.")] = False,
) -> None:
    """Turn a mel, or a recording's own mel, into speech."""
    import torch

    from wavernn import synthesis
    from wavernn.vocoder import Vocoder
    from wavernn.voices import open_voice

    # torch has small products to do, whose threads would mostly wait for each other
    torch.set_num_threads(1)
    if stream == (out is not None):
        raise typer.BadParameter("choose one of --out FILE and --stream", param_hint="--out")
    voice = open_voice(checkpoint)
    mel_NM = synthesis.input_mel(source, voice)
    vocoder = Vocoder(voice, backend, format_, threads)
    if out is None:
        synthesis.to_stdout(vocoder.stream([mel_NM], seed, temperature))
        return
    total = len(mel_NM) * voice.config.mel.hop_samples
    with progress_bars() as progress:
        figures = synthesis.to_file(
            vocoder, [mel_NM], out, seed, temperature, lambda done: progress("samples", done, total)
        )
    typer.echo(figures, err=True)


@app.command()
def info(
    checkpoint: CheckpointArg,
    check: Annotated[bool, typer.Option(help="Compare int8 with float32; 2 if too far.")] = False,
    json_: Json = False,
) -> None:
    """Say how large, sparse and costly a voice is, and what each backend would do with it."""
    from wavernn.cost import describe
    from wavernn.kernels import fidelity, memory
    from wavernn.voices import open_voice

    voice = open_voice(checkpoint)
    kind = voice.config.model.subscale, voice.config.model.fused
    table = describe(voice, memory.backends(*kind)) | {"memory_cpu": memory.table(voice)}
    if check:
        table["check"] = fidelity.check(voice)
    show(table, json_)
    raise typer.Exit(2 if check and not table["check"]["passed"] else 0)


@app.command("eval")
def evaluate(
    checkpoint: CheckpointArg,
    data: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips of copy synthesis.")] = 4,
    seed: Seed = 0,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    temperature: Temperature = 1.0,
    every_clip: Annotated[bool, typer.Option(help="Score clips it was trained on, too.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for what was synthesised.")] = None,
    baselines: Annotated[bool, typer.Option(help="Judge Griffin-Lim and WORLD as well.")] = False,
    compare: Annotated[
        list[str], typer.Option(metavar="VOICE", help="Judge another voice as well; repeatable.")
    ] = [],  # noqa: B006
    html: Annotated[
        Path | None, typer.Option(help="Page with players and pictures, with baselines.")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure a voice on recordings: bits per sample, copy synthesis, speed."""
    from tempfile import TemporaryDirectory

    from wavernn.train import scoreboard
    from wavernn.train.evaluate import evaluate as judge
    from wavernn.voices import open_voice, open_voices

    voice = open_voice(checkpoint)
    others = open_voices(compare)
    with TemporaryDirectory() as cache, progress_bars() as progress:
        result = judge(
            voice,
            data,
            Path(cache),
            clips,
            backend,
            seed,
            every_clip,
            keep=keep,
            progress=progress,
            format=format_,
            threads=threads,
            baselines=baselines or html is not None,
            others=others,
            html=html,
            temperature=temperature,
        )
    if json_:
        show(result, json_)
    else:
        typer.echo(scoreboard.text(voice.config.name, result))


@app.command()
def doctor(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", readable=False, help="A recording or a mel file.")
    ],
    voice: Annotated[str, typer.Option(help="A shipped voice's name, or a file.")] = "default",
    json_: Json = False,
) -> None:
    """Say whether a mel or a recording fits a voice, and what to change."""
    from wavernn import synthesis
    from wavernn.voices import open_voice

    fits, sentences = synthesis.examine(source, open_voice(voice))
    show({"fits": fits, "findings": sentences}, json_)
    raise typer.Exit(0 if fits else 2)


app.command()(cli_say.say)
app.command("eval-text")(cli_say.eval_text)
app.command()(cli_sweep.sweep)
app.command(context_settings=cli_serve.CONTEXT)(cli_serve.serve)
app.command()(cli_live.live)
app.command()(cli_load.load)
app.command()(cli_bench.bench)
app.command()(cli_bench.tune)


def _fail(sentence: str) -> NoReturn:
    print(f"wavernn: {sentence}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Runs the command line; what the user can mend is one sentence on stderr and exit code 2."""
    try:
        app()
    except WaveRNNError as error:
        _fail(str(error))
    except OSError as error:
        # a full disk, a folder that can't be written to; typer itself ends on a broken pipe
        if error.strerror is None:
            raise
        _fail(f"{error.filename or 'the output'}: {error.strerror}")
