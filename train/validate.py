"""Bits per sample of known recordings: how well a voice predicts what it didn't see."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from wavernn.model import WaveRNN
from wavernn.train.features import SILENCE, VOICED, Features
from wavernn.train.sampler import Slices

# frames that are scored at a time
STRIDE = 16


def make_slices(features: Features, model: WaveRNN, device: torch.device) -> Slices:
    """Prepares features to be cut with the context that the model's conditioner needs."""
    conditioner = model.conditioner
    return Slices(
        features,
        conditioner.history_frames,
        conditioner.lookahead_frames,
        conditioner.floor,
        device,
    )


def _scores(
    model: WaveRNN, features: Features, slices: Slices, clips: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the nats of coarse and fine [n, 2] and the frame labels [n] of scored samples."""
    B, hop = len(clips), features.hop_samples
    h_BH = torch.zeros(B, model.config.hidden, device=slices.device)
    for start in range(0, int(frames.max()), STRIDE):
        frame_B = np.full(B, start, np.int64)
        batch = slices.cut(clips, frame_B, np.zeros(B, bool), STRIDE)
        coarse_TBQ, fine_TBQ, h_BH = model(batch.mel_BNM, batch.previous_BT2, batch.codes_BT2, h_BH)
        target_TB2 = batch.codes_BT2.transpose(0, 1)
        nats = [
            F.cross_entropy(logits.flatten(0, 1), target_TB2[..., i].flatten(), reduction="none")
            for i, logits in enumerate((coarse_TBQ, fine_TBQ))
        ]
        nats_BT2 = torch.stack(nats, -1).view(-1, B, 2).transpose(0, 1).double().cpu().numpy()
        for row, clip in enumerate(clips):
            count = min(int(frames[row]) - start, STRIDE)
            if count > 0:
                first = int(features.first[clip]) + start
                label = np.repeat(features.label_N[first : first + count], hop)
                yield nats_BT2[row, : count * hop], label


@torch.no_grad()
def bits_per_sample(
    model: WaveRNN,
    features: Features,
    slices: Slices,
    clips: np.ndarray,
    seconds_per_clip: float = math.inf,
) -> dict[str, float]:
    """Scores clips in float32, each from its start with a zero state.

    Returns bits/sample: `bits_per_sample`, `bits_coarse`, `bits_fine`, and the sum again for
    frames of silence and voiced frames alone (`bits_silence`, `bits_voiced`, where there are any).
    """
    was_training = model.training
    model.eval()
    most = seconds_per_clip * features.rate_hz / features.hop_samples
    frames = np.minimum(features.frames[clips], most).astype(np.int64)
    scored = list(_scores(model, features, slices, clips, frames))
    model.train(was_training)
    bits_N2 = np.concatenate([nats for nats, _ in scored]) / math.log(2)
    label_N = np.concatenate([label for _, label in scored])
    coarse, fine = bits_N2.mean(0)
    result = {"bits_per_sample": coarse + fine, "bits_coarse": coarse, "bits_fine": fine}
    for name, label in (("bits_silence", SILENCE), ("bits_voiced", VOICED)):
        if (label_N == label).any():
            result[name] = bits_N2[label_N == label].sum(1).mean()
    return {key: float(value) for key, value in result.items()}


def flac_bits(features: Features, clips: np.ndarray) -> float:
    """Bits/sample of the same clips in FLAC's files, a line to draw beside the model's."""
    samples = features.frames[clips].sum() * features.hop_samples
    return float(8 * features.flac_bytes[clips].sum() / samples)
