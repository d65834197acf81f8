"""What an acoustic run tells of itself: progress, curves, alignments and pictures of mels."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavernn.acoustic import AcousticModel
from wavernn.acoustic_config import AcousticConfig
from wavernn.train.corpus import Corpus, Utterance
from wavernn.train.report import SECONDS_BETWEEN_LINES, Report


class AcousticReport(Report):
    """Shows progress on stderr and writes curves below the run's folder."""

    def preparing_part(self, label: str, done: int, total: int) -> None:
        """Shows how far the corpus is made."""
        if done == 0:
            self._open_bar(label, total)
            self.say(f"{label} of {total}")
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def begin(
        self, config: AcousticConfig, step: int, history: list[dict[str, Any]], corpus: Corpus
    ) -> None:
        """Opens the bar and the logs at the step where training begins or goes on."""
        self.train = config.train
        self.corpus = corpus
        self._open_bar(config.name, config.train.steps, step)
        self.clock = self.began = self.last_line = time.perf_counter()
        self.clock_step = self.began_step = step
        self.frames = 0.0
        self._open_log(step, history)
        self._alignment(corpus)

    def _alignment(self, corpus: Corpus) -> None:
        """A picture of the first text's tokens over the frames of its recording."""
        if self.writer is None:
            return
        u = corpus.utterances[0]
        token_N = np.repeat(np.arange(len(u.tokens)), u.duration_J)
        picture = (token_N == np.arange(len(u.tokens))[:, None]).astype(np.float32)
        self.writer.add_image(f"alignment/{u.name}", picture[None, ::-1], 0)

    def step(
        self, step: int, parts: dict[str, Tensor], norm: float, rate: float, frames: float
    ) -> None:
        """Takes note of an optimizer step; shows something every `log_every_steps`."""
        self.frames += frames
        if self.run is None or (step % self.train.log_every_steps and step != self.train.steps):
            return
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        mel = self.corpus.features
        audio_s = self.frames * mel.hop_samples / mel.rate_hz / seconds
        steps_per_s = (step - self.clock_step) / seconds
        self.clock_step, self.frames = step, 0.0
        values = {k: v.item() for k, v in parts.items()}
        figures = (
            f"mel {values['mel']:.3f}, duration {values['duration']:.3f}, pitch "
            f"{values['pitch']:.3f}, {steps_per_s:.2f} steps/s, {audio_s:.0f} audio-s/s"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, figures=figures)
        if not self.console.is_terminal and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.began) / (step - self.began_step) * (self.train.steps - step)
            self.say(f"step {step}/{self.train.steps}: {figures}, {left / 60:.0f} min left")
        scalars = {f"train/{k}": v for k, v in values.items()}
        scalars |= {
            "train/gradient_norm": norm,
            "train/learning_rate": rate,
            "speed/steps_per_s": steps_per_s,
            "speed/audio_seconds_per_s": audio_s,
        }
        self._scalars(step, scalars)

    def judged(
        self,
        history: list[dict[str, Any]],
        model: AcousticModel,
        corpus: Corpus,
        held_out: list[Utterance],
    ) -> None:
        """Takes note of the last validation, with the mel of a held-out text."""
        if self.run is None:
            return
        row = history[-1]
        self._write_history(history)
        self._scalars(row["step"], {f"validation/{k}": v for k, v in row.items() if k != "step"})
        self.say(
            f"step {row['step']}: validation mel {row['mel']:.3f}, duration {row['duration']:.3f}, "
            f"pitch {row['pitch']:.3f}, energy {row['energy']:.3f}, tempo {row['tempo']:.2f}"
        )
        if self.writer is not None:
            u = held_out[0]
            device = model.mean_M.device
            ids_J2 = torch.from_numpy(u.ids_J2).to(device)
            made_NM = model.speak(ids_J2, u.speaker).cpu().numpy()
            for label, mel_NM in (("recording", corpus.mel(u)), ("text", made_NM)):
                low, high = float(mel_NM.min()), float(mel_NM.max())
                picture = (mel_NM.T[::-1] - low) / max(high - low, 1e-6)
                self.writer.add_image(f"mel/{label}", picture[None], row["step"])
            self.writer.flush()
        self.clock, self.clock_step = time.perf_counter(), row["step"]
