"""What a run tells of itself: a progress bar, lines in a log, TensorBoard, history.jsonl."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from wavernn.config import Config
from wavernn.model import WaveRNN
from wavernn.sparse import density
from wavernn.train.features import Features

if TYPE_CHECKING:
    from wavernn.train.state import RunState

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
AUDIO_SECONDS = 1.5


class Report:
    """Shows progress on stderr and writes curves and audio below the run's folder."""

    def __init__(self, run: Path | None) -> None:
        self.run = run
        self.console = Console(stderr=True, quiet=run is None)
        self.bar: Progress | None = None
        self.writer: Any = None
        self.total = 0

    @classmethod
    def silent(cls) -> Report:
        """A report that says and writes nothing."""
        return cls(None)

    def _open_bar(self, label: str, total: int, done: int = 0) -> None:
        self.stop()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.bar.start()
        self.task = self.bar.add_task(label, total=total, completed=done, figures="")

    def preparing(self, done: int, total: int) -> None:
        """Shows how many recordings have been made into features."""
        if done == 0:
            self._open_bar("features", total)
            self.console.log(f"making features of {total} recordings")
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def start(self, step: int, total: int, samples_per_step: int, config: Config) -> None:
        """Opens the bar and TensorBoard at the step where training begins or goes on."""
        self._open_bar(config.name, total, step)
        self.total, self.samples_per_step = total, samples_per_step
        self.rate_hz, self.every = config.mel.rate_hz, config.train.log_every_steps
        self.config = config
        self.clock, self.clock_step = time.perf_counter(), step
        self.last_line = time.perf_counter()
        if self.run is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                log.warning("no TensorBoard curves: install wavernn[train] to have them")
            else:
                self.writer = SummaryWriter(self.run / "log", purge_step=step)

    def stepped(
        self, state: RunState, coarse: Tensor, fine: Tensor, norm: float, rate: float
    ) -> None:
        """Takes note of an optimizer step; shows something every `log_every_steps`."""
        if self.run is None or state.step % self.every:
            return
        now = time.perf_counter()
        steps_per_s = (state.step - self.clock_step) / (now - self.clock)
        self.clock, self.clock_step = now, state.step
        samples_per_s = steps_per_s * self.samples_per_step
        bits_coarse, bits_fine = (x.item() / math.log(2) for x in (coarse.detach(), fine.detach()))
        figures = (
            f"{bits_coarse + bits_fine:.3f} bits/sample, {steps_per_s:.2f} steps/s, "
            f"{samples_per_s / self.rate_hz:.2f} audio-s/s"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=state.step, figures=figures)
        if not self.console.is_terminal and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (self.total - state.step) / steps_per_s / 60
            self.console.log(f"step {state.step}/{self.total}: {figures}, {left:.0f} min left")
        self._scalars(
            state.step,
            {
                "train/bits_coarse": bits_coarse,
                "train/bits_fine": bits_fine,
                "train/gradient_norm": norm,
                "train/learning_rate": rate,
                "speed/samples_per_s": samples_per_s,
                "speed/steps_per_s": steps_per_s,
            }
            | {f"density/{name}": density(w) for name, w in state.pruner.matrices.items()},
        )

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def validated(
        self, row: dict[str, float], model: WaveRNN, features: Features, held_out: np.ndarray
    ) -> None:
        """Takes note of a validation, and lets the voice speak a little of a held-out clip."""
        if self.run is None:
            return
        step = int(row["step"])
        with open(self.run / "history.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        self._scalars(step, {f"validation/{k}": v for k, v in row.items() if k != "step"})
        self.console.log(
            f"step {step}: validation {row['bits_per_sample']:.3f} bits/sample "
            f"(coarse {row['bits_coarse']:.3f}, fine {row['bits_fine']:.3f}; "
            f"FLAC {row['flac_bits']:.3f})"
        )
        if self.writer is not None:
            self.writer.add_audio(
                "copy synthesis",
                self._speak(model, features, held_out),
                step,
                sample_rate=self.rate_hz,
            )

    def _speak(self, model: WaveRNN, features: Features, held_out: np.ndarray) -> np.ndarray:
        from wavernn.checkpoint import Checkpoint
        from wavernn.engine import Vocoder

        clip = int(held_out[0])
        frames = min(
            int(features.frames[clip]), int(AUDIO_SECONDS * self.rate_hz / features.hop_samples)
        )
        first = int(features.first[clip]) + (int(features.frames[clip]) - frames) // 2
        voice = Checkpoint(self.config, {k: v.cpu() for k, v in model.state_dict().items()})
        mel_NM = np.array(features.mel_NM[first : first + frames])
        return Vocoder(voice, backend="reference").synthesize(mel_NM)[None]

    def stop(self) -> None:
        """Closes what is open."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
