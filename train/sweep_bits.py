"""Bits per sample as an engine scores them, with the weights in the format that it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.model import nats_of
from wavernn.subscale import Order
from wavernn.train.features import Features

# rows of gate input that are scored at once
ROWS = 64


# coarse and fine logits [T, ...] each, and the codes [T, 2] that they are of
Scored = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]
# takes a clip's gate input and codes, and how many samples to score
Score = Callable[[Tensor, np.ndarray, int], Iterator[Scored]]


def engine_bits(
    voice: Checkpoint,
    backend: str,
    format: str | None,
    features: Features,
    seconds_per_clip: float = math.inf,
) -> dict[str, float | None]:
    """Scores every clip of some features from its start: the keys of `validate.bits_per_sample`.

    Frames and sub-tensors aren't told apart here, so their bits are None.
    """
    model = voice.config.model
    kind = _plain if model.plain else _in_order
    score = kind(voice, backend, format)
    hop = features.hop_samples
    most = max(1.0, seconds_per_clip * features.rate_hz / hop)
    nats_2, samples = np.zeros(2), 0
    for first, whole in zip(features.first, features.frames, strict=True):
        frames = int(min(whole, most))
        mel_NM = np.array(features.mel_NM[first : first + whole])
        gates_NG = torch.cat(list(Conditioning(voice).push(torch.from_numpy(mel_NM), last=True)))
        codes_T = features.codes_T[first * hop : (first + whole) * hop].astype(np.int64)
        codes_T2 = np.stack((codes_T >> 8, codes_T & 255), axis=1).astype(np.uint8)
        for logits_2, some_T2 in score(gates_NG, codes_T2, frames * hop):
            for half in (0, 1):
                logits_T1Q = torch.from_numpy(np.asarray(logits_2[half])).double()[:, None]
                target_T1 = torch.from_numpy(some_T2[:, half, None].astype(np.int64))
                nats_2[half] += float(nats_of(logits_T1Q, target_T1).sum())
        samples += frames * hop
    coarse, fine = (nats_2 / math.log(2) / samples).tolist()
    unknown = ["bits_silence", "bits_voiced"]
    if model.subscale > 1:
        unknown += ["bits_first_lane", "bits_last_lane"]
    bits = {"bits_per_sample": coarse + fine, "bits_coarse": coarse, "bits_fine": fine}
    return bits | dict.fromkeys(unknown)


def _plain(voice: Checkpoint, backend: str, format: str | None) -> Score:
    """Scores the first samples of a clip piece by piece."""
    engine = kernels.load(backend)(voice, 1, format)
    step = voice.config.model.conditioning_hop_samples

    def score(gates_NG: Tensor, codes_T2: np.ndarray, samples: int) -> Iterator[Scored]:
        engine.reset()
        for row in range(0, samples // step, ROWS):
            rows = slice(row, min(row + ROWS, samples // step))
            some_T2 = codes_T2[rows.start * step : rows.stop * step]
            coarse_1TQ, fine_1TQ = engine.score(gates_NG[None, rows], some_T2[None])
            yield (coarse_1TQ[0], fine_1TQ[0]), some_T2

    return score


def _in_order(voice: Checkpoint, backend: str, format: str | None) -> Score:
    """The same for a voice whose samples see later ones: in one piece, as far as they see."""
    model = voice.config.model
    engine = kernels.load_subscale(backend, model.subscale, model.fused)(voice, format)
    order = Order.of(model)
    beyond = order.factor * order.lag_steps

    def score(gates_NG: Tensor, codes_T2: np.ndarray, samples: int) -> Iterator[Scored]:
        coarse_TQ, fine_TQ = engine.score(gates_NG, codes_T2[: samples + beyond])
        yield (coarse_TQ[:samples], fine_TQ[:samples]), codes_T2[:samples]

    return score
