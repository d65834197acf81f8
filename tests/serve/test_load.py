import json
import socket
import threading
from contextlib import contextmanager

import pytest
import typer
from typer.testing import CliRunner

from tests.serve.fronts import Words
from wavernn import cli_load
from wavernn.errors import ConfigError
from wavernn.melfile import write_mel
from wavernn.serve.caller import Chunked, Target
from wavernn.serve.listened import Listened
from wavernn.serve.load import Plan, quantiles, run

LONG = 60.0
AUDIO_BYTES = 4000


@pytest.fixture(scope="module")
def target(running, make_npy):
    return Target.of(running.url, make_npy(), "pcm")


# ---- what is measured ----


def test_chunks_are_counted_however_they_are_cut():
    data = b"5\r\nhello\r\n1a;x=y\r\n" + b"\n" * 26 + b"\r\n0\r\n\r\nmore"
    for size in range(1, len(data) + 1):
        chunked = Chunked()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert sum(map(chunked.feed, pieces)) == 31
        assert chunked.ended


def listened(*arrivals, bytes_per_s=100.0):
    return Listened(
        0.5,
        status=200,
        outcome="done",
        answered_s=0.9,
        ended_s=5.0,
        bytes_per_s=bytes_per_s,
        arrivals=list(arrivals),
    )


def test_an_underrun_is_when_all_was_played_before_more_came():
    # a second of audio at 1, one at 1.9, one at 4: played from 1 to 3, silent until 4
    found = listened((1.0, 100), (1.9, 200), (4.0, 300))
    assert found.underruns(0.0) == (1, pytest.approx(1.0))
    assert found.heard_s(0.0) == pytest.approx(5.0)
    # who began later heard less of the gap, or nothing
    assert found.underruns(0.4) == (1, pytest.approx(0.6))
    assert found.underruns(1.1) == (0, 0.0)
    assert found.heard_s(1.1) == pytest.approx(5.1)


def test_a_gap_puts_off_all_that_follows():
    # silent from 2 to 3, and so the next second is from 3 to 4
    found = listened((1.0, 100), (3.0, 200), (3.9, 300))
    assert found.underruns(0.0) == (1, pytest.approx(1.0))


def test_a_row_has_times_from_when_the_request_was_due():
    row = listened((1.0, 100), (1.9, 200), (4.0, 300)).row(0.0)
    assert row["answer_ms"] == pytest.approx(400)
    assert row["first_audio_ms"] == pytest.approx(500)
    assert row["longest_gap_ms"] == pytest.approx(2100)
    assert row["audio_s"] == pytest.approx(3.0)
    assert row["realtime_factor"] == pytest.approx(3.0 / 4.5)
    # bytes of a codec tell of no time
    assert listened((1.0, 100), (4.0, 300), bytes_per_s=0.0).row(0.0)["underruns"] == 0


def test_quantiles_are_values_that_were_there():
    assert quantiles([]) is None
    assert quantiles([3.0]) == dict.fromkeys(("min", "p50", "p90", "p99", "max"), 3.0)
    values = quantiles([float(n) for n in range(101)])
    assert values == {"min": 0.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


# ---- against the service ----


def test_listeners_one_after_the_other(running, target):
    before = running.number("wavernn_streams_total", voice="tiny", transport="audio", reason="done")
    found = run(target, Plan(streams=3, requests=9, audio_bytes=AUDIO_BYTES, seed=7))
    assert found["outcomes"] == {"done": 9} and found["statuses"] == {"200": 9}
    assert found["audio_s"] == pytest.approx(9 * 0.25)
    assert 0 < found["first_audio_ms"]["min"] <= found["first_audio_ms"]["max"] < 1000 * LONG
    assert found["realtime_factor"] > 0 and found["stream_realtime_factor"]["min"] > 0
    assert len(found["rows"]) == 9
    assert 0 < found["client"]["cpu_share"] < 1.5
    after = running.number("wavernn_streams_total", voice="tiny", transport="audio", reason="done")
    assert after - before == 9


def test_a_listener_may_hear_the_whole_before_asking_again(target):
    assert run(target, Plan(requests=3, listen=True))["seconds"] > 3 * 0.25


def test_requests_at_random_times(target):
    found = run(target, Plan(streams=4, requests=8, rate=40.0, seed=1))
    assert found["outcomes"] == {"done": 8} and found["rate"] == 40.0


@pytest.mark.parametrize("format", ["wav", "opus"])
def test_other_formats(running, make_npy, format):
    if format == "opus":
        pytest.importorskip("av")
    found = run(Target.of(running.url, make_npy(), format), Plan())
    assert found["outcomes"] == {"done": 1}
    # the header isn't audio
    assert found["audio_s"] == (pytest.approx(0.25) if format == "wav" else 0)
    assert found["first_audio_ms"]["p50"] > 0


def test_text_is_asked_for_by_query(start, make_mel):
    front = Words(lambda characters: make_mel(characters, 0.1))
    with start(text=front) as server:
        found = run(Target.of(server.url, b"", "wav", text="Two & 2"), Plan(requests=2))
    assert found["outcomes"] == {"done": 2}
    assert found["audio_s"] == pytest.approx(2 * 3 * 0.1)
    assert [text for text, _, _ in front.asked] == ["Two & 2"] * 2


def test_listeners_who_leave_leave_nothing_behind(running, target):
    plan = Plan(streams=4, requests=60, disconnect=0.8, audio_bytes=AUDIO_BYTES)
    found = run(target, plan)
    # a channel may not be free again at once
    assert set(found["outcomes"]) <= {"done", "left", "refused"}
    assert 30 <= found["outcomes"]["left"] < 60
    # of those who left before there was an answer
    assert {"0", "200"} <= set(found["statuses"]) <= {"0", "200", "503"}
    running.wait(lambda: running.open_channels == 0)


def test_refusals_are_counted_and_timed(start, make_npy):
    with start(channels=1) as server:
        target = Target.of(server.url, make_npy(seconds=2.0), "pcm")
        found = run(target, Plan(streams=4, requests=8))
    assert found["outcomes"]["refused"] == found["statuses"]["503"] >= 1
    assert found["outcomes"]["done"] == found["statuses"]["200"] >= 1
    assert found["refused_ms"]["max"] > 0


def test_a_key_is_sent(start, make_npy):
    with start(api_keys=("key-of-a-test",)) as server:
        for key, status in (("key-of-a-test", "200"), ("other-key", "401"), (None, "401")):
            found = run(Target.of(server.url, make_npy(), "pcm", key=key), Plan())
            assert found["statuses"] == {status: 1}


# ---- against servers that do it wrong ----


@contextmanager
def answering(answer, stay=False):
    """A server that gives one connection an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def serve():
            connection, _ = listening.accept()
            connection.settimeout(LONG)
            with connection:
                while connection.recv(65536)[-1:] != b"!":
                    pass
                connection.sendall(answer)
                if stay:
                    done.wait(LONG)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Target("127.0.0.1", listening.getsockname()[1], "/", False, b"!", "pcm")
        finally:
            done.set()
            thread.join(LONG)


OK = b"HTTP/1.1 200 OK\r\nx-sample-rate: 8000\r\n"
WRONG = {
    "cut": (OK + b"Content-Length: 100\r\n\r\n" + b"a" * 50, "cut"),
    "cut in a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n20\r\nabc", "cut"),
    "no HTTP": (b"hello\r\n\r\n", "cut"),
    "bad chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "cut"),
    "no end of headers": (b"a" * 100_000, "cut"),
    "nothing": (b"", "cut"),
    "without a length": (OK + b"\r\n" + b"a" * 1600, "done"),
    "an error": (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "refused"),
}


@pytest.mark.parametrize(("answer", "outcome"), WRONG.values(), ids=WRONG)
def test_answers_that_are_wrong(answer, outcome):
    with answering(answer) as target:
        assert run(target, Plan())["outcomes"] == {outcome: 1}


def test_an_answer_that_stays_away_is_late():
    with answering(OK + b"Content-Length: 100\r\n\r\n" + b"a" * 50, stay=True) as target:
        found = run(target, Plan(timeout_s=0.3))
    assert found["outcomes"] == {"late": 1} and found["audio_s"] > 0


def test_where_nobody_listens_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    target = Target("127.0.0.1", port, "/", False, b"", "pcm")
    with pytest.raises(ConfigError, match="nothing answers at 127"):
        run(target, Plan())


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://a", "http://", "http://a:x"])
def test_a_url_that_is_none_is_a_sentence(url):
    with pytest.raises(ConfigError, match="expected a URL"):
        Target.of(url, b"", "pcm")


# ---- the command ----


def command(*arguments):
    app = typer.Typer()
    app.command()(cli_load.load)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_prints_one_object(running, voice, make_mel, tmp_path):
    write_mel(tmp_path / "mel.safetensors", make_mel(), voice.config.mel)
    options = ("--mel", tmp_path / "mel.safetensors", "--streams", 2, "--requests", 4, "--json")
    done = command(running.url, *options)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["outcomes"] == {"done": 4} and "rows" not in found
    found = json.loads(command(running.url, *options, "--rows").stdout)
    assert [row["outcome"] for row in found["rows"]] == ["done"] * 4


def test_the_command_refuses_what_cant_be(running, monkeypatch):
    assert command(running.url, "--format", "opus", "--disconnect", 0.5).exit_code == 2
    monkeypatch.delenv("NO_KEY", raising=False)
    done = command(running.url, "--key-env", "NO_KEY")
    assert isinstance(done.exception, ConfigError) and "NO_KEY" in str(done.exception)
