import json
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

import httpx
import pytest

# of the voice's speech: at 48 kHz more than all buffers between server and client hold
LONG_S = 40.0
LONG_QUERY = "format=pcm&sample_rate=48000&seed=1"
LONG_BYTES = round(2 * 48_000 * LONG_S)

pytestmark = pytest.mark.usefixtures("small_buffers")


@pytest.fixture(scope="module")
def long_mel(make_npy):
    return make_npy(1, LONG_S)


def read_all(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def leave_quietly(connection):
    connection.close()


def leave_with_a_reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close_half(connection):
    connection.shutdown(socket.SHUT_WR)
    assert len(read_all(connection)) < LONG_BYTES
    connection.close()


@pytest.mark.parametrize("leave", [leave_quietly, leave_with_a_reset, close_half])
def test_who_leaves_gives_his_channel_back(start, long_mel, leave):
    def cancelled():
        labels = {"voice": "tiny", "transport": "audio", "reason": "cancelled"}
        return server.number("wavernn_streams_total", **labels)

    with start(channels=1) as server:
        for count in range(1, 4):
            connection = server.begin(long_mel, LONG_QUERY, receive_bytes=4096)
            assert server.open_channels == 1
            leave(connection)
            server.wait(lambda: server.open_channels == 0)
            server.wait(lambda count=count: cancelled() == count)


def test_many_who_leave_at_any_moment_leave_nothing_behind(start, long_mel, make_npy):
    def come_and_go(seed):
        chance = random.Random(seed)
        for _ in range(25):
            connection = socket.create_connection(server.address, timeout=60)
            stream_format = chance.choice(["audio", "sse"])
            query = f"{LONG_QUERY}&stream_format={stream_format}"
            head = f"POST /v1/vocode?{query} HTTP/1.1\r\nHost: x\r\n"
            head += f"Content-Length: {len(long_mel)}\r\n\r\n"
            whole = head.encode() + long_mel
            connection.sendall(whole[: chance.choice([9, 200, len(whole)])])
            if chance.random() < 0.7:
                connection.settimeout(chance.random() / 20)
                try:
                    connection.recv(chance.randrange(1, 50_000))
                except TimeoutError:
                    gone.append("before the first byte")
            chance.choice([leave_quietly, leave_with_a_reset])(connection)

    gone = []
    with start(channels=3) as server:
        before = server.http.post("/v1/vocode?seed=1", content=make_npy()).content
        threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        server.wait(lambda: server.open_channels == 0)
        server.wait(lambda: server.service._bodies == 0)
        server.wait(lambda: len(server.server.server_state.tasks) == 0)
        assert server.service.state == "ready"
        assert server.service.engines["tiny"].totals.cancelled > 10
        after = server.http.post("/v1/vocode?seed=1", content=make_npy()).content
        assert after == before


def test_a_client_that_is_killed_leaves_no_channel_open(start, long_mel, tmp_path):
    mel = tmp_path / "long.npy"
    mel.write_bytes(long_mel)
    program = (
        "import sys, urllib.request\n"
        "body = open(sys.argv[2], 'rb').read()\n"
        "headers = {'Content-Type': 'application/x-npy'}\n"
        "answer = urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, headers))\n"
        "print(len(answer.read(2000)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with start(channels=1) as server:
        url = f"{server.url}/v1/vocode?{LONG_QUERY}"
        client = subprocess.Popen(
            [sys.executable, "-c", program, url, str(mel)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with client:
            assert client.stdout.readline() == b"2000\n"
            assert server.open_channels == 1
            client.send_signal(signal.SIGKILL)
        server.wait(lambda: server.open_channels == 0)


def test_a_reader_who_stops_is_cut_off_and_the_others_hear_nothing_of_it(start, long_mel, make_npy):
    with start(channels=2, idle_s=0.5) as server:
        alone = server.http.post("/v1/vocode?seed=2", content=make_npy()).content
        connection = server.begin(long_mel, LONG_QUERY, receive_bytes=4096)
        while server.open_channels:
            assert server.http.post("/v1/vocode?seed=2", content=make_npy()).content == alone
        labels = {"voice": "tiny", "transport": "audio", "reason": "timeout"}
        assert server.number("wavernn_streams_total", **labels) == 1
        with suppress(ConnectionResetError):
            assert len(read_all(connection)) < LONG_BYTES
        connection.close()


def test_a_reader_who_pauses_is_waited_for_and_little_is_made_meanwhile(start, long_mel):
    with start(channels=1) as server:
        whole = server.http.post(f"/v1/vocode?{LONG_QUERY}", content=long_mel).content
        labels = {"voice": "tiny", "transport": "audio"}
        made_before_s = server.number("wavernn_audio_seconds_total", **labels)
        connection = server.begin(long_mel, LONG_QUERY, receive_bytes=4096)
        engine = server.service.engines["tiny"]
        # nothing is spoken any more
        seen = -1
        while seen != engine.totals.samples:
            seen = engine.totals.samples
            time.sleep(0.3)
        made_s = server.number("wavernn_audio_seconds_total", **labels) - made_before_s
        assert made_s < LONG_S / 4
        # headers and some of the body have been read
        rest = read_exactly(connection, whole)
        assert whole.endswith(rest) and len(rest) > 0.9 * LONG_BYTES
        connection.close()


def read_exactly(connection, whole):
    """Reads until what came ends as the body does."""
    got = b""
    while not got.endswith(whole[-2000:]):
        more = connection.recv(1 << 16)
        assert more
        got += more
    return got


def test_a_failure_in_mid_stream_truncates_and_later_streams_are_refused(
    start, long_mel, refused, monkeypatch
):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with start(channels=2) as server:
        engine = server.service.engines["tiny"]
        with server.http.stream("POST", f"/v1/vocode?{LONG_QUERY}", content=long_mel) as answer:
            parts = answer.iter_raw()
            next(parts)
            monkeypatch.setattr(engine._speakers, "speak", None)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                list(parts)
        refused(server.http.post("/v1/vocode", content=long_mel), 503)
        refused(server.http.get("/health/ready"), 503)
        refused(server.http.get("/health/live"), 503)
        assert server.http.get("/health").json() == {"status": "failed"}
        labels = {"voice": "tiny", "transport": "audio", "reason": "error"}
        assert server.number("wavernn_streams_total", **labels) == 1


def test_events_tell_of_a_failure_in_mid_stream(start, long_mel, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with start(channels=1) as server:
        engine = server.service.engines["tiny"]
        query = f"/v1/vocode?{LONG_QUERY}&stream_format=sse"
        with server.http.stream("POST", query, content=long_mel) as answer:
            lines = answer.iter_lines()
            next(lines)
            monkeypatch.setattr(engine._speakers, "speak", None)
            *_, last = (line for line in lines if line)
        event = json.loads(last.removeprefix("data: "))
        assert event["type"] == "error"
        assert set(event["error"]) == {"message", "type", "param", "code"}


def test_a_stream_that_takes_too_long_is_cut_off(start, long_mel):
    with start(channels=1, stream_s=0.4) as server:
        begun = time.monotonic()
        with (
            server.http.stream("POST", f"/v1/vocode?{LONG_QUERY}", content=long_mel) as answer,
            pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
        ):
            for _ in answer.iter_raw(4096):
                time.sleep(0.01)
        assert time.monotonic() - begun < 30
        server.wait(lambda: server.open_channels == 0)
        labels = {"voice": "tiny", "transport": "audio", "reason": "timeout"}
        assert server.number("wavernn_streams_total", **labels) == 1


def test_a_full_server_refuses_at_once(start, long_mel, make_npy, refused):
    with start(channels=2) as server:
        connections = [server.begin(long_mel, LONG_QUERY, 4096) for _ in range(2)]
        took_s = []
        for _ in range(20):
            begun = time.perf_counter()
            answer = server.http.post("/v1/vocode", content=make_npy())
            took_s.append(time.perf_counter() - begun)
            assert refused(answer, 503)["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert sorted(took_s)[10] < 0.05
        assert server.number("wavernn_refused_total", reason="busy") == 20
        connections.pop().close()
        server.wait(lambda: server.open_channels == 1)
        assert server.http.post("/v1/vocode", content=make_npy()).status_code == 200
        connections.pop().close()
