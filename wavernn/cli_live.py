"""The command that says again what a microphone hears: `wavernn live`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavernn.options import Backend, Format, Json, Seed, Temperature, Threads, positive, show


def _optional(value: float | None) -> float | None:
    return None if value is None else positive(value)


def live(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[INPUT]", readable=False, help="A recording, played as if live."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .wav, .flac or .ogg.")] = None,
    voice: Annotated[str, typer.Option(help="A shipped voice's name, or a file.")] = "default",
    frame_ms: Annotated[
        float, typer.Option(callback=positive, help="Of the microphone, such as 8 or 16.")
    ] = 8.0,
    channels: Annotated[int, typer.Option(min=1, max=4096, help="Streams at once.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Sound card, by number or name; '' is the usual one.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(callback=_optional, help="End after so much input.")
    ] = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    backend: Backend = "auto",
    format_: Format = None,
    threads: Threads = 1,
    json_: Json = False,
) -> None:
    """Say again at once what is heard; report delay and deadlines."""
    import sys

    import torch

    from wavernn import live as loop
    from wavernn.audio import read_audio, write_audio
    from wavernn.deadlines import Delay
    from wavernn.soundcard import SoundCard
    from wavernn.synthesis import check_target
    from wavernn.voices import open_voice

    if (source is None) == (device is None):
        raise typer.BadParameter("choose one of a recording and --device", param_hint="INPUT")
    if device is not None and channels > 1:
        raise typer.BadParameter("a sound card is one channel", param_hint="--channels")
    if out is not None:
        check_target(out)
    # torch has small products to do, whose threads would mostly wait for each other
    torch.set_num_threads(1)
    # the engine's thread and the event loop take turns of a millisecond, not of Python's own five
    sys.setswitchinterval(0.0005)
    loaded = open_voice(voice)
    rate_hz = loaded.config.mel.rate_hz
    frame = max(round(frame_ms * rate_hz / 1000), 1)

    def microphone() -> loop.Microphone:
        if source is None:
            # two frames for computing and waking up
            ahead = Delay.of(loaded.config).with_frames(frame) + 2 * frame
            return SoundCard(rate_hz, frame, ahead, device or "", seconds)
        samples_T = read_audio(source, rate_hz)
        if seconds is not None:
            samples_T = samples_T[: max(round(seconds * rate_hz), 1)]
        return loop.FileMicrophone(samples_T, rate_hz, frame, channels)

    said_T, report = loop.run(
        loaded, microphone, channels, seed, temperature, backend, format_, threads
    )
    if out is not None and len(said_T):
        write_audio(out, said_T, rate_hz)
    show(report, json_)
