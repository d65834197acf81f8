"""Trains an acoustic model: phones and prosody to mel, from recordings with transcripts."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from wavernn.acoustic_config import AcousticConfig, AcousticTrainConfig
from wavernn.errors import TrainingError
from wavernn.train.acoustic_report import AcousticReport
from wavernn.train.acoustic_run import WEIGHTS, Run, losses
from wavernn.train.corpus import build
from wavernn.train.interruption import Interruption
from wavernn.train.loop import warm_cosine
from wavernn.train.session import CHECKPOINT, STATE


def train(
    config: AcousticConfig,
    data: Path,
    run: Path,
    resume: bool = False,
    report: AcousticReport | None = None,
    licence: str = "",
) -> Path:
    """Trains on a folder of recordings with transcripts and returns the checkpoint's path.

    `run` receives the checkpoint (averaged weights), the state to resume from, the alignment and
    logs. A run that was stopped or killed goes on bit for bit from its last save, on the same
    machine. Raises DataError, TextError, CheckpointError or TrainingError.
    """
    if resume and not (run / STATE).exists():
        raise TrainingError(
            f"nothing to resume in {run}: it holds no {STATE}; leave --resume out to start there"
        )
    for name in () if resume else (STATE, CHECKPOINT):
        if (run / name).exists():
            raise TrainingError(
                f"{run} already holds a run ({name}); give --resume to go on with it, or choose "
                "another --out"
            )
    heard = report or AcousticReport(None)
    with heard:
        corpus = build(data, run, config, heard.preparing_part)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state = Run(config, corpus, device)
        if resume:
            before = state.restore(run)
            licence = licence or before
        heard.begin(config, state.step, state.history, corpus)
        if state.step == config.train.steps:
            heard.say(f"the run in {run} is finished, nothing is left to do")
        _train(state, run, heard, licence)
    return run / CHECKPOINT


def _rates(step: int, train: AcousticTrainConfig) -> tuple[float, float]:
    """Rates of the mel's part and of the prosody's, which stands still in the end."""
    schedule = train.warmup_steps, train.final_rate
    prosody = 0.0
    if step < train.prosody_steps:
        prosody = warm_cosine(step, train.prosody_steps, train.prosody_learning_rate, *schedule)
    return warm_cosine(step, train.steps, train.learning_rate, *schedule), prosody


def _train(state: Run, run: Path, report: AcousticReport, licence: str) -> None:
    train = state.config.train
    bad_in_a_row = 0
    with Interruption(once=True) as interruption:
        while state.step < train.steps and not interruption.number:
            # drop-outs follow from seed and step, so a resumed run draws the same
            torch.manual_seed((train.seed << 32) + state.step)
            chosen = state.order.batch_of(state.step)
            batch = state.batch([state.taught[i] for i in chosen])
            state.model.train()
            parts = losses(state.model, batch, train.precision)
            loss = torch.stack([WEIGHTS[name] * part for name, part in parts.items()]).sum()
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            rates = _rates(state.step, train)
            norms = []
            for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
                norms.append(float(torch.nn.utils.clip_grad_norm_(group["params"], train.clip)))
            norm = math.hypot(*norms)
            if math.isfinite(norm):
                state.optimizer.step()
                bad_in_a_row = 0
            else:
                state.skipped += 1
                bad_in_a_row += 1
                report.say(f"step {state.step + 1} skipped: its gradients are not finite")
                if bad_in_a_row == train.nan_patience:
                    raise TrainingError(
                        f"the gradients were not finite {bad_in_a_row} times in a row, up to step "
                        f"{state.step + 1}; try a lower train.learning_rate in another --out"
                    )
            state.step += 1
            state.average()
            report.step(state.step, parts, norm, rates[0], float(batch.mask_BN.sum()))
            last = state.step == train.steps
            if last or state.step % train.validate_every_steps == 0:
                state.validate()
                report.judged(state.history, state.judge(), state.corpus, state.held_out)
            if last or interruption.number or state.step % train.save_every_steps == 0:
                state.save(run, licence)
        if state.step < train.steps:
            report.say(
                f"stopped and saved at step {state.step} of {train.steps}; go on with the same "
                "command and --resume"
            )
