"""The training loop: batch, forward, loss, backward, clip, step, prune, average, log, save."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, TrainConfig
from wavernn.errors import TrainingError
from wavernn.model import WaveRNN
from wavernn.train.features import Features, build, find_recordings, mel_statistics, split
from wavernn.train.provenance import provenance
from wavernn.train.report import Report
from wavernn.train.sampler import Batch, Lanes
from wavernn.train.state import RunState
from wavernn.train.validate import bits_per_sample, flac_bits, make_slices

STATE, CHECKPOINT = "state.safetensors", "checkpoint.safetensors"


@dataclass(frozen=True)
class Process:
    """This process's place among those that train together (torchrun sets the variables)."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> Process:
        """Joins the others over NCCL or gloo, or stands alone."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        if world > 1:
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(int(os.environ.get("RANK", "0")), world, device)

    def share(self, batch: int) -> slice:
        """The lanes of a batch that are this process's."""
        if batch % self.world:
            raise TrainingError(
                f"train.batch ({batch}) must be a multiple of the number of processes "
                f"({self.world}); change one of them"
            )
        each = batch // self.world
        return slice(self.rank * each, (self.rank + 1) * each)


def learning_rate(step: int, train: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
    low = train.final_rate
    return train.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def add_noise(previous_BT2: Tensor, deviation: float, seed: int, step: int, rank: int) -> Tensor:
    """Adds Gaussian noise to input codes, in steps of the 16-bit scale (LPCNet, section 3.4).

    The draw is a function of seed, step and process, so nothing has to be saved to resume.
    """
    device = previous_BT2.device
    generator = torch.Generator(device).manual_seed(hash((seed, step, rank)) & (2**63 - 1))
    code_BT = previous_BT2[..., 0] << 8 | previous_BT2[..., 1]
    noise_BT = torch.randn(code_BT.shape, generator=generator, device=device) * deviation
    code_BT = (code_BT + noise_BT.round().long()).clamp(0, 65535)
    return torch.stack((code_BT >> 8, code_BT & 0xFF), dim=-1)


def loss_parts(
    model: Callable[..., tuple[Tensor, Tensor, Tensor]], batch: Batch, h_BH: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross-entropy of coarse and fine in nats, and the last state."""
    coarse_TBQ, fine_TBQ, h_BH = model(
        batch.mel_BNM, batch.previous_BT2, batch.codes_BT2, h_BH, precision
    )
    target_TB2 = batch.codes_BT2.transpose(0, 1)
    coarse = F.cross_entropy(coarse_TBQ.flatten(0, 1), target_TB2[..., 0].flatten())
    fine = F.cross_entropy(fine_TBQ.flatten(0, 1), target_TB2[..., 1].flatten())
    return coarse, fine, h_BH.detach()


def _prepare(
    config: Config, process: Process, features: Features, run: Path, resume: bool, init: Path | None
) -> tuple[RunState, Any]:
    """Builds the run's state: anew, from another voice's weights, or from where it stopped."""
    torch.manual_seed(config.train.seed)
    model = WaveRNN(config.model, config.mel).to(process.device)
    train_clips, _ = split(features, config.train.validation_clips)
    if init is None:
        mean_M, deviation_M = mel_statistics(features, train_clips)
        model.conditioner.mean_M.copy_(torch.from_numpy(mean_M))
        model.conditioner.deviation_M.copy_(torch.from_numpy(deviation_M))
    else:
        source = checkpoint.load(init)
        if source.config.model != config.model or source.config.mel != config.mel:
            raise TrainingError(
                f"{init} has another model or mel than recipe {config.name}; "
                "--init-from needs both to be equal"
            )
        model.load_state_dict(dict(source.tensors))
    train = config.train
    lanes = Lanes(
        features.frames[train_clips],
        train.batch,
        train.slice_samples // config.mel.hop_samples,
        train.carry_state,
        train.seed,
    )
    state = RunState.start(config, model, lanes)
    if resume:
        state.restore(run / STATE)
    wrapped = DistributedDataParallel(model) if process.world > 1 else model
    return state, wrapped


def _features(process: Process, data: Path, run: Path, config: Config, report: Report) -> Features:
    """Makes the features in the first process; the others open what it made."""
    paths = find_recordings(data)
    if process.rank == 0:
        run.mkdir(parents=True, exist_ok=True)
        build(paths, run, config, report.preparing)
    if process.world > 1:
        dist.barrier()
    return build(paths, run, config)


def _gather(h_BH: Tensor, process: Process) -> Tensor:
    if process.world == 1:
        return h_BH
    parts = [torch.empty_like(h_BH) for _ in range(process.world)]
    dist.all_gather(parts, h_BH.contiguous())
    return torch.cat(parts)


def train(
    config: Config,
    data: Path,
    run: Path,
    resume: bool = False,
    init_from: Path | None = None,
    report: Report | None = None,
    licence: str = "",
) -> Path:
    """Trains a voice on a folder of recordings and returns the path of its checkpoint.

    `run` receives the checkpoint (averaged weights), the state to resume from, cached features,
    logs. Raises ConfigError, DataError or TrainingError; an interrupted run keeps its last save.
    """
    process = Process.join()
    report = report or Report.silent()
    features = _features(process, data, run, config, report)
    train_clips, held_out = split(features, config.train.validation_clips)
    state, model = _prepare(config, process, features, run, resume, init_from)
    slices = make_slices(features, state.model, process.device)
    mine = process.share(config.train.batch)
    settings, slice_frames = config.train, state.lanes.slice_frames
    learnt = [p for p in state.model.parameters() if p.requires_grad]
    reference_bits = flac_bits(features, held_out)
    bad_in_a_row = 0
    report.start(state.step, settings.steps, settings.batch * settings.slice_samples, config)

    def save() -> None:
        state.h_BH = _gather(h_BH, process)
        if process.rank == 0:
            state.save(run / STATE)
            details = provenance(config, features, held_out, state, licence)
            voice = Checkpoint(config, state.averaged(), details)
            checkpoint.save(run / CHECKPOINT, voice)

    def validate() -> None:
        if process.rank == 0:
            judge = WaveRNN(config.model, config.mel).to(process.device)
            judge.load_state_dict(state.averaged())
            seconds = settings.validation_seconds_per_clip
            row = bits_per_sample(judge, features, slices, held_out, seconds)
            row |= {"step": state.step, "flac_bits": reference_bits}
            state.history.append(row)
            report.validated(row, judge, features, held_out)

    h_BH = state.h_BH[mine]
    try:
        while state.step < settings.steps:
            clip, frame, fresh = (x[mine] for x in state.lanes.next())
            batch = slices.cut(train_clips[clip], frame, fresh, slice_frames)
            if settings.input_noise:
                noisy = add_noise(
                    batch.previous_BT2,
                    settings.input_noise,
                    settings.seed,
                    state.step,
                    process.rank,
                )
                batch = Batch(batch.mel_BNM, noisy, batch.codes_BT2, batch.fresh_B)
            h_BH = torch.where(batch.fresh_B[:, None], 0.0, h_BH)
            coarse, fine, h_BH = loss_parts(model, batch, h_BH, settings.precision)
            rate = learning_rate(state.step, settings)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.optimizer.zero_grad(set_to_none=True)
            (coarse + fine).backward()
            # the norm is that of the gradients' mean over processes, so all of them agree on it
            norm = float(torch.nn.utils.clip_grad_norm_(learnt, settings.clip))
            if math.isfinite(norm):
                state.optimizer.step()
                bad_in_a_row = 0
            else:
                h_BH = torch.zeros_like(h_BH)
                state.skipped += 1
                bad_in_a_row += 1
                if bad_in_a_row >= settings.nan_patience:
                    raise TrainingError(
                        f"the loss was not finite {bad_in_a_row} times in a row at step "
                        f"{state.step}; the last save in {run} is good: lower "
                        "train.learning_rate and --resume"
                    )
            state.step += 1
            state.pruner.step(state.step)
            state.average()
            report.stepped(state, coarse, fine, norm, rate)
            last = state.step == settings.steps
            if last or state.step % settings.validate_every_steps == 0:
                validate()
            if last or state.step % settings.save_every_steps == 0:
                save()
    finally:
        report.stop()
        if process.world > 1:
            dist.destroy_process_group()
    return run / CHECKPOINT
