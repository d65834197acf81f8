"""A sweep: every run of a grid trained and judged once, by one process or many, as one table.

All that is known lies in the sweep's folder, so the same command goes on where it was stopped, and
another process or machine that sees the folder may run it at the same time to share the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wavernn import kernels
from wavernn.errors import ConfigError, TrainingError
from wavernn.files import write_atomic
from wavernn.kernels.bench import random_voice
from wavernn.train.features import build, find_recordings, split
from wavernn.train.metrics import missing_metrics
from wavernn.train.sweep_grid import Plan
from wavernn.train.sweep_page import page
from wavernn.train.sweep_progress import say
from wavernn.train.sweep_table import CSV, write_csv
from wavernn.train.sweep_trials import Trials, locked
from wavernn.train.sweep_work import ENGINES, Job, import_ray

HTML = "report.html"


def sweep(
    plan: Plan,
    data: Path,
    out: Path,
    workers: int = 1,
    storage: str = "journal",
    engine: str = "optuna",
) -> dict[str, Any]:
    """Runs a plan, or what is left of it, and writes the table and the report.

    Returns what `wavernn sweep --json` prints. Raises ConfigError, DataError or BackendUnavailable
    before anything is written, and TrainingError in the end where runs have failed.
    """
    start = ENGINES.get(engine)
    if start is None:
        raise ConfigError(f"unknown --engine {engine}; known: {', '.join(ENGINES)}")
    if engine == "ray":
        import_ray()
    recordings = find_recordings(data)
    _check_formats(plan)
    for sentence in missing_metrics():
        say(sentence)
    out.mkdir(parents=True, exist_ok=True)
    job = Job(plan, data, out, storage, _make_features(plan, recordings, out / "features"))
    trials = job.trials()
    trials.enqueue({job.key(run): run.name for run in plan.runs})
    done = len(job.table(trials)) // len(plan.judging.formats)
    say(f"{len(plan.runs)} runs, {done} of them finished before")
    try:
        if done < len(plan.runs):
            start(job, workers)
    finally:
        rows = job.table(trials)
        write_csv(out / CSV, rows)
        write_atomic(out / HTML, page(plan, rows).encode())
    return _outcome(job, trials, rows)


def _outcome(job: Job, trials: Trials, rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = {job.key(run): run.name for run in job.plan.runs}
    done = trials.rows()
    failed = {names[k]: why for k, why in trials.errors().items() if k in names and k not in done}
    if failed:
        first, why = next(iter(failed.items()))
        raise TrainingError(
            f"{len(failed)} of {len(names)} runs failed, the first of them {first}: {why}; the "
            f"others are in {job.out / CSV}, and the same command tries these again"
        )
    return {
        "runs": len(names),
        "finished": len(names.keys() & done.keys()),
        "elsewhere": trials.at_work(),
        "results": str(job.out / CSV),
        "report": str(job.out / HTML),
        "rows": rows,
    }


def _check_formats(plan: Plan) -> None:
    """Raises BackendUnavailable for a backend that can't run or a format that it doesn't have."""
    smallest = min(plan.runs, key=lambda run: run.config.model.hidden)
    voice, judging = random_voice(smallest.config), plan.judging
    for format in judging.formats:
        kernels.load(judging.backend)(voice, 1, format, judging.threads)


def _make_features(plan: Plan, recordings: dict[str, Path], cache: Path) -> str:
    """Makes the features of every configuration and returns the digest of the recordings."""
    cache.mkdir(exist_ok=True)
    different = {
        (run.config.mel, run.config.model.pre_emphasis, run.config.train.validation_clips): run
        for run in plan.runs
    }
    say(f"features of {len(recordings)} recordings")
    with locked(cache / "lock"):
        made = [(build(recordings, cache, run.config), run) for run in different.values()]
    for features, run in made:
        split(features, run.config.train.validation_clips)
    return made[0][0].data_sha256
