"""Batches of utterances of about the same length, in an order that follows from seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavernn.acoustic import Prosody
from wavernn.train.corpus import Corpus, Utterance

# batches that are sorted by length together; more waste less on padding, and vary less
SORTED_TOGETHER = 8


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of pitch and energy of each speaker, float32 [S, 2]."""

    pitch_S2: np.ndarray
    energy_S2: np.ndarray

    @classmethod
    def of(cls, utterances: Sequence[Utterance], speakers: int) -> Statistics:
        """Measures them over the tokens that have any, each as often as it has frames."""
        tables = []
        for name, spare in (("pitch_J", (5.0, 0.3)), ("energy_J", (-5.0, 1.0))):
            table_S2 = np.tile(np.array(spare, np.float32), (speakers, 1))
            for speaker in range(speakers):
                mine = [u for u in utterances if u.speaker == speaker]
                x_N = np.concatenate([np.repeat(getattr(u, name), u.duration_J) for u in mine])
                x_N = x_N[np.isfinite(x_N)]
                if len(x_N) > 1:
                    table_S2[speaker] = x_N.mean(), max(float(x_N.std()), 1e-2)
            tables.append(table_S2)
        return cls(*tables)


@dataclass(frozen=True)
class Batch:
    """Utterances side by side, padded. Letters as in `wavernn.acoustic`."""

    ids_BJ2: Tensor
    speaker_B: Tensor
    duration_BJ: Tensor
    target: Prosody
    # tokens whose pitch, or energy, is known
    voiced_BJ: Tensor
    present_BJ: Tensor
    mel_BNM: Tensor
    mask_BN: Tensor


def collate(
    corpus: Corpus,
    utterances: Sequence[Utterance],
    statistics: Statistics,
    device: torch.device | None = None,
) -> Batch:
    """Lays utterances side by side, on a device."""
    B, J = len(utterances), max(len(u.tokens) for u in utterances)
    N = max(u.frames for u in utterances)
    ids_BJ2 = np.full((B, J, 2), -1, np.int64)
    duration_BJ = np.zeros((B, J), np.int64)
    pitch_BJ, energy_BJ = np.zeros((2, B, J), np.float32)
    voiced_BJ, present_BJ = np.zeros((2, B, J), np.float32)
    mel_BNM = np.zeros((B, N, corpus.features.mel_NM.shape[1]), np.float32)
    for b, u in enumerate(utterances):
        j = len(u.tokens)
        ids_BJ2[b, :j] = u.ids_J2
        duration_BJ[b, :j] = u.duration_J
        for x_BJ, known_BJ, x_J, table_S2 in (
            (pitch_BJ, voiced_BJ, u.pitch_J, statistics.pitch_S2),
            (energy_BJ, present_BJ, u.energy_J, statistics.energy_S2),
        ):
            mean, deviation = table_S2[u.speaker]
            known_J = np.isfinite(x_J)
            known_BJ[b, :j] = known_J
            if known_J.any():
                x_J = np.interp(np.arange(j), np.flatnonzero(known_J), x_J[known_J])
                x_BJ[b, :j] = (x_J - mean) / deviation
        mel_BNM[b, : u.frames] = corpus.mel(u)

    def put(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(device)

    duration = put(duration_BJ)
    return Batch(
        ids_BJ2=put(ids_BJ2),
        speaker_B=put(np.array([u.speaker for u in utterances], np.int64)),
        duration_BJ=duration,
        target=Prosody(duration.float().log1p(), put(pitch_BJ), put(energy_BJ)),
        voiced_BJ=put(voiced_BJ),
        present_BJ=put(present_BJ),
        mel_BNM=put(mel_BNM),
        mask_BN=torch.arange(N, device=duration.device) < duration.sum(1, keepdim=True),
    )


class Order:
    """Which utterances make up the batch of a step; nothing has to be kept to go on from there."""

    def __init__(self, frames: Sequence[int], batch: int, seed: int) -> None:
        self.frames = np.array(frames)
        self.batch = min(batch, len(frames))
        self.seed = seed
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    def batch_of(self, step: int) -> np.ndarray:
        """Indices of the utterances, step counted from 0."""
        per_epoch = len(self.frames) // self.batch
        epoch, number = divmod(step, per_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(len(self.frames))[: per_epoch * self.batch]
            span = self.batch * SORTED_TOGETHER
            parts = [order[i : i + span] for i in range(0, len(order), span)]
            order = np.concatenate([p[np.argsort(self.frames[p], kind="stable")] for p in parts])
            batches = order.reshape(per_epoch, self.batch)
            self._batches = list(batches[random.permutation(per_epoch)])
            self._epoch = epoch
        return self._batches[number]
