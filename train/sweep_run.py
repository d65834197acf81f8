"""One run of a sweep: trained or taken up again, then judged, as rows of the table."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.files import write_atomic
from wavernn.kernels.bench import bench, machine
from wavernn.sparse import density
from wavernn.train.evaluate import choose, evaluate
from wavernn.train.features import build
from wavernn.train.loop import train
from wavernn.train.report import Report
from wavernn.train.session import CHECKPOINT, STATE
from wavernn.train.state import RunState, read_body
from wavernn.train.sweep_bits import engine_bits
from wavernn.train.sweep_grid import Judging, Run
from wavernn.train.sweep_trials import locked

PROGRESS = "progress.json"
# how often a run says how far it is
SECONDS_BETWEEN_NOTES = 10.0


def read_progress(folder: Path) -> dict[str, Any]:
    """The last step that a run has noted, and the seconds that its training took till then."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / PROGRESS).read_text()))
    return {"step": 0, "seconds": 0.0}


class Notes(Report):
    """Says nothing, and notes in the run's folder how far it is and how long that took."""

    def __init__(self, folder: Path, heard: Callable[[int], None]) -> None:
        super().__init__(None)
        self.folder, self.heard = folder, heard
        # with what earlier attempts took
        earlier = read_progress(folder)
        self.step, self.before = int(earlier["step"]), float(earlier["seconds"])
        self.started = self.noted = time.perf_counter()

    def stepped(
        self, state: RunState, coarse: Tensor, fine: Tensor, norm: float, rate: float
    ) -> None:
        """Takes note of a step every so often."""
        self.step = state.step
        if time.perf_counter() - self.noted > SECONDS_BETWEEN_NOTES:
            self.note()
            self.heard(state.step)

    def note(self) -> None:
        """Writes the file."""
        self.noted = time.perf_counter()
        row = {"step": self.step, "seconds": self.before + self.noted - self.started}
        write_atomic(self.folder / PROGRESS, json.dumps(row).encode())


def train_run(
    run: Run,
    folder: Path,
    parent: Path | None,
    data: Path,
    cache: Path,
    heard: Callable[[int], None] = lambda step: None,
) -> Path:
    """Trains a run in its folder, or goes on with it, and returns its checkpoint.

    Waits where another process works on the same folder. Features must be in `cache`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        state = folder / STATE
        if state.exists() and read_body(state, run.config)["step"] == run.steps:
            return folder / CHECKPOINT
        if not state.exists():
            # killed between its first checkpoint and the state beside it
            (folder / CHECKPOINT).unlink(missing_ok=True)
        notes = Notes(folder, heard)
        start = None if state.exists() else parent
        try:
            return train(run.config, data, folder, state.exists(), start, notes, cache=cache)
        finally:
            notes.note()


def rows_of(
    run: Run, folder: Path, parent: str | None, data: Path, cache: Path, judging: Judging
) -> list[dict[str, Any]]:
    """Judges a trained run: a row for each format of its weights."""
    started = time.perf_counter()
    voice = checkpoint.load(folder / CHECKPOINT)
    recordings = choose(voice, data, every_clip=False)
    with locked(cache / "lock"):
        features = build(recordings, cache, voice.config)
    rows = []
    for format in judging.formats:
        result = evaluate(
            voice,
            data,
            cache,
            judging.clips,
            judging.backend,
            judging.seed,
            seconds_per_clip=judging.seconds_per_clip,
            format=format,
            threads=judging.threads,
        )
        if format != "float32":
            # what `evaluate` scores is the float32 voice
            seconds = judging.seconds_per_clip
            result |= engine_bits(voice, judging.backend, format, features, seconds)
        # of the best of many short windows, since other runs may use the machine as well
        speed = bench(voice, judging.backend, 1, format=format, threads=judging.threads)
        result["realtime_factor"] = speed["realtime_factor"]
        rows.append(
            _identity(run, folder, parent, voice)
            | {"format": format, "backend": speed["backend"], "threads": judging.threads}
            | result
        )
    spent = {
        "train_seconds": read_progress(folder)["seconds"],
        "judge_seconds": time.perf_counter() - started,
        "machine": machine()["machine"],
    }
    return [row | spent for row in rows]


def _identity(run: Run, folder: Path, parent: str | None, voice: Checkpoint) -> dict[str, Any]:
    """What was trained, from what, on what, for how long, and what is left of its weights."""
    config, provenance = voice.config, voice.provenance
    matrices = voice.model().matrices()
    prune = config.prune
    start = {"parent": run.parent.name, "init_from": parent} if run.parent else {}
    return {
        "run": run.name,
        "point": run.point,
        "kind": run.kind,
        "parent": None,
        "init_from": None,
        **start,
        "folder": folder.name,
        "recipe": run.recipe,
        "overrides": shlex.join(part for line in run.overrides for part in ("--set", line)),
        "config_sha256": run.config_sha256,
        "voice_sha256": voice.sha256,
        "commit": provenance["commit"],
        "program": provenance["program"],
        "torch": torch.__version__,
        "data_sha256": provenance["data_sha256"],
        "seed": config.train.seed,
        "parent_steps": run.parent_steps,
        "steps": run.steps,
        "total_steps": run.parent_steps + run.steps,
        "samples": run.samples,
        "skipped_steps": provenance["skipped_steps"],
        "hidden": config.model.hidden,
        "subscale": config.model.subscale,
        "fused": config.model.fused,
        "block": f"{prune.block_rows}x{prune.block_columns}",
        "balanced": prune.balanced,
        "nonzeros": sum(int(torch.count_nonzero(w)) for w in matrices.values()),
        "density": density(voice.model().R),
        **{f"density_{name}": density(weight) for name, weight in matrices.items()},
    }
