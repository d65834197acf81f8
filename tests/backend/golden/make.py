"""Writes the golden files again: `python tests/backend/golden/make.py`.

Only when the meaning of a voice changes on purpose, which makes every older checkpoint speak
differently. voice.safetensors is a checkpoint with random weights, run.safetensors what the
reference makes of it.
"""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.files import write_atomic
from wavernn.kernels.reference import Synthesizer
from wavernn.model import WaveRNN
from wavernn.rng import uniforms

FOLDER = Path(__file__).parent
FRAMES = 6
# logits are large, so only the first samples' are kept
SCORED = 20

CONFIG = Config(
    name="golden",
    mel=MelConfig(
        rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=16, bands=4, high_hz=4000
    ),
    model=ModelConfig(
        hidden=16,
        projection=8,
        embedding=2,
        channels=4,
        layers=1,
        lookahead_frames=1,
        conditioning_hop_samples=8,
    ),
    train=TrainConfig(slice_samples=256),
)


def make_voice() -> Checkpoint:
    rng = np.random.default_rng(2018)
    tensors = WaveRNN(CONFIG.model, CONFIG.mel).state_dict()
    for name in sorted(tensors):
        if name.startswith("conditioner.") and name.endswith("_M"):
            continue
        like = tensors[name]
        scale = 0.5 if like.ndim == 1 else 1.5 / like[0].numel() ** 0.5
        tensors[name] = torch.from_numpy(rng.normal(0, scale, like.shape)).float()
    return Checkpoint(CONFIG, tensors)


def make_run(voice: Checkpoint) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(1802_08435)
    mel_NM = torch.from_numpy(rng.normal(-5.8, 2.9, (FRAMES, voice.config.mel.bands))).float()
    gates_NG = torch.cat(list(Conditioning(voice).push(mel_NM, last=True)))
    uniform_T2 = uniforms(0, 0, FRAMES * voice.config.mel.hop_samples)
    codes_BT2 = Synthesizer(voice, 1).run(gates_NG[None], uniform_T2[None])
    logits = Synthesizer(voice, 1).score(gates_NG[None], codes_BT2[:, :SCORED])
    return {
        "mel_NM": mel_NM,
        "gates_NG": gates_NG,
        "uniform_T2": torch.from_numpy(uniform_T2),
        "codes_T2": torch.from_numpy(codes_BT2[0]),
        "logits_T2Q": torch.from_numpy(np.stack(logits, axis=2)[0]).float(),
    }


if __name__ == "__main__":
    voice = make_voice()
    checkpoint.save(FOLDER / "voice.safetensors", voice)
    write_atomic(FOLDER / "run.safetensors", safetensors.torch.save(make_run(voice)))
