"""Bits per sample of known recordings: how well a voice predicts what it didn't see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from wavernn.model import WaveRNN, nats_of
from wavernn.train.features import SILENCE, VOICED, Features
from wavernn.train.sampler import Slices

# clips and frames that are scored at a time: what bounds the memory
CLIPS, STRIDE = 32, 16


def make_slices(features: Features, model: WaveRNN, device: torch.device) -> Slices:
    """Prepares features to be cut with the context that the model's conditioner needs."""
    conditioner, around = model.conditioner, model.surroundings
    return Slices(
        features,
        conditioner.history_frames,
        conditioner.lookahead_frames + around.more_frames,
        conditioner.floor,
        device,
        around.stride,
        around.before_samples,
        around.after_samples,
    )


def _scores(
    model: WaveRNN, features: Features, slices: Slices, clips: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the nats of coarse and fine [n, 2] and the frame labels [n] of scored samples."""
    B, hop = len(clips), features.hop_samples
    h_BH = torch.zeros(B, model.config.state_size, device=slices.device)
    for start in range(0, int(frames.max()), STRIDE):
        frame_B = np.full(B, start, np.int64)
        batch = slices.cut(clips, frame_B, np.zeros(B, bool), STRIDE)
        coarse_TBQ, fine_TBQ, h_BH = model(
            batch.mel_BNM,
            batch.previous_BT2,
            batch.codes_BT2,
            h_BH,
            around_BW3=batch.around_BW3,
        )
        target_TB2 = batch.codes_BT2.transpose(0, 1)
        nats = [nats_of(x, target_TB2[..., i]) for i, x in enumerate((coarse_TBQ, fine_TBQ))]
        nats_BT2 = torch.stack(nats, -1).transpose(0, 1).double().cpu().numpy()
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Scores clips in float32, each from its start with a zero state.

    Returns bits/sample: `bits_per_sample`, `bits_coarse`, `bits_fine`, and the sum again for
    frames of silence and voiced frames alone (`bits_silence`, `bits_voiced`, where there are any)
    and for the first and the last sub-tensor of a subscale voice (`bits_first_lane`,
    `bits_last_lane`): the first predicts from its own past alone, the last interpolates.
    """
    was_training = model.training
    model.eval()
    most = max(1.0, seconds_per_clip * features.rate_hz / features.hop_samples)
    # clips of like length together, since a batch takes as long as its longest
    clips = clips[np.argsort(features.frames[clips], kind="stable")]
    frames = np.minimum(features.frames[clips], most).astype(np.int64)
    # of coarse and fine, and how many samples, by label
    bits_2L, count_L = np.zeros((2, 3)), np.zeros(3)
    U = model.config.subscale
    bits_U = np.zeros(U)
    for start in range(0, len(clips), CLIPS):
        progress(start, len(clips))
        some = slice(start, start + CLIPS)
        for nats_T2, label_T in _scores(model, features, slices, clips[some], frames[some]):
            for half in (0, 1):
                bits_2L[half] += np.bincount(label_T, nats_T2[:, half], minlength=3) / math.log(2)
            count_L += np.bincount(label_T, minlength=3)
            bits_U += nats_T2.reshape(-1, U, 2).sum((0, 2)) / math.log(2)
    progress(len(clips), len(clips))
    model.train(was_training)
    coarse, fine = bits_2L.sum(1) / count_L.sum()
    result = {"bits_per_sample": coarse + fine, "bits_coarse": coarse, "bits_fine": fine}
    for name, label in (("bits_silence", SILENCE), ("bits_voiced", VOICED)):
        if count_L[label]:
            result[name] = bits_2L[:, label].sum() / count_L[label]
    if U > 1:
        each = count_L.sum() / U
        result |= {"bits_first_lane": bits_U[0] / each, "bits_last_lane": bits_U[-1] / each}
    return {key: float(value) for key, value in result.items()}


def flac_bits(features: Features, clips: np.ndarray) -> float:
    """Bits/sample of the same clips in FLAC's files, a line to draw beside the model's."""
    samples = features.frames[clips].sum() * features.hop_samples
    return float(8 * features.flac_bytes[clips].sum() / samples)
