"""The page of an evaluation: what it holds, and that a browser can take it as it is."""

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch

from wavernn.audio import read_audio
from wavernn.checkpoint import Checkpoint
from wavernn.errors import DataError
from wavernn.model import WaveRNN
from wavernn.train import baselines, figures, page, scoreboard
from wavernn.train.copysynthesis import Said
from wavernn.train.evaluate import evaluate

VOID = {"meta", "img", "br"}
# a name that would be code if it weren't escaped
NAME = "a<script>b & 'c' \"d\""


class Reader(HTMLParser):
    """Checks that elements are closed in order, and keeps what they hold."""

    def __init__(self, html):
        super().__init__()
        self.open, self.found, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), tag
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory, data, quick):
    """The page of two voices on one clip of an odd name, as text, and the result it's of."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("page")
    (folder / "data").mkdir()
    shutil.copy(data / "clip0.wav", folder / "data" / f"{NAME}.wav")
    config = quick("model.hidden=32", "prune.density={}")
    voice = Checkpoint(config, WaveRNN(config.model, config.mel).state_dict())
    torch.manual_seed(1)
    other = Checkpoint(config, WaveRNN(config.model, config.mel).state_dict())
    result = evaluate(
        voice,
        folder / "data",
        folder,
        backend="reference",
        baselines=True,
        others={"an <i>other": other},
        html=folder / "page.html",
    )
    assert not list(folder.glob(".*"))
    return (folder / "page.html").read_text(encoding="utf-8"), result, data / "clip0.wav"


def test_a_page_is_whole_and_needs_nothing_from_elsewhere(made):
    html, _, _ = made
    assert html.startswith("<!DOCTYPE html>")
    reader = Reader(html)
    assert reader.all("html") == [{"lang": "en"}]
    assert "width=device-width" in str(reader.all("meta"))
    assert not reader.all("link") and not reader.all("iframe")
    for _, attributes in reader.found:
        assert "href" not in attributes and "srcset" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    assert "default-src 'none'" in html
    assert "http:" not in html and "https:" not in html and "url(" not in html
    ids = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a.get("aria-labelledby", ids[0]) for a in reader.all("section")} <= set(ids)


def test_names_are_escaped(made):
    reader = Reader(made[0])
    assert len(reader.all("script")) == 1
    assert not reader.all("i")
    assert NAME in reader.texts
    assert any("an <i>other" in text for text in reader.texts)


def test_each_clip_has_a_player_and_a_picture_for_every_vocoder(made, quick):
    html, result, path = made
    reader = Reader(html)
    who = ["recording", "tiny" if "tiny" in html else quick().name, "an <i>other", "Griffin-Lim"]
    who += ["WORLD"] if "world" in result["baselines"] else []
    players, pictures = reader.all("audio"), reader.all("img")
    assert [a["aria-label"] for a in players] == [f"{NAME}, {name}" for name in who]
    assert [a["alt"] for a in pictures] == [
        f"Spectrogram and pitch of {NAME}, {name}" for name in who
    ]
    assert all("controls" in a for a in players)
    kind, sound = players[0]["src"].split(",")
    assert kind == "data:audio/flac;base64"
    samples_T, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert (samples_T == read_audio(path, rate_hz)).all()
    kind, image = pictures[0]["src"].split(",")
    assert kind == "data:image/webp;base64"
    assert base64.b64decode(image)[8:12] == b"WEBP"


def test_the_table_is_that_of_the_command_line(made, quick):
    html, result, _ = made
    reader = Reader(html)
    table = scoreboard.columns(quick().name, result)
    assert len(reader.all("table")) == 1
    for key, _, _ in scoreboard.ROWS:
        for value in scoreboard.cells(key, table):
            assert value in reader.texts
    lines = scoreboard.text(quick().name, result).splitlines()
    assert lines[0].split() == [quick().name, "an", "<i>other", *result["baselines"]]
    (line,) = (line for line in lines if line.startswith("mel_l1 "))
    assert float(line.split()[1]) == pytest.approx(result["mel_l1"], rel=1e-3)
    assert line.count(" – ") == 0
    (line,) = (line for line in lines if line.startswith("flac_bits "))
    assert line.split()[-1] == "–"


def test_a_long_clip_is_cut_on_the_page(quick):
    pytest.importorskip("matplotlib")
    mel = quick().mel
    long_T = 0.1 * np.random.default_rng(0).standard_normal(31 * mel.rate_hz).astype(np.float32)
    some = page.Page(mel)
    some.add("long", long_T, {"one": Said(long_T, {"mel_l1": 0.5})})
    for a in Reader(some._clips[0]).all("audio"):
        sound = io.BytesIO(base64.b64decode(a["src"].split(",")[1]))
        assert soundfile.info(sound).frames == 30 * mel.rate_hz


@pytest.mark.parametrize("samples", [1, 300])
def test_short_and_silent_clips_have_pictures(quick, samples):
    pytest.importorskip("matplotlib")
    silent_T = np.zeros(samples)
    assert figures.picture(silent_T, silent_T, quick().mel)[8:12] == b"WEBP"


def test_a_level_is_that_of_full_scale(quick):
    mel = quick().mel
    tone_T = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(mel.rate_hz) / mel.rate_hz)
    db_FN = figures.spectrogram_db(tone_T, mel)
    assert db_FN.max() == pytest.approx(-20, abs=0.1)
    # the bin of 1000 Hz
    assert db_FN[:, 50].argmax() == 1000 * mel.fft_samples // mel.rate_hz


def test_a_place_that_cannot_hold_a_page_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is a folder; give the path of the page"):
        page.check_target(tmp_path)
    with pytest.raises(DataError, match="none doesn't exist; make it first"):
        page.check_target(tmp_path / "none" / "page.html")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="can't write to the folder"):
        page.check_target(tmp_path / "page.html")
    monkeypatch.setattr(page, "missing_figures", lambda: "a page needs the package matplotlib")
    with pytest.raises(DataError, match="needs the package matplotlib"):
        page.check_target(tmp_path / "page.html")


def test_a_page_that_cannot_be_written_is_said(tmp_path, quick, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_atomic", full)
    config = quick()
    voice = Checkpoint(config, WaveRNN(config.model, config.mel).state_dict())
    with pytest.raises(DataError, match=r"page.html can't be written: No space left on device"):
        page.Page(config.mel).write(tmp_path / "page.html", {"one": voice}, {})


def test_the_shipped_names_are_those_of_the_vocoders():
    assert set(page.TITLES) == set(baselines.NAMES)
    assert re.fullmatch(r"[\w.–-]+", scoreboard.short(0.123456)) and scoreboard.short(None) == "–"
