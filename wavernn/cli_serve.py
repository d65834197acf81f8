"""The command that serves voices to other programs: `wavernn serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wavernn.errors import ConfigError
from wavernn.options import Backend, Format, Threads, positive

# every option may also come from the environment, as WAVERNN_SERVE_PORT=9000
CONTEXT = {"auto_envvar_prefix": "WAVERNN_SERVE"}


def serve(
    voices: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VOICE]...",
            envvar="WAVERNN_SERVE_VOICES",
            help="Names or .safetensors files; the first is the default.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    wyoming: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Speak the Wyoming protocol there, too: 10200."),
    ] = None,
    acoustic: Annotated[
        str,
        typer.Option(help="What makes mels of text: a shipped model's name, a file, or none."),
    ] = "default",
    backend: Backend = "auto",
    format: Format = None,
    threads: Threads = 1,
    channels: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Streams at once; else what was measured."),
    ] = None,
    api_keys_file: Annotated[
        Path | None,
        typer.Option(
            "--api-keys-file", help="Keys, one a line; or in WAVERNN_SERVE_API_KEYS, by commas."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A site that may use it, or *; repeatable.")
    ] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(help="A proxy that says who asks; repeatable.")
    ] = None,
    body_mib: Annotated[float, typer.Option(callback=positive, help="Largest body in MiB.")] = 32.0,
    text_characters: Annotated[int, typer.Option(min=1, help="Longest text.")] = 4096,
    mel_seconds: Annotated[
        float, typer.Option(callback=positive, help="Longest mel or recording.")
    ] = 600.0,
    stream_seconds: Annotated[
        float, typer.Option(callback=positive, help="Longest time that a response may take.")
    ] = 900.0,
    idle_seconds: Annotated[
        float, typer.Option(callback=positive, help="Cut off who takes nothing for so long.")
    ] = 30.0,
    drain_seconds: Annotated[
        float, typer.Option(callback=positive, help="Let running streams finish at the end.")
    ] = 60.0,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Of a key, or of an address; else unlimited.")
    ] = None,
    streams_per_client: Annotated[
        int | None, typer.Option(min=1, help="Of a key, or of an address; else unlimited.")
    ] = None,
) -> None:
    """Serve voices over HTTP; every option also as WAVERNN_SERVE_PORT=9000 in the environment."""
    from wavernn.voices import open_voices

    try:
        from wavernn.serve.reading import open_reading
        from wavernn.serve.server import serve as run
        from wavernn.serve.service import Service
        from wavernn.serve.settings import Settings, read_address, read_keys

        if wyoming is not None:
            import wavernn.serve.wyoming  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wavernn"):
            raise
        package = error.name.partition(".")[0]
        extra, option = ("wyoming", " --wyoming") if package == "wyoming" else ("serve", "")
        raise ConfigError(
            f"wavernn serve{option} needs the package {package}: pip install 'wavernn[{extra}]'"
        ) from None
    settings = Settings(
        voices=tuple(voices or ("default",)),
        backend=backend,
        format=format,
        threads=threads,
        channels=channels,
        host=host,
        port=port,
        wyoming=None if wyoming is None else read_address(wyoming, host),
        api_keys=read_keys(api_keys_file, os.environ),
        cors_origins=tuple(cors_origin or ()),
        proxies=tuple(proxy or ()),
        body_bytes=round(body_mib * (1 << 20)),
        text_characters=text_characters,
        mel_s=mel_seconds,
        stream_s=stream_seconds,
        idle_s=idle_seconds,
        drain_s=drain_seconds,
        requests_per_minute=requests_per_minute,
        streams_per_client=streams_per_client,
    )
    # what is wrong with a voice is told before anybody connects
    opened = open_voices(settings.voices)
    run(Service(settings, text=open_reading(acoustic, opened)), opened)
