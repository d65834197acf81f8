import errno
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from wavernn import checkpoint
from wavernn.errors import TrainingError
from wavernn.source import commit
from wavernn.train import provenance as module
from wavernn.train import report as report_module
from wavernn.train.report import Report

EVENTS = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Stop(Exception):
    pass


def heard(run, terminal=False, stop_at=None):
    """A report that can be read, and that may end its run."""

    class Heard(Report):
        def stepped(self, state, *more):
            super().stepped(state, *more)
            if state.step == stop_at:
                raise Stop

    report = Heard(run)
    report.console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    return report


def history(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture
def soon(monkeypatch):
    """The voice speaks for a moment only, and lines come at once."""
    monkeypatch.setattr(report_module, "SPEAKING_SECONDS", 0.0)
    monkeypatch.setattr(report_module, "SECONDS_BETWEEN_LINES", 0.0)


def test_curves_audio_and_history_are_written(runs, soon):
    run = runs.folder / "a"
    report = heard(run)
    runs.train("a", report=report)
    assert report.bar is None
    events = EVENTS.EventAccumulator(str(run / "log")).Reload()
    tags = events.Tags()
    densities = {f"density/{name}" for name in ("R_u", "R_r", "R_e", "O1", "O4")}
    # the start of a clip that is scored holds no tone, so there is no bits_voiced
    names = "bits_per_sample bits_coarse bits_fine bits_silence flac_bits"
    validations = {f"validation/{name}" for name in names.split()}
    assert set(tags["scalars"]) == densities | validations | {
        *("train/bits_coarse", "train/bits_fine", "train/gradient_norm", "train/learning_rate"),
        *("train/skipped_steps", "speed/samples_per_s", "speed/steps_per_s"),
        "speed/audio_seconds_per_s",
    }
    assert tags["audio"] == ["copy synthesis"]
    assert [event.step for event in events.Scalars("train/bits_fine")] == [4, 8, 12, 16, 20, 24]
    assert events.Scalars("density/O4")[-1].value == 0.25
    assert [event.step for event in events.Audio("copy synthesis")] == [8, 16, 24]
    assert events.Audio("copy synthesis")[0].sample_rate == 8_000
    rows = history(run)
    assert [row["step"] for row in rows] == [8, 16, 24]
    assert all(row["flac_bits"] == rows[0]["flac_bits"] for row in rows)
    bits = [event.value for event in events.Scalars("validation/bits_per_sample")]
    assert bits == pytest.approx([row["bits_per_sample"] for row in rows])
    voice = checkpoint.load(run / "checkpoint.safetensors")
    assert voice.provenance["metrics"] == rows[-1]


def test_lines_tell_speed_and_time_left(runs, soon):
    report = heard(runs.folder / "a")
    runs.train("a", report=report)
    lines = report.console.file.getvalue().splitlines()
    assert "making features of 8 recordings" in lines[0]
    steps = [line for line in lines if "min left" in line]
    assert len(steps) == 6
    for part in ("step 4/24: ", " bits/sample, ", " steps/s, ", " audio-s/s, 0 min left"):
        assert part in steps[0]
    (row,) = [line for line in lines if "step 16: validation" in line]
    assert "(coarse " in row
    assert "; FLAC " in row
    # the shortest piece that is given out: 8 frames of 64 samples
    assert "spoke 0.1 s of clip2 on backend " in lines[-1]


def test_a_terminal_has_a_bar(runs, soon):
    report = heard(runs.folder / "a", terminal=True)
    runs.train("a", report=report)
    shown = report.console.file.getvalue()
    for part in ("features", "quick", "24/24", "steps/s", "audio-s/s", "0:00:00"):
        assert part in shown
    assert "min left" not in shown


def test_a_resumed_run_takes_back_what_came_after_its_save(runs, soon):
    run = runs.folder / "a"
    # validated at 8, saved at 12, validated at 16
    with pytest.raises(Stop):
        runs.train("a", report=heard(run, stop_at=17))
    assert [row["step"] for row in history(run)] == [8, 16]
    with pytest.raises(Stop):
        runs.train("a", report=heard(run, stop_at=13), resume=True)
    assert [row["step"] for row in history(run)] == [8]
    runs.train("a", report=heard(run), resume=True)
    assert [row["step"] for row in history(run)] == [8, 16, 24]
    events = EVENTS.EventAccumulator(str(run / "log")).Reload()
    assert [event.step for event in events.Scalars("train/bits_fine")] == [4, 8, 12, 16, 20, 24]
    assert [event.step for event in events.Scalars("validation/bits_fine")] == [8, 16, 24]


def test_without_tensorboard_a_line_says_so(runs, soon, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = runs.folder / "a"
    report = heard(run)
    path = runs.train("a", report=report)
    assert "no TensorBoard curves: pip install 'wavernn[train]'" in report.console.file.getvalue()
    assert path.exists()
    assert len(history(run)) == 3
    assert not (run / "log").exists()


def test_a_full_disk_ends_the_run_in_a_sentence(runs, soon, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report_module, "write_atomic", full)
    sentence = r"can't write .*history\.jsonl: No space left on device; make room, then --resume"
    report = heard(runs.folder / "a")
    with pytest.raises(TrainingError, match=sentence):
        runs.train("a", report=report)
    # neither bar nor log is left open
    assert (report.bar, report.writer) == (None, None)


def test_what_is_said_is_not_taken_for_markup(runs):
    report = heard(runs.folder / "a")
    report.say("the run in /tmp/[red]x[/red] " + 200 * "y")
    assert report.console.file.getvalue().endswith(
        "the run in /tmp/[red]x[/red] " + 200 * "y" + "\n"
    )


def test_a_silent_report_writes_nothing(runs, capfd):
    runs.train("a", report=Report.silent())
    assert {path.suffix for path in (runs.folder / "a").iterdir()} == {".safetensors", ""}
    assert capfd.readouterr() == ("", "")


def test_provenance_says_where_a_voice_comes_from(runs, features, monkeypatch):
    monkeypatch.setattr(module, "commit", lambda file: "0123abc-dirty")
    voice = checkpoint.load(runs.train("a", licence="CC0"))
    assert voice.provenance.keys() == {
        *("program", "torch", "commit", "data_sha256", "data_licence", "data_seconds", "held_out"),
        *("steps", "samples", "skipped_steps", "metrics"),
    }
    assert voice.provenance["commit"] == "0123abc-dirty"
    assert voice.provenance["data_sha256"] == features.data_sha256
    assert voice.provenance["data_seconds"] == features.seconds
    assert voice.provenance["data_licence"] == "CC0"
    assert voice.provenance["held_out"] == ["clip2", "clip6"]


def test_the_commit_is_that_of_the_file(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "source.py"
    file.touch()
    assert commit(file) is None
    git("init")
    # an installed package in the repository of something else
    assert commit(file) is None
    git("add", "source.py")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert commit(file) == head
    file.write_text("changed")
    assert commit(file) == f"{head}-dirty"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path / "source.py") is None
