"""The queue of a sweep: Optuna's trials, one a run, in a journal file or a database.

A trial's worker holds a lock on a file below the sweep's folder, which the system lets go of
however the worker ends; a trial that is running without one is failed and queued again. Finished
rows are kept in the storage, so that a row is there when its trial is complete, and not before.
"""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from wavernn.errors import ConfigError
from wavernn.files import write_atomic

JOURNAL, STUDY, LOCKS = "trials.journal", "study", "locks"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is within the same `locked`; a killed one lets go."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Lock(JournalFileOpenLock):
    """The journal's lock, let go of when its holder is killed; Optuna's own is waited for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path, self.stack = path, ExitStack()

    def acquire(self) -> bool:
        self.stack.enter_context(locked(self.path))
        return True

    def release(self) -> None:
        self.stack.close()


def _open(storage: str, out: Path) -> JournalStorage | RDBStorage:
    if storage == "journal":
        lock = _Lock(out / LOCKS / "journal")
        return JournalStorage(JournalFileBackend(str(out / JOURNAL), lock))
    # what the database's driver raises is not known here
    try:
        return RDBStorage(storage)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"can't open --storage: {reason}; expected journal or the URL of a database, such as "
            "sqlite:///trials.db"
        ) from None


@dataclass
class Trial:
    """A run that this process works on for as long as it keeps the lock open."""

    asked: optuna.trial.Trial
    lock: IO[str]

    @property
    def key(self) -> str:
        """The run's key in the plan."""
        return str(self.asked.user_attrs["key"])


class Trials:
    """The trials of one sweep, seen from one of its processes."""

    def __init__(self, storage: str, name: str, out: Path) -> None:
        self.locks = out / LOCKS
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._queue():
            # locks tell nothing of another folder's workers, so a database has a study for each
            file = out / STUDY
            if not file.exists():
                write_atomic(file, f"{name}-{secrets.token_hex(4)}".encode())
            self.study = optuna.create_study(
                storage=_open(storage, out), study_name=file.read_text(), load_if_exists=True
            )

    @contextmanager
    def _queue(self) -> Iterator[None]:
        self.locks.mkdir(exist_ok=True)
        with locked(self.locks / "queue"):
            yield

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if "key" in trial.user_attrs]

    def enqueue(self, runs: dict[str, str]) -> None:
        """Queues the runs, name by key, that are neither finished nor waiting nor at work."""
        with self._queue():
            self._fail_abandoned()
            open_states = (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
            there = {trial.user_attrs["key"] for trial in self._all(*open_states)}
            for key, name in runs.items():
                if key not in there:
                    self._add(key, name)

    def _add(self, key: str, name: str) -> None:
        self.study.enqueue_trial({}, user_attrs={"key": key, "run": name})

    def _fail_abandoned(self) -> list[FrozenTrial]:
        """Fails the trials whose worker is gone."""
        gone = []
        for trial in self._all(TrialState.RUNNING):
            lock = self._try_lock(trial.number)
            if lock is None:
                continue
            with lock, suppress(UpdateFinishedTrialError):
                self.study.tell(trial.number, state=TrialState.FAIL)
                gone.append(trial)
        return gone

    def _try_lock(self, number: int) -> IO[str] | None:
        # it stays open as long as its worker lives
        file = open(self.locks / f"trial-{number}", "a")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def take(self) -> Trial | None:
        """Takes the next run of the queue; None when nothing waits."""
        with self._queue():
            for trial in self._fail_abandoned():
                self._add(trial.user_attrs["key"], trial.user_attrs["run"])
            if not self._all(TrialState.WAITING):
                return None
            asked = self.study.ask()
            lock = self._try_lock(asked.number)
            assert lock is not None, "a trial that waited has no worker"
            return Trial(asked, lock)

    def finish(self, trial: Trial, rows: list[dict[str, Any]]) -> None:
        """Completes a trial with its rows, all at once."""
        trial.asked.set_user_attr("rows", json.dumps(rows))
        self.study.tell(trial.asked, float(rows[0]["bits_per_sample"]))

    def fail(self, trial: Trial, reason: str) -> None:
        """Gives a trial up for now; the next `enqueue` queues its run again."""
        trial.asked.set_user_attr("error", reason)
        self.study.tell(trial.asked, state=TrialState.FAIL)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of every finished run, by key."""
        finished = self._all(TrialState.COMPLETE)
        return {t.user_attrs["key"]: json.loads(t.user_attrs["rows"]) for t in finished}

    def errors(self) -> dict[str, str]:
        """Why a run has failed, by key, for runs whose last trial did."""
        last = {trial.user_attrs["key"]: trial for trial in self._all()}
        return {k: t.user_attrs["error"] for k, t in last.items() if "error" in t.user_attrs}

    def at_work(self) -> int:
        """How many runs are being worked on, here or elsewhere."""
        return len(self._all(TrialState.RUNNING))
