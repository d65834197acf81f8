import subprocess
import sys

import pytest

from wavernn.errors import ConfigError

pytest.importorskip("optuna")

from wavernn.train.sweep_trials import Trials

RUNS = {"k1": "one", "k2": "two", "k3": "three"}
ROWS = [{"bits_per_sample": 1.5, "x": None}]


@pytest.fixture(params=["journal", "sqlite"])
def trials(request, tmp_path):
    """Opens the queue once more, as another process would."""
    storage = request.param
    if storage == "sqlite":
        storage = f"sqlite:///{tmp_path / 'trials.db'}"
    made, taken = [], []

    class Watched(Trials):
        def take(self):
            trial = super().take()
            taken.extend([trial] if trial else [])
            return trial

    def open_queue(folder=tmp_path):
        made.append(Watched(storage, "name", folder))
        return made[-1]

    yield open_queue
    for trial in taken:
        trial.lock.close()
    for some in made:
        if request.param == "sqlite":
            some.study._storage._backend.engine.dispose()


def test_every_run_is_taken_once(trials):
    first, second = trials(), trials()
    for some in (first, second):
        some.enqueue(RUNS)
    taken = [first.take(), second.take(), first.take()]
    assert [trial.key for trial in taken] == ["k1", "k2", "k3"]
    assert first.at_work() == 3
    assert first.take() is second.take() is None
    for trial in taken:
        first.finish(trial, ROWS)
    assert second.rows() == dict.fromkeys(RUNS, ROWS)
    # another start of the same sweep, or one with a run more
    third = trials()
    third.enqueue({**RUNS, "k4": "four"})
    assert third.take().key == "k4"
    assert third.take() is None


def test_what_a_dead_worker_had_taken_is_taken_again(trials):
    first, second = trials(), trials()
    first.enqueue(RUNS)
    dead, alive = first.take(), first.take()
    dead.lock.close()
    assert [second.take().key for _ in range(2)] == ["k3", "k1"]
    assert second.take() is None
    first.finish(alive, ROWS)
    assert second.rows() == {"k2": ROWS}
    assert second.errors() == {}


def test_a_dead_workers_run_is_queued_at_the_next_start(trials):
    first = trials()
    first.enqueue({"k1": "one"})
    first.take().lock.close()
    second = trials()
    second.enqueue({"k1": "one"})
    assert second.take().key == "k1"
    assert second.take() is None


def test_a_failed_run_is_tried_once_at_each_start(trials):
    first = trials()
    first.enqueue(RUNS)
    first.fail(first.take(), "it diverged")
    assert [first.take().key, first.take().key, first.take()] == ["k2", "k3", None]
    assert first.errors() == {"k1": "it diverged"}
    second = trials()
    second.enqueue(RUNS)
    trial = second.take()
    assert trial.key == "k1"
    second.finish(trial, ROWS)
    assert second.errors() == {}


def test_another_folder_is_another_sweep(trials, tmp_path):
    first = trials()
    first.enqueue(RUNS)
    (tmp_path / "other").mkdir()
    assert trials(tmp_path / "other").take() is None


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////nowhere/at/all.db", "x://y"])
def test_a_storage_that_cannot_be_opened_is_a_sentence(tmp_path, storage):
    sentence = "can't open --storage: .*; expected journal or the URL of a database"
    with pytest.raises(ConfigError, match=sentence) as raised:
        Trials(storage, "name", tmp_path)
    assert "\n" not in str(raised.value)


def test_a_killed_process_lets_go_of_its_lock(tmp_path):
    code = (
        "import sys, pathlib; from wavernn.train.sweep_trials import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    from wavernn.train.sweep_trials import locked

    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"in\n"
    process.kill()
    process.communicate()
    with locked(tmp_path / "lock"):
        pass
