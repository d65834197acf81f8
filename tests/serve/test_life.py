import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

from wavernn import capacity, checkpoint
from wavernn.cli import main
from wavernn.errors import BackendUnavailable
from wavernn.serve.service import Service
from wavernn.serve.settings import Settings
from wavernn.voices import FOLDER

LONG_QUERY = "format=pcm&sample_rate=48000&seed=1"
MAIN = "from wavernn.cli import main; main()"


@pytest.fixture(scope="module")
def long_mel(make_npy):
    return make_npy(1, 40.0)


# ---- loading ----


def test_while_voices_are_loaded_the_service_says_so(voice, start, refused, make_npy):
    with start() as server:
        engine = server.service.engines.pop("tiny")
        server.service._loading = True
        answer = server.http.get("/health/ready")
        assert "loading" in refused(answer, 503)["message"]
        assert answer.headers["retry-after"]
        assert server.http.get("/health").json() == {"status": "loading"}
        assert server.http.get("/health/live").json() == {"status": "loading"}
        refused(server.http.post("/v1/vocode", content=make_npy()), 503)
        request = {"model": "tts-1", "input": "Hello.", "voice": "tiny"}
        refused(server.http.post("/v1/audio/speech", json=request), 503)
        assert server.http.get("/v1/audio/voices").json() == {"voices": []}
        assert server.http.get("/metrics").status_code == 200
        server.service.engines["tiny"], server.service._loading = engine, False
        assert server.http.get("/health/ready").json() == {"status": "ready"}


def test_channels_are_what_was_measured(voice, monkeypatch):
    monkeypatch.setattr(capacity, "measure", lambda *_: 7.8)
    service = Service(Settings(backend="reference"))
    assert service.state == "loading"
    service.load({"tiny": voice})
    assert service.state == "ready"
    assert service.engines["tiny"].channels == int(capacity.SHARE * 7.8)
    service.close()


def test_a_service_that_couldnt_load_has_failed(voice, monkeypatch):
    service = Service(Settings(backend="none", channels=1))
    with pytest.raises(BackendUnavailable):
        service.load({"tiny": voice})
    assert service.state == "failed"
    service.close()


def test_voices_share_the_machine(voice, make_npy, refused, start):
    with start(channels=2) as server:
        service = server.service
        other = Service(Settings(backend="reference", channels=4))
        other.load({"other": voice})
        service.engines["other"] = other.engines["other"]
        held = [service.engines["other"].open() for _ in range(2)]
        assert server.http.post("/v1/vocode", content=make_npy()).status_code == 200
        # a half, and another quarter: what a stream of the first voice takes isn't left
        held.append(service.engines["other"].open())
        refused(server.http.post("/v1/vocode", content=make_npy()), 503)
        answer = server.http.post("/v1/vocode?voice=other", content=make_npy())
        assert answer.headers["x-voice"] == "other"
        assert len(server.http.get("/v1/audio/voices").json()["voices"]) == 2


# ---- numbers ----


def test_metrics_tell_how_streams_came(start, make_npy):
    with start() as server:
        for _ in range(3):
            server.http.post("/v1/vocode", content=make_npy(0, 0.5))
        labels = {"voice": "tiny", "transport": "audio"}
        assert server.number("wavernn_audio_seconds_total", **labels) == pytest.approx(1.5)
        assert server.number("wavernn_streams_total", **labels, reason="done") == 3
        for name in ("time_to_first_audio_seconds", "realtime_factor", "underrun_seconds"):
            assert server.number(f"wavernn_{name}_count", **labels) == 3
        first_s = server.number("wavernn_time_to_first_audio_seconds_sum", **labels)
        assert 0 < first_s < 3 * 0.5
        text = server.http.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=")
        for gauge in ("channels", "channels_open", "lanes", "lanes_busy", "queue"):
            assert f'\nwavernn_{gauge}{{voice="tiny"}} ' in text.text


def test_a_late_sample_is_an_underrun(start, make_mel):
    """The second word comes half a second after the first, which is 0.2 s long, has been heard."""

    class Late:
        def frames(self, text, voice, speed):
            yield make_mel(0, 0.2)
            time.sleep(0.7)
            yield make_mel(1, 0.2)

    with start(text=Late()) as server:
        query = {"input": "x", "response_format": "pcm"}
        assert server.http.get("/v1/audio/speech", params=query).status_code == 200
        labels = {"voice": "tiny", "transport": "audio"}
        underrun_s = server.number("wavernn_underrun_seconds_sum", **labels)
        assert 0.3 < underrun_s < 0.7


# ---- the end ----


@pytest.mark.usefixtures("small_buffers")
def test_at_the_end_running_streams_are_finished(start, long_mel):
    with start(channels=2, drain_s=60.0) as server:
        whole = server.http.post(f"/v1/vocode?{LONG_QUERY}", content=long_mel).content
        url = f"/v1/vocode?{LONG_QUERY}"
        with server.http.stream("POST", url, content=long_mel) as answer:
            parts = answer.iter_raw()
            got = next(parts)
            server.tell_to_end()
            assert server.service.state == "draining"
            server.wait(lambda: not accepts(server.address))
            assert server.thread.is_alive()
            got += b"".join(parts)
        assert got == whole
        server.thread.join(60)
        assert not server.thread.is_alive()
        engine = server.service.engines["tiny"]
        assert not engine._thread.is_alive()


def accepts(address):
    try:
        httpx.get(f"http://{address[0]}:{address[1]}/health", timeout=60)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.usefixtures("small_buffers")
def test_at_the_end_nobody_is_waited_for_without_limit(start, long_mel):
    with start(channels=1, drain_s=1.0) as server:
        connection = server.begin(long_mel, LONG_QUERY, receive_bytes=4096)
        begun = time.monotonic()
        server.tell_to_end()
        server.thread.join(60)
        assert not server.thread.is_alive()
        assert time.monotonic() - begun < 20
        assert server.open_channels == 0
        connection.close()


def test_no_new_streams_while_others_finish(start, make_npy, refused):
    with start() as server:
        server.service.drain()
        assert (
            "about to end"
            in refused(server.http.post("/v1/vocode", content=make_npy()), 503)["message"]
        )
        assert "draining" in refused(server.http.get("/health/ready"), 503)["message"]
        assert server.http.get("/health/live").status_code == 200


# ---- the command, with the shipped voice ----


@pytest.fixture
def command():
    """Runs `wavernn serve` and returns its process and address."""
    processes = []

    def run(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", MAIN, "serve", "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        processes.append(process)
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("http://"):
                # so that the pipe doesn't fill up
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process, line.strip()
        return process, "".join(said)

    yield run
    for process in processes:
        process.kill()
        process.wait(60)
        process.stderr.close()


def wait_until_ready(client):
    until = time.monotonic() + 120
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.skipif(
    not (FOLDER / "lj-sparse-384.safetensors").exists(), reason="the shipped voice isn't here"
)
def test_the_command_serves_the_shipped_voice_until_its_told_to_end(command):
    demo = (FOLDER / "samples" / "demo.npz").read_bytes()
    key = {"authorization": "Bearer not-a-secret"}
    process, url = command("--channels", "2", WAVERNN_SERVE_API_KEYS="not-a-secret")
    with httpx.Client(base_url=url, timeout=120, headers=key) as client:
        wait_until_ready(client)
        names = [voice["id"] for voice in client.get("/v1/audio/voices").json()["voices"]]
        assert names == ["lj-sparse-384"]
        answer = client.post("/v1/vocode?seed=1&format=pcm", content=demo)
        assert len(answer.content) == int(answer.headers["content-length"])
        loudest = np.abs(np.frombuffer(answer.content, "<i2")).max()
        assert 1000 < loudest <= 32_767
        again = client.post("/v1/vocode?seed=1&format=pcm", content=demo)
        assert again.content == answer.content
        with client.stream("POST", "/v1/vocode?seed=1&format=pcm", content=demo) as last:
            parts = last.iter_raw(100)
            got = next(parts)
            process.send_signal(signal.SIGTERM)
            got += b"".join(parts)
        assert got == answer.content
    assert process.wait(60) in (0, -signal.SIGTERM)


def test_the_command_takes_options_from_the_environment(command, voice, tmp_path):
    path = tmp_path / "small.safetensors"
    checkpoint.save(path, voice)
    process, url = command(
        "--backend",
        "reference",
        WAVERNN_SERVE_VOICES=str(path),
        WAVERNN_SERVE_CHANNELS="3",
        WAVERNN_SERVE_REQUESTS_PER_MINUTE="1",
    )
    with httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        assert 'wavernn_channels{voice="small"} 3.0' in client.get("/metrics").text
        assert client.get("/v1/models").status_code == 429
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no-such-voice"], "unknown voice no-such-voice"),
        (["--api-keys-file", "no-such-file"], "can't read the API keys"),
        (["--host", "203.0.113.7"], "can't listen at 203.0.113.7"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_serves(monkeypatch, capsys, arguments, reason):
    monkeypatch.setattr(sys, "argv", ["wavernn", "serve", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


def test_keys_arent_taken_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wavernn", "serve", "--api-keys", "not-a-secret"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "No such option" in capsys.readouterr().err
