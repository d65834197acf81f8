import asyncio
import dataclasses
import io
import struct

import httpx
import numpy as np
import pytest
import soundfile
from safetensors.numpy import save

from wavernn.vocoder import Vocoder

RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def spoken(voice, running, make_mel):
    """What a vocoder, which knows one stream and no server, makes of a mel and a seed."""
    vocoder = Vocoder(
        voice, running.service.engines["tiny"]._speakers.synthesizer.__module__.split(".")[-1]
    )

    def speak(number=0, seed=0, temperature=1.0, seconds=0.25):
        samples = vocoder.synthesize(make_mel(number, seconds), seed, temperature)
        return np.rint(samples * 32768).astype("<i2").tobytes()

    return speak


def as_npz(mel, **declared):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, mel=mel, **declared)
    return buffer.getvalue()


def test_a_mel_is_spoken_and_the_header_says_its_true_size(running, make_npy, spoken):
    answer = running.http.post("/v1/vocode?seed=5", content=make_npy())
    assert answer.status_code == 200
    assert answer.content[44:] == spoken(seed=5)
    assert int(answer.headers["content-length"]) == len(answer.content) == 44 + 2 * 2000
    assert struct.unpack("<4sI", answer.content[:8]) == (b"RIFF", 36 + 4000)
    assert struct.unpack("<4sI", answer.content[36:44]) == (b"data", 4000)
    headers = {
        "content-type": "audio/wav",
        "x-sample-rate": "8000",
        "x-channels": "1",
        "x-sample-format": "s16le",
        "x-voice": "tiny",
        "x-seed": "5",
        "x-accel-buffering": "no",
        "cache-control": "no-store",
    }
    assert headers.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("sniffed", [False, True])
@pytest.mark.parametrize("kind", ["npy", "npz", "zip", "safetensors"])
def test_each_kind_of_mel_file_is_the_same_speech(running, make_mel, spoken, kind, sniffed):
    mel = make_mel(3)
    buffer = io.BytesIO()
    np.save(buffer, mel)
    body = {"npy": buffer.getvalue(), "safetensors": save({"mel": mel})}.get(kind, as_npz(mel))
    name = "application/zip" if kind == "zip" else f"application/x-{kind}"
    headers = {} if sniffed else {"content-type": name}
    answer = running.http.post("/v1/vocode?seed=1&format=pcm", content=body, headers=headers)
    assert answer.content == spoken(3, seed=1)


def test_raw_values_are_spoken(running, make_mel, spoken):
    mel = make_mel(4)
    headers = {"content-type": RAW, "x-mel-shape": f"{len(mel)}, {mel.shape[1]}"}
    body = mel.astype("<f4").tobytes()
    answer = running.http.post("/v1/vocode?seed=1&format=pcm", content=body, headers=headers)
    assert answer.content == spoken(4, seed=1)


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
@pytest.mark.parametrize("content_type", [None, "audio/x-whatever; codecs=1", RAW])
def test_a_recording_is_spoken_by_its_own_mel(running, make_audio, format, content_type):
    buffer = io.BytesIO()
    soundfile.write(buffer, make_audio(6, 0.31), 8000, format=format)
    headers = {"content-type": content_type} if content_type else {}
    answer = running.http.post("/v1/vocode", content=buffer.getvalue(), headers=headers)
    assert answer.status_code == 200
    # 2480 samples are 31 frames of 80
    assert len(answer.content) == 44 + 2 * 2480


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus", "aac", "pcm"])
def test_each_format_can_be_decoded(running, make_npy, format):
    pytest.importorskip("av")
    query = f"/v1/vocode?response_format={format}&seed=1&sample_rate=16000"
    answer = running.http.post(query, content=make_npy(1, 0.5))
    assert answer.status_code == 200
    assert answer.headers["x-sample-rate"] == "16000"
    if format == "pcm":
        assert len(answer.content) == 2 * 8000
    else:
        import av

        with av.open(io.BytesIO(answer.content)) as container:
            decoded = list(container.decode(audio=0))
        assert sum(f.samples / f.sample_rate for f in decoded) == pytest.approx(0.5, abs=0.15)


def test_events_carry_the_same_bytes(running, make_npy, spoken):
    import base64
    import json

    query = "/v1/vocode?seed=2&format=pcm&stream_format=sse"
    answer = running.http.post(query, content=make_npy())
    assert answer.headers["content-type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == spoken(seed=2)
    usage = {"input_tokens": 25, "output_tokens": 25, "total_tokens": 50}
    assert done == {"type": "speech.audio.done", "usage": usage}


def test_a_drawn_seed_is_announced_and_gives_the_same_again(running, make_npy):
    first, second = (running.http.post("/v1/vocode", content=make_npy()) for _ in range(2))
    assert first.headers["x-seed"] != second.headers["x-seed"]
    assert first.content != second.content
    again = running.http.post(f"/v1/vocode?seed={first.headers['x-seed']}", content=make_npy())
    assert again.content == first.content


def test_the_temperature_is_heeded(running, make_npy, spoken):
    query = "/v1/vocode?seed=1&format=pcm&temperature=0.5"
    answer = running.http.post(query, content=make_npy())
    assert answer.content == spoken(seed=1, temperature=0.5) != spoken(seed=1)


def test_streams_at_once_are_the_streams_one_after_another(start, make_npy):
    async def ask(client, number, fmt):
        query = f"/v1/vocode?seed={number}&format={fmt}&temperature={0.6 + number / 20}"
        async with client.stream("POST", query, content=make_npy(number, 0.5)) as answer:
            assert answer.status_code == 200
            return b"".join([part async for part in answer.aiter_raw()])

    async def everything(url, together):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            asked = [(n, fmt) for n in range(8) for fmt in ("pcm", "wav")]
            if together:
                return await asyncio.gather(*(ask(client, n, fmt) for n, fmt in asked))
            return [await ask(client, n, fmt) for n, fmt in asked]

    with start(channels=16) as server:
        alone = asyncio.run(everything(server.url, together=False))
        assert len(set(alone)) == 16
        assert asyncio.run(everything(server.url, together=True)) == alone


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype == object)
    return buffer.getvalue()


BAD_BODIES = {
    "nothing": (b"", {"content-type": "application/x-npy"}, "can be read"),
    "not a mel": (b"\x93NUMPY hello", {}, "can be read"),
    "objects": (npy(np.array([{}], object)), {}, "can be read"),
    "text": (npy(np.array(["a"])), {}, "not numbers"),
    "bands": (npy(np.full((30, 19), -4, np.float32)), {}, "doesn't fit this voice"),
    "not finite": (npy(np.full((30, 20), np.nan, np.float32)), {}, "NaN"),
    "shape": (b"x" * 80, {"content-type": RAW, "x-mel-shape": "many"}, "frames,bands"),
    "size": (b"x" * 79, {"content-type": RAW, "x-mel-shape": "1,20"}, "79 bytes"),
    "no audio": (b"RIFFabcd", {"content-type": "audio/wav"}, "not an audio file"),
    "no array": (as_npz(np.zeros(0))[:-9], {}, "can be read"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused_with_a_sentence(running, refused, name):
    body, headers, reason = BAD_BODIES[name]
    answer = running.http.post("/v1/vocode", content=body, headers=headers)
    assert reason in refused(answer, 400)["message"]


@pytest.mark.parametrize("content_type", [None, RAW, "text/plain", "multipart/form-data"])
def test_an_unknown_type_is_refused(running, refused, content_type):
    headers = {"content-type": content_type} if content_type else {}
    answer = running.http.post("/v1/vocode", content=b"hello, world", headers=headers)
    assert "x-mel-shape" in refused(answer, 415)["message"]


def test_another_specification_is_refused(running, refused, make_mel, make_npy):
    body = as_npz(make_mel(), hop_length=256)
    assert (
        "hop_length is 256"
        in refused(running.http.post("/v1/vocode", content=body), 400)["message"]
    )
    headers = {"x-mel-sample-rate": "22050", "x-mel-norm": "slaney"}
    answer = running.http.post("/v1/vocode", content=make_npy(), headers=headers)
    message = refused(answer, 400)["message"]
    assert "sample_rate is 22050" in message
    assert "norm" not in message


def test_the_voices_own_specification_is_taken(running, make_npy, voice):
    mel = dataclasses.asdict(voice.config.mel)
    headers = {f"x-mel-{key.replace('_', '-')}": str(value) for key, value in mel.items()}
    answer = running.http.post("/v1/vocode", content=make_npy(), headers=headers)
    assert answer.status_code == 200


def test_another_dialect_is_refused(running, refused, make_mel):
    # decibels of a front end where the voice takes natural logarithms
    body = npy((make_mel(0, 1.0) * 20 / np.log(10)).astype(np.float32))
    answer = running.http.post("/v1/vocode", content=body)
    assert "doesn't fit this voice" in refused(answer, 400)["message"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("seed=-1", "seed"),
        (f"seed={1 << 64}", "seed"),
        ("seed=x", "seed"),
        ("temperature=0", "temperature"),
        ("temperature=nan", "temperature"),
        ("temperature=inf", "temperature"),
        ("format=ogg", "format"),
        ("sample_rate=7999", "sample_rate"),
        ("format=opus&sample_rate=22050", "format"),
        ("stream_format=yes", "stream_format"),
        ("voice=nobody", "voice"),
    ],
)
def test_a_bad_query_is_refused_by_name(running, refused, make_npy, query, param):
    answer = running.http.post(f"/v1/vocode?{query}", content=make_npy())
    assert refused(answer, 400)["param"] == param


@pytest.mark.parametrize("name", ["", "default", "tiny"])
def test_the_default_voice_has_three_names(running, make_npy, name):
    answer = running.http.post(f"/v1/vocode?voice={name}", content=make_npy())
    assert answer.headers["x-voice"] == "tiny"
