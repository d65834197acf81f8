import io
import json
import socket
import time
import zipfile

import numpy as np
import pytest
import soundfile

from wavernn.errors import ConfigError
from wavernn.serve import security
from wavernn.serve.errors import ApiError
from wavernn.serve.security import Doorkeeper
from wavernn.serve.settings import Settings, read_keys

KEYS = ("correct-horse", "battery-staple")


def bearer(key):
    return {"authorization": f"Bearer {key}"}


# ---- the size of what is sent ----


def test_a_body_that_is_announced_too_large_is_refused_unread(start, refused):
    with start(body_bytes=1000) as server, socket.create_connection(server.address) as connection:
        connection.settimeout(60)
        connection.sendall(b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413") and b"1001 bytes" in answer


def test_a_body_that_grows_too_large_is_refused_while_it_comes(start, refused):
    def endless():
        for _ in range(100_000):
            sent.append(1)
            yield bytes(1000)

    sent = []
    with start(body_bytes=100_000) as server:
        # the server may close before all of it was taken
        with socket.create_connection(server.address) as connection:
            connection.settimeout(60)
            connection.sendall(
                b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            connection.sendall((b"3e8\r\n" + bytes(1000) + b"\r\n") * 101)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        assert server.service._bodies == 0


def test_all_bodies_together_are_bounded(start, refused, make_npy):
    body = make_npy(0, 1.0)
    with start(body_bytes=len(body)) as server:
        server.service._bodies = 8 * len(body) - 10
        refused(server.http.post("/v1/vocode", content=body), 503)
        server.service._bodies = 0
        assert server.http.post("/v1/vocode", content=body).status_code == 200


def test_a_body_that_comes_too_slowly_is_given_up(start):
    with start(body_s=0.3) as server, socket.create_connection(server.address) as connection:
        connection.settimeout(60)
        connection.sendall(b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_mel_or_recording_that_is_too_long_is_refused(start, refused, make_npy, make_audio):
    with start(mel_s=1.0) as server:
        assert server.http.post("/v1/vocode", content=make_npy(0, 1.0)).status_code == 200
        answer = server.http.post("/v1/vocode", content=make_npy(0, 1.01))
        assert "more than 100 (1 s)" in refused(answer, 413)["message"]
        for seconds, status in ((1.0, 200), (1.5, 413), (10.0, 400)):
            buffer = io.BytesIO()
            soundfile.write(buffer, make_audio(0, seconds), 8000, format="WAV")
            answer = server.http.post("/v1/vocode", content=buffer.getvalue())
            assert answer.status_code == status


def test_a_zip_bomb_isnt_unfolded(running, refused):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"{number}.npy", bytes(8 << 20))
    answer = running.http.post("/v1/vocode", content=buffer.getvalue())
    assert "unfolds to more than" in refused(answer, 400)["message"]


def test_a_sentence_repeats_little_of_a_file(running, refused, make_mel):
    buffer = io.BytesIO()
    np.savez(buffer, mel=make_mel(), scale="x" * 100_000)
    answer = running.http.post("/v1/vocode", content=buffer.getvalue())
    assert len(refused(answer, 400)["message"]) < 1000


# ---- keys ----


def test_a_key_is_needed_where_keys_are_set(start, refused, make_npy):
    with start(api_keys=KEYS) as server:
        for path in ("/v1/models", "/v1/models/tiny", "/v1/audio/voices", "/metrics"):
            refused(server.http.get(path), 401)
            for key in KEYS:
                assert server.http.get(path, headers=bearer(key)).status_code == 200
        answer = server.http.post("/v1/vocode", content=make_npy())
        assert answer.headers["www-authenticate"] == "Bearer"
        assert refused(answer, 401)["code"] == "invalid_api_key"
        for bad in ("wrong", KEYS[0] + "x", KEYS[0][:-1], "ä"):
            headers = {"authorization": f"Bearer {bad}".encode("latin-1")}
            answer = server.http.post("/v1/vocode", content=make_npy(), headers=headers)
            refused(answer, 401)
        for bad in ("Bearer", KEYS[0], f"Basic {KEYS[0]}"):
            refused(server.http.get("/v1/models", headers={"authorization": bad}), 401)
        answer = server.http.post("/v1/vocode", content=make_npy(), headers=bearer(KEYS[1]))
        assert answer.status_code == 200
        # who watches over the service needs none
        assert server.http.get("/health/ready").status_code == 200
        document = server.http.get("/openapi.json").json()
        assert document["paths"]["/v1/vocode"]["post"]["security"] == [{"key": []}]
        assert not any(key in json.dumps(document) for key in KEYS)


def test_all_keys_are_compared(monkeypatch):
    def compare(a, b):
        compared.append((a, b))
        return a == b

    compared = []
    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    keeper = Doorkeeper(Settings(api_keys=("first-key", "second-key", "third-key")))
    assert keeper.client("Bearer first-key", "").name == "key 0"
    assert keeper.client("bearer third-key", "").name == "key 2"
    assert len(compared) == 6
    assert {len(side) for pair in compared for side in pair} == {32}


def test_keys_are_read_from_file_and_environment(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# of the house\n  one-of-these  \n\nanother-one\n")
    environment = {"WAVERNN_SERVE_API_KEYS": "a-third-one, ,another-one"}
    assert read_keys(path, environment) == ("a-third-one", "another-one", "one-of-these")
    assert read_keys(None, {}) == ()


def test_a_file_without_keys_isnt_an_open_door(tmp_path):
    path = tmp_path / "keys"
    with pytest.raises(ConfigError, match="can't read the API keys"):
        read_keys(path, {})
    path.write_text("# nothing\n\n")
    with pytest.raises(ConfigError, match="holds no API key"):
        read_keys(path, {})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"voices": ()}, "at least one voice"),
        ({"port": 65_536}, "port"),
        ({"body_bytes": 0}, "body_bytes"),
        ({"idle_s": float("inf")}, "idle_s"),
        ({"streams_per_client": -1}, "streams_per_client"),
        ({"api_keys": ("short",)}, "8 or more"),
        ({"api_keys": ("with a space",)}, "8 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        Settings(**settings)


def test_keys_dont_show_in_what_is_logged():
    assert KEYS[0] not in repr(Settings(api_keys=KEYS))


# ---- shares ----


def test_requests_beyond_the_rate_are_refused_until_time_has_passed():
    now_s = [0.0]
    keeper = Doorkeeper(Settings(requests_per_minute=6), lambda: now_s[0])
    for _ in range(6):
        keeper.client(None, "a")
    with pytest.raises(ApiError) as refused:
        keeper.client(None, "a")
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "10"
    keeper.client(None, "b")
    now_s[0] = 10.0
    keeper.client(None, "a")
    with pytest.raises(ApiError):
        keeper.client(None, "a")
    # what isn't used is kept for a minute's worth
    now_s[0] = 10_000.0
    for _ in range(6):
        keeper.client(None, "a")
    with pytest.raises(ApiError):
        keeper.client(None, "a")


def test_guesses_have_a_share_too():
    keeper = Doorkeeper(Settings(requests_per_minute=3, api_keys=KEYS), lambda: 0.0)
    statuses = []
    for guess in range(5):
        with pytest.raises(ApiError) as refused:
            keeper.client(f"Bearer guess-{guess}", "a")
        statuses.append(refused.value.status)
    assert statuses == [401, 401, 401, 429, 429]
    # who knows a key isn't kept out by who doesn't
    keeper.client(f"Bearer {KEYS[0]}", "a")


def test_clients_are_forgotten_unless_they_have_streams(monkeypatch):
    monkeypatch.setattr(security, "MOST_CLIENTS", 2)
    keeper = Doorkeeper(Settings())
    first = keeper.client(None, "first")
    first.streams = 1
    for number in range(10):
        keeper.client(None, str(number))
    assert len(keeper._clients) == 2
    assert keeper.client(None, "first") is first


def test_the_rate_holds_over_http(start, refused):
    with start(requests_per_minute=2) as server:
        answers = [server.http.get("/v1/models") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert refused(answers[2], 429)["type"] == "rate_limit_error"
        assert int(answers[2].headers["retry-after"]) <= 30
        assert server.number("wavernn_refused_total", reason="share") == 1


@pytest.mark.usefixtures("small_buffers")
def test_streams_at_once_are_limited_for_each_client(start, refused, make_npy):
    mel = make_npy(1, 40.0)
    with start(streams_per_client=1, api_keys=KEYS) as server:
        query = {"format": "pcm", "sample_rate": 48_000}

        def ask(key):
            return server.http.stream(
                "POST", "/v1/vocode", params=query, content=mel, headers=bearer(key)
            )

        with ask(KEYS[0]) as first:
            assert first.status_code == 200
            with ask(KEYS[0]) as second:
                second.read()
                assert "more than 1 streams" in refused(second, 429)["message"]
            with ask(KEYS[1]) as other:
                assert other.status_code == 200
        server.wait(lambda: server.open_channels == 0)
        until = time.monotonic() + 60
        while (answer := ask(KEYS[0])) and time.monotonic() < until:
            with answer as again:
                if again.status_code == 200:
                    break
        assert again.status_code == 200
