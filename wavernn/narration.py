"""Text to mel, clause by clause: a front end and anything that makes mels of clauses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from wavernn.acoustic_checkpoint import AcousticCheckpoint, load
from wavernn.checkpoint import Checkpoint
from wavernn.config import MelConfig
from wavernn.errors import CheckpointError, MelError, TextError
from wavernn.symbols import Alphabet
from wavernn.text import Clause, FrontEnd
from wavernn.voices import FOLDER

SLOWEST, FASTEST = 0.25, 4.0
# silence between two clauses, at least, at speed 1
PAUSE_S = {".": 0.35, "?": 0.35, "!": 0.35, "…": 0.35, ";": 0.2, ":": 0.2, "—": 0.15, ",": 0.12}
DEFAULT = "lj-acoustic"


class Acoustic(Protocol):
    """What turns phones into mels; another program's model fits if it has these."""

    # the mel it makes, which must be the vocoder's own
    mel: MelConfig
    # who makes the phones it was trained on: gruut or espeak
    phonemizer: str
    speakers: tuple[str, ...]

    def frames(
        self, clause: Clause, speaker: int, speed: float, semitones: float, pause_s: float
    ) -> np.ndarray:
        """Makes the mel of a clause, float32 [N, M], N > 0, with this much silence at its end.

        `speed` divides durations, `semitones` moves the pitch; who can't do one leaves it.
        """
        ...


class ShippedAcoustic:
    """An acoustic model of `wavernn train acoustic-...`."""

    def __init__(self, checkpoint: AcousticCheckpoint) -> None:
        self.mel = checkpoint.config.mel
        self.phonemizer = checkpoint.config.phonemizer
        self.speakers = checkpoint.speakers
        self._alphabet = Alphabet(checkpoint.symbols)
        self._model = checkpoint.model()

    def frames(
        self,
        clause: Clause,
        speaker: int = 0,
        speed: float = 1.0,
        semitones: float = 0.0,
        pause_s: float = 0.0,
    ) -> np.ndarray:
        """Makes the mel of a clause; see `Acoustic`. Raises TextError for an unknown phone."""
        ids_J2 = torch.from_numpy(self._alphabet.encode(clause.tokens))
        pause = round(pause_s * self.mel.rate_hz / self.mel.hop_samples)
        mel_NM = self._model.speak(ids_J2, speaker, speed, semitones, pause)
        return np.ascontiguousarray(mel_NM.numpy())


class Narrator:
    """Reads text aloud as mels.

    Raises TextError where the front end can't run or the speaker isn't known.
    """

    def __init__(self, acoustic: Acoustic, speaker: str | None = None) -> None:
        self.acoustic = acoustic
        self.front = FrontEnd(acoustic.phonemizer)
        if speaker is not None and speaker not in acoustic.speakers:
            known = ", ".join(acoustic.speakers)
            raise TextError(f"unknown speaker {speaker[:64]!r}; known: {known}")
        self.speaker = acoustic.speakers.index(speaker) if speaker is not None else 0

    def check(self, voice: Checkpoint) -> None:
        """Raises MelError unless the voice takes the mels that are made here."""
        wanted, made = vars(voice.config.mel), vars(self.acoustic.mel)
        for key, value in wanted.items():
            if made[key] != value:
                raise MelError(
                    f"the acoustic model makes mels with {key} {made[key]}, but voice "
                    f"{voice.config.name} takes {value}; choose models of the same mel"
                )

    def frames(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Iterator[np.ndarray]:
        """Yields the mel of one clause after the other, float32 [N, M], as they're asked for.

        Raises TextError for a text that holds nothing to speak, or a speed out of range.
        """
        if not SLOWEST <= speed <= FASTEST:
            raise TextError(f"expected a speed in {SLOWEST}..{FASTEST:g}, got {speed}")
        if not math.isfinite(semitones) or abs(semitones) > 12:
            raise TextError(f"expected a pitch of -12..12 semitones, got {semitones}")
        for clause in self.front.clauses(text):
            pause_s = PAUSE_S[clause.tokens[-1]] / speed
            yield self.acoustic.frames(clause, self.speaker, speed, semitones, pause_s)


def open_acoustic(name: str = "default") -> ShippedAcoustic:
    """Opens an acoustic model by path, by the name of a shipped one, or as "default".

    Raises CheckpointError.
    """
    path = Path(name)
    if not name.endswith(".safetensors"):
        name = DEFAULT if name == "default" else name
        path = FOLDER / "acoustic" / f"{name}.safetensors"
        if not path.exists():
            known = sorted(p.stem for p in path.parent.glob("*.safetensors"))
            raise CheckpointError(
                f"unknown acoustic model {name}; shipped: {', '.join(known) or 'none'}; or give "
                "the path of a .safetensors file"
            )
    return ShippedAcoustic(load(path))
