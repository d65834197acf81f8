"""What a run tells of itself: a progress bar, lines on stderr, TensorBoard, history.jsonl."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.errors import TrainingError
from wavernn.files import write_atomic
from wavernn.model import WaveRNN
from wavernn.sparse import density
from wavernn.train.features import Features
from wavernn.vocoder import Vocoder

if TYPE_CHECKING:
    from wavernn.train.state import RunState

SECONDS_BETWEEN_LINES = 30.0
# of a held-out clip, how much a validation lets the voice speak, and for how long at most
AUDIO_SECONDS = 2.0
SPEAKING_SECONDS = 10.0


class Report:
    """Shows progress on stderr and writes curves and audio below the run's folder."""

    def __init__(self, run: Path | None) -> None:
        self.run = run
        self.console = Console(stderr=True, quiet=run is None)
        self.bar: Progress | None = None
        self.writer: Any = None

    @classmethod
    def silent(cls) -> Report:
        """A report that says and writes nothing."""
        return cls(None)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_bar()
        if self.writer is not None:
            self.writer.close()

    def say(self, sentence: str) -> None:
        """Prints a line, above the bar if there is one."""
        line = f"{time.strftime('%H:%M:%S')} {sentence}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _open_bar(self, label: str, total: int, done: int = 0) -> None:
        self._close_bar()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        shown = self.run is not None and self.console.is_terminal
        # a step may take long, and the time left is to be known all the same
        self.bar = Progress(
            *columns, console=self.console, disable=not shown, speed_estimate_period=600
        )
        self.bar.start()
        self.task = self.bar.add_task(label, total=total, completed=done, figures="")

    def preparing(self, done: int, total: int) -> None:
        """Shows how many recordings have been made into features."""
        if done == 0:
            self._open_bar("features", total)
            self.say(f"making features of {total} recordings")
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def start(self, state: RunState) -> None:
        """Opens the bar and the logs at the step where training begins or goes on."""
        self.config, train = state.config, state.config.train
        self._open_bar(self.config.name, train.steps, state.step)
        self.samples_per_step = train.batch * train.slice_samples
        self.rate_hz = self.config.mel.rate_hz
        now = time.perf_counter()
        self.began, self.began_step = now, state.step
        self.clock, self.clock_step = now, state.step
        self.last_line = now
        self._open_log(state.step, state.history)

    def _open_log(self, step: int, history: list[dict[str, Any]]) -> None:
        if self.run is None:
            return
        # what a run wrote after the save that it goes on from doesn't count
        self._write_history(history)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("no TensorBoard curves: pip install 'wavernn[train]' to have them")
        else:
            purge_step = step + 1 if step else 0
            self.writer = SummaryWriter(self.run / "log", purge_step=purge_step)

    def stepped(
        self, state: RunState, coarse: Tensor, fine: Tensor, norm: float, rate: float
    ) -> None:
        """Takes note of an optimizer step; shows something every `log_every_steps`."""
        train = self.config.train if self.run is not None else None
        if train is None or (state.step % train.log_every_steps and state.step != train.steps):
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
            # with what validation and saving take
            seconds_per_step = (now - self.began) / (state.step - self.began_step)
            left = (train.steps - state.step) * seconds_per_step / 60
            self.say(f"step {state.step}/{train.steps}: {figures}, {left:.0f} min left")
        values = {
            "train/bits_coarse": bits_coarse,
            "train/bits_fine": bits_fine,
            "train/gradient_norm": norm,
            "train/learning_rate": rate,
            "train/skipped_steps": state.skipped,
            "speed/samples_per_s": samples_per_s,
            "speed/steps_per_s": steps_per_s,
            "speed/audio_seconds_per_s": samples_per_s / self.rate_hz,
        }
        densities = {f"density/{name}": density(w) for name, w in state.pruner.matrices.items()}
        self._scalars(state.step, values | densities)

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def validated(
        self,
        history: list[dict[str, Any]],
        model: WaveRNN,
        features: Features,
        held_out: np.ndarray,
    ) -> None:
        """Takes note of the last validation, and lets the voice speak a little of a clip."""
        if self.run is None:
            return
        row = history[-1]
        self._write_history(history)
        self._scalars(row["step"], {f"validation/{k}": v for k, v in row.items() if k != "step"})
        self.say(
            f"step {row['step']}: validation {row['bits_per_sample']:.3f} bits/sample "
            f"(coarse {row['bits_coarse']:.3f}, fine {row['bits_fine']:.3f}; "
            f"FLAC {row['flac_bits']:.3f})"
        )
        if self.writer is not None:
            clip = int(held_out[0])
            # named, since "auto" would write over the bar
            kind = self.config.model.subscale, self.config.model.fused
            backend = next(
                name for name in kernels.BACKENDS if kernels.unavailable(name, *kind) is None
            )
            spoken_T = self._speak(model, features, clip, backend)
            self.writer.add_audio("copy synthesis", spoken_T[None], row["step"], self.rate_hz)
            seconds = len(spoken_T) / self.rate_hz
            self.say(f"spoke {seconds:.1f} s of {features.names[clip]} on backend {backend}")
            self.writer.flush()
        # the speed is that of training
        self.clock, self.clock_step = time.perf_counter(), row["step"]

    def _write_history(self, history: list[dict[str, Any]]) -> None:
        assert self.run is not None
        path = self.run / "history.jsonl"
        lines = "".join(json.dumps(row) + "\n" for row in history)
        try:
            write_atomic(path, lines.encode())
        except OSError as error:
            raise TrainingError(
                f"can't write {path}: {error.strerror or error}; make room, then --resume"
            ) from None

    def _speak(self, model: WaveRNN, features: Features, clip: int, backend: str) -> np.ndarray:
        """Copy synthesis from the middle of a clip, cut short where the backend is slow."""
        wanted = int(AUDIO_SECONDS * self.rate_hz / features.hop_samples)
        frames = min(int(features.frames[clip]), wanted)
        first = int(features.first[clip]) + (int(features.frames[clip]) - frames) // 2
        mel_NM = np.array(features.mel_NM[first : first + frames])
        voice = Checkpoint(self.config, {k: v.cpu() for k, v in model.state_dict().items()})
        until = time.perf_counter() + SPEAKING_SECONDS
        pieces = []
        for piece_T in Vocoder(voice, backend).stream([mel_NM]):
            pieces.append(piece_T)
            if time.perf_counter() > until:
                break
        return np.concatenate(pieces)
