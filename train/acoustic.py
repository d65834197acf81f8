"""Trains an acoustic model: phones and prosody to mel, from recordings with transcripts."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavernn import __version__, acoustic_checkpoint, container
from wavernn.acoustic import AcousticModel, Prosody, whole_frames
from wavernn.acoustic_checkpoint import AcousticCheckpoint
from wavernn.acoustic_config import AcousticConfig, AcousticTrainConfig
from wavernn.errors import CheckpointError, TrainingError
from wavernn.source import commit
from wavernn.train.acoustic_batches import Batch, Order, Statistics, collate
from wavernn.train.acoustic_report import AcousticReport
from wavernn.train.corpus import Corpus, Utterance, build
from wavernn.train.features import mel_statistics
from wavernn.train.interruption import Interruption
from wavernn.train.loop import warm_cosine
from wavernn.train.session import CHECKPOINT, STATE
from wavernn.train.state import first_difference

RUN_FORMAT = "wavernn-acoustic-run"
# what the losses add to, so that each of the prosody's counts about the same
WEIGHTS = {"mel": 1.0, "duration": 3.0, "pitch": 0.5, "energy": 1.0}


def losses(model: AcousticModel, batch: Batch, precision: str) -> dict[str, Tensor]:
    """Mean L1 of the mel, in each band's deviation, and squared errors of the prosody.

    Duration, pitch and energy are the recording's own, so that its mel can be met.
    """
    with torch.autocast(batch.mel_BNM.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        x_BJC, mask_BJ1 = model.encode(batch.ids_BJ2, batch.speaker_B)
        mel_BNM = model.decode(
            x_BJC, mask_BJ1, batch.duration_BJ, batch.target.pitch, batch.target.energy
        )
    said: Prosody = model.prosody(batch.ids_BJ2, batch.speaker_B)
    target = batch.target
    far_BN = ((mel_BNM - batch.mel_BNM) / model.deviation_M).abs().mean(2)
    return {
        "mel": _mean(far_BN, batch.mask_BN),
        "duration": _mean(_squared(said.log_duration, target.log_duration), mask_BJ1[..., 0]),
        "pitch": _mean(_squared(said.pitch, target.pitch), batch.voiced_BJ),
        "energy": _mean(_squared(said.energy, target.energy), batch.present_BJ),
    }


def _squared(said: Tensor, target: Tensor) -> Tensor:
    return (said - target).square()


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    return (x * weight).sum() / weight.sum().clamp(min=1)


class _Run:
    """The moving parts of a run, and what it's trained on."""

    def __init__(self, config: AcousticConfig, corpus: Corpus, device: torch.device) -> None:
        train = config.train
        self.config, self.corpus, self.device = config, corpus, device
        count = min(train.validation_clips, len(corpus.utterances) // 2)
        held = (np.arange(count) + 0.5) * len(corpus.utterances) / count
        chosen = set(held.astype(int).tolist())
        self.held_out = [corpus.utterances[i] for i in sorted(chosen)]
        self.taught = [u for i, u in enumerate(corpus.utterances) if i not in chosen]
        self.statistics = Statistics.of(self.taught, len(corpus.speakers))
        self.order = Order([u.frames for u in self.taught], train.batch, train.seed)
        torch.manual_seed(train.seed)
        symbols, speakers = len(corpus.alphabet.symbols), len(corpus.speakers)
        self.model = AcousticModel(config.model, config.mel, symbols, speakers).to(device)
        clips = [corpus.features.names.index(u.name) for u in self.taught]
        mean_M, deviation_M = mel_statistics(corpus.features, np.array(clips))
        for buffer, value in (
            (self.model.mean_M, mean_M),
            (self.model.deviation_M, deviation_M),
            (self.model.pitch_S2, self.statistics.pitch_S2),
            (self.model.energy_S2, self.statistics.energy_S2),
        ):
            buffer.copy_(torch.from_numpy(value))
        own = list(self.model.prosody.parameters())
        rest = [p for n, p in self.model.named_parameters() if not n.startswith("prosody.")]
        self.optimizer = torch.optim.AdamW(
            [{"params": rest}, {"params": own}],
            train.learning_rate,
            (0.9, 0.98),
            1e-9,
            train.weight_decay,
        )
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step = self.skipped = 0
        self.history: list[dict[str, Any]] = []

    def batch(self, utterances: list[Utterance]) -> Batch:
        return collate(self.corpus, utterances, self.statistics, self.device)

    def average(self) -> None:
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)

    def judge(self) -> AcousticModel:
        """The model with averaged weights, as it's shipped."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.ema)
        return model.eval()

    @torch.no_grad()
    def validate(self) -> None:
        model = self.judge()
        batch = self.batch(self.held_out)
        row: dict[str, Any] = {"step": self.step}
        row |= {k: v.item() for k, v in losses(model, batch, "float32").items()}
        said = model.prosody(batch.ids_BJ2, batch.speaker_B)
        frames_BJ = whole_frames(said.log_duration, 1.0) * (batch.ids_BJ2[..., 0] >= 0)
        row["tempo"] = float(batch.duration_BJ.sum() / frames_BJ.sum().clamp(min=1))
        self.history.append(row)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": v for k, v in moments.items()}
        return tensors

    def save(self, run: Path, licence: str) -> None:
        """Writes the checkpoint of the averaged weights, and last the state to go on from."""
        corpus = self.corpus
        provenance = {
            "program": f"wavernn {__version__}",
            "torch": torch.__version__,
            "commit": commit(Path(__file__).resolve()),
            "data_sha256": corpus.features.data_sha256,
            "text_sha256": corpus.text_sha256,
            "data_licence": licence,
            "data_seconds": corpus.features.seconds,
            "held_out": [u.name for u in self.held_out],
            "steps": self.step,
            "skipped_steps": self.skipped,
            "metrics": self.history[-1] if self.history else {},
        }
        acoustic_checkpoint.save(
            run / CHECKPOINT,
            AcousticCheckpoint(
                self.config, corpus.alphabet.symbols, corpus.speakers, self.ema, provenance
            ),
        )
        body = _identity(self.config, corpus) | {
            "step": self.step,
            "skipped": self.skipped,
            "history": self.history,
            "licence": licence,
        }
        try:
            container.save(run / STATE, RUN_FORMAT, container.dumps(body), self._tensors())
        except OSError as error:
            raise TrainingError(
                f"can't save step {self.step} to {run}: {error.strerror or error}; make room, "
                "then --resume from the save before"
            ) from None

    def restore(self, run: Path) -> str:
        """Takes over a saved state and returns its licence; raises TrainingError."""
        try:
            body, tensors = container.load(run / STATE, RUN_FORMAT)
        except CheckpointError as error:
            raise TrainingError(f"can't resume: {error}") from None
        wanted = container.plain(_identity(self.config, self.corpus))
        saved = {key: body.get(key) for key in wanted}
        if saved != wanted:
            key, old, new = first_difference(saved, wanted)
            raise TrainingError(
                f"{run} was trained otherwise: {key} was {str(old)[:60]}, now {str(new)[:60]}; "
                "resume with the same recipe, --set and data, or choose a new --out"
            )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "adam": {}}
        for name, value in tensors.items():
            head, _, rest = name.partition(".")
            groups[head][rest] = value.to(self.device)
        self.model.load_state_dict(groups["model"])
        self.ema = groups["ema"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["adam"].items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step, self.skipped = int(body["step"]), int(body["skipped"])
        self.history = list(body["history"])
        return str(body["licence"])


def _identity(config: AcousticConfig, corpus: Corpus) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "config": config.to_dict(),
        "data_sha256": corpus.features.data_sha256,
        "text_sha256": corpus.text_sha256,
    }


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
        state = _Run(config, corpus, device)
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


def _train(state: _Run, run: Path, report: AcousticReport, licence: str) -> None:
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
