"""The training loop: batch, forward, loss, backward, clip, step, prune, average, log, save."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wavernn.config import Config, TrainConfig
from wavernn.errors import TrainingError
from wavernn.model import nats_of
from wavernn.train.interruption import Interruption
from wavernn.train.processes import Processes
from wavernn.train.report import Report
from wavernn.train.sampler import Batch
from wavernn.train.session import CHECKPOINT, Session


def learning_rate(step: int, train: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak."""
    return warm_cosine(step, train.steps, train.learning_rate, train.warmup_steps, train.final_rate)


def warm_cosine(step: int, steps: int, peak: float, warmup_steps: int, final_rate: float) -> float:
    """The rate at a step of `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return peak * (final_rate + (1 - final_rate) * (1 + math.cos(math.pi * progress)) / 2)


def loss_parts(
    model: Callable[..., tuple[Tensor, Tensor, Tensor]], batch: Batch, h_BH: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross-entropy of coarse and fine in nats, and the last state."""
    coarse_logits, fine_logits, h_BH = model(
        batch.mel_BNM, batch.previous_BT2, batch.codes_BT2, h_BH, precision, batch.around_BW3
    )
    target_TB2 = batch.codes_BT2.transpose(0, 1)
    coarse = nats_of(coarse_logits, target_TB2[..., 0], "mean")
    fine = nats_of(fine_logits, target_TB2[..., 1], "mean")
    return coarse, fine, h_BH.detach()


def train(
    config: Config,
    data: Path,
    run: Path,
    resume: bool = False,
    init_from: Path | None = None,
    report: Report | None = None,
    licence: str = "",
    cache: Path | None = None,
) -> Path:
    """Trains a voice on a folder of recordings and returns the path of its checkpoint.

    `run` receives the checkpoint (averaged weights), the state to resume from, logs, and the
    features unless `cache` is the folder that keeps them. Raises ConfigError, DataError,
    CheckpointError or TrainingError; the last save stays good whatever happens. Ctrl-C and SIGTERM
    end the run after the present step, with a save.
    """
    with Processes.join() as processes:
        heard = report if report is not None and processes.rank == 0 else Report.silent()
        with heard:
            session = Session.open(
                processes, config, data, run, resume, init_from, licence, heard, cache
            )
            heard.start(session.state)
            if session.state.step == config.train.steps:
                heard.say(f"the run in {run} is finished, nothing is left to do")
            _train(session)
    return run / CHECKPOINT


def _train(session: Session) -> None:
    state, settings = session.state, session.state.config.train
    learnt = [p for p in state.model.parameters() if p.requires_grad]
    h_BH = state.h_BH[session.batches.mine]
    bad_in_a_row = stop = 0
    with Interruption(once=session.processes.world == 1) as interruption:
        while state.step < settings.steps and not stop:
            batch = session.batches.next(state.step)
            h_BH = torch.where(batch.fresh_B[:, None], 0.0, h_BH)
            coarse, fine, h_BH = loss_parts(session.model, batch, h_BH, settings.precision)
            state.optimizer.zero_grad(set_to_none=True)
            (coarse + fine).backward()
            # of the gradients' mean over processes, so all of them agree on it
            norm = float(torch.nn.utils.clip_grad_norm_(learnt, settings.clip))
            rate = learning_rate(state.step, settings)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            if math.isfinite(norm):
                state.optimizer.step()
                bad_in_a_row = 0
            else:
                h_BH = torch.zeros_like(h_BH)
                bad_in_a_row += 1
                _skip(session, bad_in_a_row)
            state.step += 1
            state.pruner.step(state.step)
            state.average()
            session.report.stepped(state, coarse, fine, norm, rate)
            # all processes stop, whichever got the signal
            stop = interruption.number = session.processes.largest(interruption.number)
            last = state.step == settings.steps
            if last or state.step % settings.validate_every_steps == 0:
                session.validate()
            if last or stop or state.step % settings.save_every_steps == 0:
                session.save(h_BH)
        if state.step < settings.steps:
            session.report.say(
                f"stopped and saved at step {state.step} of {settings.steps}; "
                "go on with the same command and --resume"
            )


def _skip(session: Session, in_a_row: int) -> None:
    """Counts a step whose gradients can't be used; raises TrainingError when they are too many."""
    state = session.state
    state.skipped += 1
    session.report.say(f"step {state.step + 1} skipped: its gradients are not finite")
    if in_a_row == state.config.train.nan_patience:
        raise TrainingError(
            f"the gradients were not finite {in_a_row} times in a row, up to step "
            f"{state.step + 1}; try a lower train.learning_rate in another --out, with "
            f"--init-from {session.run / CHECKPOINT} if the run has saved one"
        )
