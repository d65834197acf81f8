"""The moving parts of an acoustic model's run: what is learnt, from what, and how it's kept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavernn import __version__, acoustic_checkpoint, container
from wavernn.acoustic import AcousticModel, Prosody, whole_frames
from wavernn.acoustic_checkpoint import AcousticCheckpoint
from wavernn.acoustic_config import AcousticConfig
from wavernn.errors import CheckpointError, TrainingError
from wavernn.source import commit
from wavernn.train.acoustic_batches import Batch, Order, Statistics, collate
from wavernn.train.corpus import Corpus, Utterance
from wavernn.train.features import mel_statistics
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


class Run:
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
        """Lays utterances side by side on the run's device."""
        return collate(self.corpus, utterances, self.statistics, self.device)

    def average(self) -> None:
        """Moves the averaged weights towards the present ones; faster in the first steps."""
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
        """Scores the averaged weights on the held-out clips, as another row of the history."""
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
        # as it comes back of a file, tuples as lists
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
