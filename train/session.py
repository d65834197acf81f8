"""What a process holds while it trains: the data, the run's state, and the folder they go to."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config
from wavernn.errors import TrainingError
from wavernn.fused import network
from wavernn.train.features import Features, build, find_recordings, mel_statistics, split
from wavernn.train.processes import Processes
from wavernn.train.provenance import provenance
from wavernn.train.report import Report
from wavernn.train.sampler import Batches, Lanes, Slices
from wavernn.train.state import RunState, first_difference, read_body
from wavernn.train.validate import bits_per_sample, flac_bits, make_slices

log = logging.getLogger(__name__)

STATE, CHECKPOINT = "state.safetensors", "checkpoint.safetensors"


@dataclass
class Session:
    """A run that is open for training, in one of its processes."""

    run: Path
    processes: Processes
    features: Features
    held_out: np.ndarray
    slices: Slices
    state: RunState
    # the state's model, with gradients averaged over the processes
    model: nn.Module
    batches: Batches
    report: Report

    @classmethod
    def open(
        cls,
        processes: Processes,
        config: Config,
        data: Path,
        run: Path,
        resume: bool,
        init_from: Path | None,
        licence: str,
        report: Report,
        cache: Path | None = None,
    ) -> Session:
        """Checks the request, makes the features and the state, or reads what is there."""
        cache = run if cache is None else cache
        mine = processes.share(config.train.batch)
        processes.first(lambda: _check_request(config, run, resume, init_from))
        source = _load_source(init_from, config)
        origin = read_body(run / STATE, config).get("origin", {}) if resume else {}
        recordings = find_recordings(data)
        expected = origin.get("data_sha256")
        features = processes.first(
            lambda: build(recordings, cache, config, report.preparing, expected)
        ) or build(recordings, cache, config)
        clips, held_out = split(features, config.train.validation_clips)
        torch.manual_seed(config.train.seed)
        model = network(config.model, config.mel).to(processes.device)
        if source is None:
            mean_M, deviation_M = mel_statistics(features, clips)
            model.conditioner.mean_M.copy_(torch.from_numpy(mean_M))
            model.conditioner.deviation_M.copy_(torch.from_numpy(deviation_M))
        else:
            model.load_state_dict(dict(source.tensors))
        state = RunState.start(config, model, _lanes(features.frames[clips], config))
        state.origin = {"data_sha256": features.data_sha256, "data_licence": licence}
        if source is not None:
            state.pruner.adopt()
            licence_before = source.provenance.get("data_licence", "")
            state.origin["init_from"] = {"sha256": source.sha256, "data_licence": licence_before}
        if resume:
            state.restore(run / STATE)
            state.origin["data_licence"] = licence or state.origin["data_licence"]
        slices = make_slices(features, model, processes.device)
        batches = Batches(state.lanes, mine, slices, clips, config.train)
        wrapped = processes.wrap(model)
        return cls(run, processes, features, held_out, slices, state, wrapped, batches, report)

    def validate(self) -> None:
        """Scores the averaged weights on the held-out clips, in the first process."""
        if self.processes.rank:
            return
        state = self.state
        judge = copy.deepcopy(state.model)
        judge.load_state_dict(state.averaged())
        row: dict[str, Any] = {"step": state.step}
        seconds = state.config.train.validation_seconds_per_clip
        row |= bits_per_sample(judge, self.features, self.slices, self.held_out, seconds)
        row["flac_bits"] = flac_bits(self.features, self.held_out)
        state.history.append(row)
        self.report.validated(state.history, judge, self.features, self.held_out)

    def save(self, h_BH: Tensor) -> None:
        """Writes checkpoint and state, given the state of this process's lanes."""
        state = self.state
        state.h_BH = self.processes.gather(h_BH)
        if self.processes.rank:
            return
        details = provenance(self.features, self.held_out, state)
        checkpoint.save(self.run / CHECKPOINT, Checkpoint(state.config, state.averaged(), details))
        # last, so that a state that says "finished" has its checkpoint beside it
        state.save(self.run / STATE)


def _check_request(config: Config, run: Path, resume: bool, init_from: Path | None) -> None:
    """Raises TrainingError where the folder doesn't fit the request; clears up what is broken."""
    state = run / STATE
    if resume and init_from is not None:
        raise TrainingError(
            "expected one of --resume and --init-from, got both; a resumed run has its weights"
        )
    if resume and not state.exists():
        raise TrainingError(
            f"nothing to resume in {run}: it holds no {STATE}; leave --resume out to start there"
        )
    if resume:
        read_body(state, config)
    for path in () if resume else (state, run / CHECKPOINT):
        if path.exists():
            raise TrainingError(
                f"{run} already holds a run ({path.name}); give --resume to go on with it, "
                "or choose another --out"
            )
    # what a killed process was writing, see `wavernn.files`
    for draft in run.glob(f".{16 * '?'}.tmp"):
        draft.unlink(missing_ok=True)


def _load_source(path: Path | None, config: Config) -> Checkpoint | None:
    """The voice to start from; raises CheckpointError, or TrainingError where it doesn't fit."""
    if path is None:
        return None
    source = checkpoint.load(path)
    has, wants = (
        {part: table[part] for part in ("model", "mel")}
        for table in (source.config.to_dict(), config.to_dict())
    )
    if has != wants:
        key, old, new = first_difference(has, wants)
        raise TrainingError(
            f"--init-from needs a voice of the recipe's model and mel, but {key} is {old} in "
            f"{path} and {new} in recipe {config.name}; change the recipe"
        )
    return source


def _lanes(frames: np.ndarray, config: Config) -> Lanes:
    train = config.train
    slice_frames = train.slice_samples // config.mel.hop_samples
    short = int((frames < slice_frames).sum())
    if short:
        log.warning("%d of %d clips are shorter than a slice and unused", short, len(frames))
    return Lanes(frames, train.batch, slice_frames, train.carry_state, train.seed)
