"""Bits per sample as an engine scores them, with the weights in the format that it runs on."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.train.features import Features

# rows of gate input that are scored at once
ROWS = 64


def engine_bits(
    voice: Checkpoint,
    backend: str,
    format: str | None,
    features: Features,
    seconds_per_clip: float = math.inf,
) -> dict[str, float | None]:
    """Scores every clip of some features from its start: the keys of `validate.bits_per_sample`.

    Silence and voiced frames aren't told apart here, so their bits are None.
    """
    engine = kernels.load(backend)(voice, 1, format)
    hop, rows_per_frame = features.hop_samples, voice.model().conditioner.steps_per_frame
    most = max(1.0, seconds_per_clip * features.rate_hz / hop)
    nats_2, samples = np.zeros(2), 0
    for first, frames in zip(features.first, features.frames, strict=True):
        mel_NM = np.array(features.mel_NM[first : first + frames])
        frames = int(min(frames, most))
        gates_NG = torch.cat(list(Conditioning(voice).push(torch.from_numpy(mel_NM), last=True)))
        codes_T = features.codes_T[first * hop : (first + frames) * hop].astype(np.int64)
        codes_T2 = np.stack((codes_T >> 8, codes_T & 255), axis=1)
        engine.reset()
        step = hop // rows_per_frame
        for row in range(0, frames * rows_per_frame, ROWS):
            rows = slice(row, min(row + ROWS, frames * rows_per_frame))
            some_T2 = codes_T2[rows.start * step : rows.stop * step]
            logits = engine.score(gates_NG[None, rows], some_T2[None].astype(np.uint8))
            for half in (0, 1):
                logits_TQ = torch.from_numpy(np.asarray(logits[half][0])).double()
                target_T = torch.from_numpy(some_T2[:, half])
                nats_2[half] += F.cross_entropy(logits_TQ, target_T, reduction="sum").item()
        samples += len(codes_T)
    coarse, fine = (nats_2 / math.log(2) / samples).tolist()
    return {
        "bits_per_sample": coarse + fine,
        "bits_coarse": coarse,
        "bits_fine": fine,
        "bits_silence": None,
        "bits_voiced": None,
    }
