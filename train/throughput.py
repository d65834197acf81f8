"""How fast this machine trains a recipe, and what share of its matrix rate that is."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from wavernn.config import Config
from wavernn.fused import network
from wavernn.model import LEVELS, WaveRNN
from wavernn.train.loop import loss_parts
from wavernn.train.sampler import Batch

SIDE = 2048


def matrix_rate(dtype: torch.dtype, device: torch.device, repeats: int = 7) -> float:
    """Floating-point operations per second of a product of two 2048 x 2048 matrices, median."""
    a = torch.randn(SIDE, SIDE, device=device).to(dtype)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * SIDE**3 / (time.perf_counter() - started))
    return median(rates)


def operations_per_sample(model: WaveRNN) -> float:
    """Floating-point operations of forward and backward products per trained sample.

    Two for a multiply-add, three products a matrix (result, gradient of input and of weight);
    pruned blocks count, since training multiplies by them.
    """
    E = model.rows.shape[2]
    # of a fused voice's step, which is two samples, the masked matrix is written out
    columns = 3 * E if model.config.fused == 1 else 4 * (E + 2) + 6 * E
    step = columns * model.config.gate_rows + sum(w.numel() for w in model.matrices().values())
    sample = step / model.config.fused
    steps = model.conditioner.steps_per_frame
    frame = (
        sum(p.numel() for p in model.conditioner.parameters()) + steps * model.gates.weight.numel()
    )
    if model.config.subscale > 1:
        # the taps of the first layer run once a sample, over as many samples as there are lanes
        sample += sum(w.numel() for w in model.context.parameters() if w.ndim == 3)
    return 6.0 * (sample + frame / (steps * model.config.conditioning_hop_samples))


def bench_training(config: Config, steps: int = 8) -> dict[str, Any]:
    """Times optimizer steps of a recipe on random data: samples/s and share of the matrix rate.

    The rate is measured in the same process in the precision of the recipe.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    train, hop = config.train, config.mel.hop_samples
    model = network(config.model, config.mel).to(device)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    around = model.surroundings
    context = model.conditioner.history_frames + model.conditioner.lookahead_frames
    B, T = train.batch, train.slice_samples
    mel_BNM = torch.randn(
        B, context + around.more_frames + T // hop, config.mel.bands, device=device
    )
    codes_BT2 = torch.randint(0, LEVELS, (B, T, 2), device=device)
    past_BT2, around_BW3 = torch.randint_like(codes_BT2, LEVELS), None
    if around.stride > 1:
        width = T + around.before_samples + around.after_samples
        around_BW3 = torch.ones(B, width, 3, dtype=torch.long, device=device)
    fresh_B = torch.ones(B, dtype=torch.bool, device=device)
    batch = Batch(mel_BNM, past_BT2, codes_BT2, fresh_B, around_BW3)
    h_BH = torch.zeros(B, config.model.state_size, device=device)
    seconds = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        coarse, fine, _ = loss_parts(model, batch, h_BH, train.precision)
        optimizer.zero_grad(set_to_none=True)
        (coarse + fine).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
        optimizer.step()
        norm.item()
        seconds.append(time.perf_counter() - started)
    # the first two warm up
    samples_per_s = B * T / median(seconds[2:])
    narrow = train.precision == "bfloat16"
    rate = matrix_rate(torch.bfloat16 if narrow else torch.float32, device)
    operations = operations_per_sample(model)
    return {
        "recipe": config.name,
        "precision": train.precision,
        "threads": torch.get_num_threads(),
        "samples_per_s": samples_per_s,
        "audio_seconds_per_s": samples_per_s / config.mel.rate_hz,
        "operations_per_sample": operations,
        "matrix_rate": rate,
        "matrix_share": samples_per_s * operations / rate,
    }
