"""The workers of a sweep: what one does, and how several are started."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from wavernn.errors import ConfigError, TrainingError, WaveRNNError
from wavernn.train.session import CHECKPOINT
from wavernn.train.sweep_grid import Plan, Run
from wavernn.train.sweep_progress import Progress, say
from wavernn.train.sweep_run import read_progress, rows_of, train_run
from wavernn.train.sweep_table import CSV, write_csv
from wavernn.train.sweep_trials import Trials


@dataclass(frozen=True)
class Job:
    """A plan, what it's run on, and where it goes."""

    plan: Plan
    data: Path
    out: Path
    storage: str
    data_sha256: str

    @property
    def cache(self) -> Path:
        """The folder of the features that all runs share."""
        return self.out / "features"

    def key(self, run: Run) -> str:
        """The run's key in the plan."""
        return self.plan.key(run, self.data_sha256)

    def folder(self, run: Run) -> Path:
        """Where a run is trained; one that is trained in another way gets another folder."""
        key = self.plan.training_key(run, self.data_sha256)
        return self.out / "runs" / f"{run.name}-{key[:8]}"

    def trials(self) -> Trials:
        """The queue, seen from this process."""
        return Trials(self.storage, self.plan.name, self.out)

    def table(self, trials: Trials) -> list[dict[str, Any]]:
        """The rows of the finished runs, in the plan's order and by the plan's names."""
        rows = trials.rows()
        return [
            row | {"run": run.name, "point": run.point}
            for run in self.plan.runs
            for row in rows.get(self.key(run), ())
        ]


def work(job: Job) -> None:
    """Trains and judges runs of the queue until none waits."""
    trials = job.trials()
    runs = {job.key(run): run for run in job.plan.runs}
    progress = Progress(runs, lambda run: read_progress(job.folder(run))["step"], trials)
    while (trial := trials.take()) is not None:
        with trial.lock:
            run = runs.get(trial.key)
            if run is None:
                trials.fail(trial, "the grid doesn't hold it any more")
                continue
            try:
                with _quiet():
                    rows = _do(job, run, progress.hear)
            except WaveRNNError as error:
                trials.fail(trial, str(error))
                say(f"{run.name} failed: {error}")
                continue
            trials.finish(trial, rows)
        write_csv(job.out / CSV, job.table(trials))
        progress.finished(run, rows[0])


def _do(job: Job, run: Run, hear: Callable[[Run, int], None]) -> list[dict[str, Any]]:
    start = None
    if run.parent is not None:
        # it has a place in the queue of its own, and is there already unless that failed
        parent = run.parent
        start = _train(job, parent, None, hear)
    _train(job, run, start, hear)
    init_from = f"{start.parent.name}/{CHECKPOINT}" if start else None
    return rows_of(run, job.folder(run), init_from, job.data, job.cache, job.plan.judging)


def _train(job: Job, run: Run, start: Path | None, hear: Callable[[Run, int], None]) -> Path:
    folder = job.folder(run)
    return train_run(run, folder, start, job.data, job.cache, lambda step: hear(run, step))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what each training and evaluation would say again from the log."""
    log = logging.getLogger("wavernn")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _run_here(job: Job, workers: int) -> None:
    if workers == 1:
        work(job)
        return
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_child, args=(job, workers)) for _ in range(workers)]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join()
    except KeyboardInterrupt:
        # they finish their step and save
        for child in children:
            child.terminate()
            child.join()
        raise
    codes = {child.exitcode for child in children} - {0}
    if codes:
        raise TrainingError(
            f"a worker ended with code {codes.pop()}, see above; the same command goes on"
        )


def _child(job: Job, workers: int) -> None:
    """A worker process, which ends with the one that started it."""
    # Ctrl-C reaches every process of a terminal; the first one passes it on
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (cores or 1) // workers)))
    try:
        work(job)
    except WaveRNNError as error:
        say(str(error))
        sys.exit(2)


def _follow() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def import_ray() -> Any:
    """Raises ConfigError where ray isn't installed."""
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigError(
            "--engine ray needs the package ray, which isn't installed: pip install ray, or leave "
            "--engine out and start the same command on every machine"
        ) from None


def _run_on_ray(job: Job, workers: int) -> None:
    """Starts the workers as Ray's tasks, on whatever cluster it is connected to."""
    ray = import_ray()
    ray.init(ignore_reinit_error=True)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus)(work)
    ray.get([task.remote(job) for _ in range(workers)])


ENGINES: dict[str, Callable[[Job, int], None]] = {"optuna": _run_here, "ray": _run_on_ray}
