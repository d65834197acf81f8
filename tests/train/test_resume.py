import json
import os
import signal
import time

import pytest
from safetensors.torch import save_file

from wavernn import checkpoint
from wavernn.audio import read_audio, write_audio
from wavernn.errors import CheckpointError, DataError, TrainingError
from wavernn.files import write_atomic
from wavernn.train.report import Report
from wavernn.train.sampler import Batches


class Stop(Exception):
    pass


class Watch(Report):
    """Ends the run without a save after a step; keeps what was said."""

    def __init__(self, stop_at=None):
        super().__init__(None)
        self.stop_at, self.steps, self.sentences = stop_at, [], []

    def stepped(self, state, coarse, fine, norm, rate):
        self.steps.append(state.step)
        if state.step == self.stop_at:
            raise Stop

    def say(self, sentence):
        self.sentences.append(sentence)


def wait_for_a_save(runs, name, process):
    path = runs.folder / name / "state.safetensors"
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def sets(overrides):
    return [part for line in overrides for part in ("--set", line)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_is_killed_and_resumed_equals_one_that_is_not(runs, precision):
    # long enough to be killed before the end, and pruned all the while
    overrides = (
        f"train.precision={precision}",
        "train.steps=80",
        "train.save_every_steps=5",
        "train.validate_every_steps=40",
        "prune.ramp_steps=70",
    )
    process = runs.start("a", *sets(overrides), "--licence", "mine")
    wait_for_a_save(runs, "a", process)
    process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, stderr
    step = runs.state("a")[0]["step"]
    assert 5 <= step < 80
    watch = Watch()
    runs.train("a", *overrides, resume=True, report=watch)
    assert watch.steps == list(range(step + 1, 81))
    runs.train("b", *overrides, licence="mine")
    runs.assert_same("a", "b")


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.carry_state=false",),
        ("train.input_noise=0.0", "prune.balanced=true"),
        ("model.input=scalar", "prune.keep_diagonal=true"),
        ("model.subscale=4", "model.context_channels=16", "prune.density.X_e=0.5"),
        ("model.fused=2", "prune.block_columns=2"),
        ("model.fused=2", "prune.block_columns=2", "train.precision=bfloat16"),
    ],
    ids=["no carry", "no noise, balanced", "scalar, diagonal", "subscale", "fused", "fused bf16"],
)
@pytest.mark.parametrize("stop_at", [7, 14])
def test_a_run_that_fails_and_is_resumed_equals_one_that_does_not(runs, overrides, stop_at):
    with pytest.raises(Stop):
        runs.train("a", *overrides, report=Watch(stop_at))
    watch = Watch()
    runs.train("a", *overrides, resume=True, report=watch)
    assert watch.steps[0] == stop_at // 6 * 6 + 1
    runs.train("b", *overrides)
    runs.assert_same("a", "b")


def test_ctrl_c_ends_the_step_saves_and_says_how_to_go_on(runs):
    overrides = ("train.steps=3000", "train.save_every_steps=5", "train.validate_every_steps=1000")
    process = runs.start("a", *sets(overrides))
    wait_for_a_save(runs, "a", process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    step = runs.state("a")[0]["step"]
    assert f"stopped and saved at step {step} of 3000; go on with the same command" in stderr
    assert stderr.rstrip().endswith("--resume")
    assert step >= 5
    assert json.loads(runs.voice("a")[0]["body"])["provenance"]["steps"] == step


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_run_that_is_interrupted_and_resumed_equals_one_that_is_not(
    runs, monkeypatch, number, raised
):
    cut = Batches.next

    def interrupted(self, step):
        if step == 9:
            signal.raise_signal(number)
        return cut(self, step)

    monkeypatch.setattr(Batches, "next", interrupted)
    watch = Watch()
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised) as caught:
        runs.train("a", report=watch)
    assert raised is KeyboardInterrupt or caught.value.code == 128 + number
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert watch.steps == list(range(1, 11))
    assert runs.state("a")[0]["step"] == 10
    monkeypatch.undo()
    runs.train("a", resume=True)
    runs.train("b")
    runs.assert_same("a", "b")


def test_a_second_ctrl_c_does_not_wait(runs, monkeypatch):
    def interrupted(self, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(Batches, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.train("a")
    assert not (runs.folder / "a" / "state.safetensors").exists()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_resuming_a_finished_run_changes_nothing_and_says_so(runs):
    path = runs.train("a")
    before = content(runs.folder / "a")
    watch = Watch()
    assert runs.train("a", resume=True, report=watch) == path
    assert watch.steps == []
    assert watch.sentences == [f"the run in {runs.folder / 'a'} is finished, nothing is left to do"]
    assert content(runs.folder / "a") == before


def test_a_folder_that_holds_a_run_is_not_overwritten(runs):
    runs.train("a")
    before = content(runs.folder / "a")
    sentence = r"a already holds a run \({}\); give --resume to go on with it, or choose another"
    with pytest.raises(TrainingError, match=sentence.format("state.safetensors")):
        runs.train("a", "train.seed=1")
    assert content(runs.folder / "a") == before
    (runs.folder / "a" / "state.safetensors").unlink()
    with pytest.raises(TrainingError, match=sentence.format("checkpoint.safetensors")):
        runs.train("a")


def test_the_command_line_refuses_in_a_sentence(runs):
    (runs.folder / "a").mkdir()
    (runs.folder / "a" / "state.safetensors").write_bytes(b"x")
    process = runs.start("a")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert stderr.startswith("wavernn: ")
    assert stderr.count("\n") == 1
    assert "already holds a run" in stderr


def test_there_must_be_something_to_resume(runs):
    sentence = "nothing to resume in .*a: it holds no state.safetensors; leave --resume out"
    with pytest.raises(TrainingError, match=sentence):
        runs.train("a", resume=True)
    assert not (runs.folder / "a").exists()


def test_a_run_that_stopped_before_its_first_save_can_begin_again(runs):
    with pytest.raises(Stop):
        runs.train("a", report=Watch(3))
    runs.train("a")
    assert runs.state("a")[0]["step"] == 24


def test_resuming_and_starting_from_a_voice_exclude_each_other(runs):
    path = runs.train("a", "train.steps=1")
    with pytest.raises(TrainingError, match="expected one of --resume and --init-from, got both"):
        runs.train("a", "train.steps=1", resume=True, init_from=path)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("train.steps=25", "train.steps was 24, now 25"),
        ("train.learning_rate=0.1", "train.learning_rate was 0.002, now 0.1"),
        ("model.hidden=128", "model.hidden was 64, now 128"),
        ("prune.density.O1=0.5", "prune.density.O1 was 0.05, now 0.5"),
        ("mel.bands=20", "mel.bands was 16, now 20"),
    ],
    ids=lambda value: value.split(" ")[0],
)
def test_another_configuration_is_refused_by_its_key(runs, override, difference):
    runs.train("a")
    before = content(runs.folder / "a")
    sentence = f"a was trained with another configuration: {difference}; resume with the same"
    with pytest.raises(TrainingError, match=sentence):
        runs.train("a", override, resume=True)
    assert content(runs.folder / "a") == before


def test_other_recordings_are_refused(runs, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for path in runs.data.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    with pytest.raises(Stop):
        runs.train("a", data=data, report=Watch(8))
    write_audio(data / "clip3.wav", read_audio(data / "clip3.wav", 8000) / 2, 8000)
    before = content(runs.folder / "a")
    sentence = "expected the recordings that the run in .*a began with, .* put them back, or start"
    with pytest.raises(DataError, match=sentence):
        runs.train("a", data=data, resume=True)
    assert content(runs.folder / "a") == before
    # the same ones elsewhere are fine
    runs.train("a", resume=True)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    packed = bytearray(path.read_bytes())
    packed[-100] ^= 1
    path.write_bytes(packed)


def foreign(path):
    path.write_bytes((path.parent / "checkpoint.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, ".*"),
        (flip, "its sha256 doesn't match"),
        (foreign, "it is no wavernn-run of version 1"),
        (lambda path: path.write_bytes(b""), ".*"),
        (lambda path: path.write_text("no state"), ".*"),
        (lambda path: save_file({}, path, {"format": "wavernn-run", "version": "1"}), "'body'"),
        (lambda path: (path.unlink(), path.mkdir()), ".*"),
    ],
    ids=["truncated", "flipped", "foreign", "empty", "text", "no body", "folder"],
)
def test_a_damaged_state_is_refused(runs, damage, reason):
    runs.train("a", "train.steps=6")
    path = runs.folder / "a" / "state.safetensors"
    damage(path)
    before = content(runs.folder / "a")
    sentence = rf"can't resume from .*state\.safetensors: {reason}; start anew in another --out"
    with pytest.raises(TrainingError, match=sentence) as raised:
        runs.train("a", "train.steps=6", resume=True)
    assert "\n" not in str(raised.value)
    assert content(runs.folder / "a") == before


def test_a_state_without_origin_and_digest_is_taken_as_it_is(runs):
    with pytest.raises(Stop):
        runs.train("a", report=Watch(15))
    path = runs.folder / "a" / "state.safetensors"
    body, tensors = runs.state("a")
    del body["origin"]
    metadata = {"format": "wavernn-run", "version": "1", "body": json.dumps(body)}
    save_file(tensors, path, metadata)
    runs.train("a", resume=True)
    runs.train("b")
    runs.assert_same("a", "b")


def test_a_state_of_a_later_version_is_refused_by_its_key(runs):
    runs.train("a", "train.steps=1")
    body, tensors = runs.state("a")
    body["config"]["train"]["magic"] = 1
    metadata = {"format": "wavernn-run", "version": "1", "body": json.dumps(body)}
    save_file(tensors, runs.folder / "a" / "state.safetensors", metadata)
    sentence = r"a was trained by another version of this program: unknown key train\.magic"
    with pytest.raises(TrainingError, match=sentence):
        runs.train("a", "train.steps=1", resume=True)


def test_a_save_that_fails_leaves_the_one_before(runs, monkeypatch):
    replace, count = os.replace, iter(range(100))

    def full(source, target):
        if str(target).endswith("state.safetensors") and next(count):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    sentence = "can't save step 12 to .*: No space left on device; make room, then --resume"
    with pytest.raises(TrainingError, match=sentence):
        runs.train("a")
    monkeypatch.undo()
    assert runs.state("a")[0]["step"] == 6
    assert not [path for path in (runs.folder / "a").iterdir() if path.suffix == ".tmp"]
    runs.train("a", resume=True)
    runs.train("b")
    runs.assert_same("a", "b")


def test_an_out_that_cannot_be_made_is_refused(runs):
    (runs.folder / "file").touch()
    with pytest.raises(DataError, match=r"can't write features to .*file/a: Not a directory"):
        runs.train("file/a")


def test_what_a_killed_process_was_writing_is_cleared_away(runs, monkeypatch):
    # a process that is killed can't
    monkeypatch.setattr("pathlib.Path.unlink", lambda *args, **kwargs: None)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(Stop))
    (runs.folder / "a").mkdir()
    with pytest.raises(Stop):
        write_atomic(runs.folder / "a" / "state.safetensors", b"half")
    monkeypatch.undo()
    assert len(list((runs.folder / "a").iterdir())) == 1
    runs.train("a", "train.steps=1")
    assert not [path for path in (runs.folder / "a").iterdir() if path.suffix == ".tmp"]


def test_a_licence_outlives_a_resume(runs):
    with pytest.raises(Stop):
        runs.train("a", licence="CC0", report=Watch(8))
    path = runs.train("a", resume=True)
    assert checkpoint.load(path).provenance["data_licence"] == "CC0"


def test_a_voice_is_where_fine_tuning_begins(runs):
    source = runs.train("a", licence="CC0")
    path = runs.train("b", "train.learning_rate=1e-12", "train.steps=3", init_from=source)
    voice, base = checkpoint.load(path), checkpoint.load(source)
    for name, tensor in base.tensors.items():
        assert (voice.tensors[name] - tensor).abs().max() < 1e-6
    assert voice.provenance["init_from"] == {"sha256": base.sha256, "data_licence": "CC0"}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.hidden=128", r"but model\.hidden is 64 in .* and 128 in recipe quick; change"),
        ("mel.bands=17", r"but mel\.bands is 16 in .* and 17 in recipe quick; change"),
    ],
)
def test_fine_tuning_needs_a_voice_that_fits(runs, override, sentence):
    source = runs.train("a", "train.steps=1")
    with pytest.raises(TrainingError, match=sentence):
        runs.train("b", override, init_from=source)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.safetensors"):
        runs.train("b", init_from=runs.folder / "nothing.safetensors")
    assert not (runs.folder / "b").exists()
