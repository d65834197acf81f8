"""The commands that read text aloud, `wavernn say`, and judge that, `wavernn eval-text`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wavernn.errors import TextError
from wavernn.options import (
    Backend,
    CheckpointArg,
    Format,
    Json,
    Seed,
    Temperature,
    Threads,
    progress_bars,
    show,
)


def say(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .wav, .flac or .ogg.")] = None,
    voice: Annotated[str, typer.Option(help="A shipped voice's name, or a file.")] = "default",
    acoustic: Annotated[
        str, typer.Option(help="What makes mels of text: a shipped model's name, or a file.")
    ] = "default",
    speaker: Annotated[str | None, typer.Option(help="One of the acoustic model's.")] = None,
    speed: Annotated[float, typer.Option(help="0.25 to 4 times the usual.")] = 1.0,
    pitch: Annotated[float, typer.Option(help="Semitones up or down, -12 to 12.")] = 0.0,
    seed: Seed = 0,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    temperature: Temperature = 1.0,
    stream: Annotated[bool, typer.Option(help="Raw 16-bit PCM on stdout as it's made.")] = False,
) -> None:
    """Read a text aloud."""
    import torch

    from wavernn import synthesis
    from wavernn.narration import Narrator, open_acoustic
    from wavernn.vocoder import Vocoder
    from wavernn.voices import open_voice

    # torch has small products to do, whose threads would mostly wait for each other
    torch.set_num_threads(1)
    if stream == (out is not None):
        raise typer.BadParameter("choose one of --out FILE and --stream", param_hint="--out")
    if text == "-":
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise TextError(
                f"expected text in {error.encoding} on stdin, got other bytes"
            ) from None
    opened = open_voice(voice)
    narrator = Narrator(open_acoustic(acoustic), speaker)
    narrator.check(opened)
    mels = narrator.frames(text, speed, pitch)
    vocoder = Vocoder(opened, backend, format_, threads)
    if out is None:
        synthesis.to_stdout(vocoder.stream(mels, seed, temperature))
    else:
        typer.echo(synthesis.to_file(vocoder, mels, out, seed, temperature), err=True)


def eval_text(
    checkpoint: CheckpointArg,
    data: Annotated[Path, typer.Argument(help="Folder of recordings with transcripts.")],
    acoustic: Annotated[
        str, typer.Option(help="What makes mels of text: a shipped model's name, or a file.")
    ] = "default",
    clips: Annotated[int, typer.Option(min=1, help="Held-out clips to recognise.")] = 12,
    seed: Seed = 0,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    temperature: Temperature = 1.0,
    keep: Annotated[Path | None, typer.Option(help="Folder for what was synthesised.")] = None,
    json_: Json = False,
) -> None:
    """Measure how well speech from text is understood by a recogniser."""
    import torch

    from wavernn.narration import Narrator, open_acoustic
    from wavernn.train.texteval import evaluate_text
    from wavernn.vocoder import Vocoder
    from wavernn.voices import open_voice

    torch.set_num_threads(1)
    voice = open_voice(checkpoint)
    narrator = Narrator(open_acoustic(acoustic))
    narrator.check(voice)
    vocoder = Vocoder(voice, backend, format_, threads)
    with progress_bars() as progress:
        result = evaluate_text(vocoder, narrator, data, clips, seed, temperature, keep, progress)
    if not json_:
        result["scores"] = [
            f"{r['right']:.2f} {r['wrong']:.2f} {r['text']}" for r in result["scores"]
        ]
    show(result, json_)
