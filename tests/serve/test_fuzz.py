import io
import json
import subprocess
import sys
from importlib.util import find_spec
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from wavernn.serve.upload import MEL_TYPES, RAW_TYPE

TYPES = [None, "audio/wav", "audio/flac", "audio/mpeg", *MEL_TYPES, RAW_TYPE, "text/plain"]
# what is damaged: each kind of file, whole
SPEECH = np.linspace(-8, -1, 30 * 20, dtype=np.float32).reshape(30, 20)

bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def wav():
    header = b"RIFF\x24\x02\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"
    return (
        header
        + b"\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data\x00\x02\x00\x00"
        + bytes(512)
    )


WHOLE = {
    "application/x-npy": npy(SPEECH),
    "application/x-npz": npz(mel=SPEECH, hop_samples=80),
    "application/x-safetensors": save({"mel": SPEECH}, {"mel_config": '{"hop_samples": 80}'}),
    "audio/wav": wav(),
}


def judge(server, refused, body, headers):
    answer = server.http.post("/v1/vocode?format=pcm", content=body, headers=headers)
    if answer.status_code != 200:
        assert answer.status_code in (400, 413, 415)
        refused(answer, answer.status_code)
    assert server.service._bodies == 0


@bounded
@given(body=st.binary(max_size=300), content_type=st.sampled_from(TYPES), shape=st.text(max_size=9))
def test_random_bytes_are_refused_in_openais_shape(running, refused, body, content_type, shape):
    headers = {"x-mel-shape": shape.encode("utf-8", "surrogatepass").hex() or "1,1"}
    if content_type:
        headers["content-type"] = content_type
    judge(running, refused, body, headers)


@bounded
@given(
    content_type=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_damaged_files_are_refused_or_spoken(running, refused, content_type, changes, kept):
    body = bytearray(WHOLE[content_type])
    for place, value in changes:
        body[int(place * len(body))] = value
    del body[int(kept * len(body)) + 1 :]
    judge(running, refused, bytes(body), {"content-type": content_type})


@bounded
@given(
    kind=st.sampled_from(["f2", "f4", "f8", "<i2", ">f4", "?", "c8", "U3", "S3", "M8[s]", "u1"]),
    shape=st.lists(st.sampled_from([0, 1, 2, 20, 21, 80]), max_size=4),
    value=st.sampled_from([0, 1, -4, 255, -1e30, 1e30, np.nan, np.inf]),
)
def test_any_array_is_refused_or_spoken(running, refused, kind, shape, value):
    with np.errstate(all="ignore"):
        array = np.zeros(shape, kind) if kind[0] in "UM" else np.full(shape, value, "f8")
        if kind[0] not in "UM":
            array = np.nan_to_num(array).astype(kind) if kind not in ("f2", "f4", "f8") else array
    judge(running, refused, npy(array), {})
    judge(running, refused, npz(mel=array), {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "model",
    "input",
    "voice",
    "response_format",
    "speed",
    "seed",
    "temperature",
    "instructions",
]


@bounded
@given(request=st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_any_json_is_refused_or_not_implemented(running, refused, request):
    whole = {"model": "tts-1", "input": "x", "voice": "tiny"}
    request = whole | request if isinstance(request, dict) else request
    headers = {"content-type": "application/json"}
    body = json.dumps(request)
    answer = running.http.post("/v1/audio/speech", content=body, headers=headers)
    assert answer.status_code in (400, 413, 501)
    refused(answer, answer.status_code)


@bounded
@given(
    path=st.text(st.characters(codec="utf-8", min_codepoint=33), max_size=20),
    header=st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
)
def test_any_path_and_header_get_an_answer(running, refused, path, header):
    headers = {
        "authorization": header.encode("latin-1"),
        "x-mel-hop-samples": header.encode("latin-1"),
    }
    answer = running.http.get("/v1/models/" + quote(path), headers=headers)
    assert answer.status_code in (200, 307, 400, 404)
    answer = running.http.post("/v1/vocode", content=WHOLE["application/x-npy"], headers=headers)
    assert answer.status_code in (200, 400)


class Front:
    def frames(self, text, voice, speed):
        yield SPEECH


@pytest.mark.skipif(not find_spec("schemathesis"), reason="schemathesis isn't installed")
def test_the_document_says_what_the_service_does(start, tmp_path):
    with start(text=Front(), channels=2) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--max-examples", "15", "--seed", "1"),
            *("--suppress-health-check", "all", "--generation-database", "none"),
            # a document can't say which bytes are a mel, nor the names of voices
            *("--exclude-checks", "positive_data_acceptance"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        server.wait(lambda: server.open_channels == 0)
    # for `pytest -s`
    print(done.stdout)
    assert done.returncode == 0, done.stdout
