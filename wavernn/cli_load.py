"""The command that listens to a server many times at once: `wavernn load`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wavernn.errors import ConfigError
from wavernn.options import Json, positive, show


def _optional(value: float | None) -> float | None:
    return None if value is None else positive(value)


def load(
    url: Annotated[str, typer.Argument(help="Of a server, such as http://127.0.0.1:8000.")],
    streams: Annotated[int, typer.Option(min=1, max=100_000, help="Listeners at once.")] = 1,
    requests: Annotated[
        int | None, typer.Option(min=1, help="In all; else 10 for each listener.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            callback=_optional,
            help="Requests a second, at random times; else each listener asks when he's done.",
        ),
    ] = None,
    listen: Annotated[
        bool, typer.Option(help="Ask again only when the last answer has been heard.")
    ] = False,
    mel: Annotated[
        Path | None, typer.Option(readable=False, help="File of a mel; else an example.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text to be spoken, instead of a mel.")] = None,
    seconds: Annotated[
        float, typer.Option(callback=positive, help="Of speech in a request, of the example.")
    ] = 3.0,
    voice: Annotated[
        str | None, typer.Option(help="Voice to ask for; the example is for one of that name.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="pcm, wav, flac, opus, mp3, aac; gaps of the first two.")
    ] = "pcm",
    disconnect: Annotated[
        float, typer.Option(min=0, max=1, help="Share of listeners who leave in between.")
    ] = 0.0,
    prebuffer_ms: Annotated[
        float, typer.Option(min=0, help="What a listener waits after the first audio.")
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(callback=positive, help="Seconds until an answer counts as lost.")
    ] = 60.0,
    key_env: Annotated[
        str | None, typer.Option(help="Variable of the environment that holds an API key.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63, help="Of the first request.")] = 0,
    rows: Annotated[bool, typer.Option(help="Show each request, too.")] = False,
    json_: Json = False,
) -> None:
    """Measure a server: time to first audio, gaps, underruns, real-time factor."""
    import io

    import numpy as np

    from wavernn.kernels.example import example_mel
    from wavernn.melfile import read_mel
    from wavernn.serve.caller import Target
    from wavernn.serve.load import Plan, run
    from wavernn.voices import open_voice

    key = None if key_env is None else os.environ.get(key_env)
    if key_env is not None and not key:
        raise ConfigError(f"the variable {key_env} of the environment holds no API key")
    if disconnect and format_ not in ("pcm", "wav"):
        raise typer.BadParameter("is for pcm and wav", param_hint="--disconnect")
    if text is not None and (mel is not None or disconnect):
        raise typer.BadParameter("goes with neither --mel nor --disconnect", param_hint="--text")
    loaded = open_voice(voice or "default")
    config = loaded.config.mel
    if mel is None:
        mel_NM = example_mel(loaded, max(round(seconds * config.rate_hz / config.hop_samples), 1))
    else:
        mel_NM = read_mel(mel)[0]
    body = io.BytesIO()
    np.save(body, mel_NM.astype(np.float32))
    plan = Plan(
        streams=streams,
        requests=requests or 10 * streams,
        rate=rate,
        listen=listen,
        disconnect=disconnect,
        audio_bytes=2 * len(mel_NM) * config.hop_samples,
        prebuffer_s=prebuffer_ms / 1000,
        timeout_s=timeout,
        seed=seed,
    )
    found = run(Target.of(url, body.getvalue(), format_, voice, key, text), plan)
    if not rows:
        del found["rows"]
    show({"url": url} | found, json_)
