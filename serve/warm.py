"""What only the first request would pay for, done before it comes: imports, tables, caches."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np

from wavernn.audio import pack_audio, read_audio
from wavernn.engine import Engine
from wavernn.errors import MelError
from wavernn.serve.formats import FORMATS, Encoder, unavailable
from wavernn.synthesis import fitted_mel, recording_mel

SECONDS = 0.2


def warm(engine: Engine) -> None:
    """Takes a recording of noise the whole way: file, mel, engine, every format there is."""
    rate_hz = engine.rate_hz
    noise_T = np.random.default_rng(0).uniform(-0.1, 0.1, round(SECONDS * rate_hz))
    file = io.BytesIO(pack_audio(noise_T.astype(np.float32), rate_hz, "wav"))
    mel_NM = recording_mel(read_audio(file, rate_hz), engine.voice)
    # a voice may take noise for another dialect
    with suppress(MelError):
        fitted_mel(mel_NM, {}, engine.voice, "noise")
    with engine.open() as channel:
        channel.push(mel_NM)
        channel.end()
        samples_T = np.concatenate(list(channel))
    for name in FORMATS:
        if unavailable(name) is None:
            with Encoder(name, rate_hz) as encoder:
                encoder.encode(samples_T)
                encoder.finish()
