"""How true the native engine is to a voice: int8 beside float32, float32 beside the reference.

int8 is judged by what it does to the distributions of the next sample, teacher-forced: the
Kullback-Leibler divergence from float32's, in nats a sample. float32 must draw the codes that the
reference draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.kernels import cpu, reference, reference_fused
from wavernn.kernels.example import example_mel
from wavernn.model import nats_of
from wavernn.rng import uniforms

# nats of coarse KL a sample that int8 may cost
KL_LIMIT = 1e-3
# a draw within rounding of an edge may fall to either side
CODES_LIMIT = 0.99
# rows of gate input that are scored at once
ROWS = 32


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) [T] of distributions that are given as logits, [T, Q], or [T, 2, 16] by nibbles.

    Of nibbles it's the sum of both, the lower one's given the upper one that is known.
    """
    log_p, log_q = (torch.from_numpy(x).double().log_softmax(-1) for x in (p, q))
    kl_T: np.ndarray = (log_p.exp() * (log_p - log_q)).flatten(1).sum(1).numpy()
    return kl_T


def likelihood(logits: np.ndarray, codes_T: np.ndarray) -> np.ndarray:
    """Negative log-likelihood [T] of codes by such logits, in nats."""
    codes_T1 = torch.from_numpy(codes_T.astype(np.int64))[:, None]
    nll_T: np.ndarray = nats_of(torch.from_numpy(logits).double()[:, None], codes_T1)[:, 0].numpy()
    return nll_T


def _speak(voice: Checkpoint, gates_1NG: torch.Tensor, reference_samples: int) -> tuple[Any, int]:
    """Codes [1, T, 2] by the float32 engine, and how many of the first the reference draws too.

    The reference takes over the engine's state at each row of gate input, so that one draw on an
    edge counts for no more than a row.
    """
    hop = voice.config.model.conditioning_hop_samples
    engine, judge = cpu.Synthesizer(voice, 1, "float32"), reference.Synthesizer(voice, 1)
    codes, equal = [], 0
    for row in range(gates_1NG.shape[1]):
        gates = gates_1NG[:, row : row + 1]
        uniform_1T2 = uniforms(0, row * hop, hop)[None]
        state = engine.state()
        codes.append(engine.run(gates, uniform_1T2))
        if row * hop < reference_samples:
            judge.set_state(state)
            equal += int((judge.run(gates, uniform_1T2) == codes[-1]).all(2).sum())
    return np.concatenate(codes, 1), equal


def _speak_utterance(
    voice: Checkpoint, gates_1NG: torch.Tensor, reference_samples: int
) -> tuple[Any, int]:
    """Does the same for a subscale or fused voice.

    The reference scores an utterance of those first samples, so that a draw on an edge counts for
    no more than itself.
    """
    hop = voice.config.model.conditioning_hop_samples
    engine, judge = _engine(voice, "float32"), _judge(voice)
    uniform_T2 = uniforms(0, 0, gates_1NG.shape[1] * hop)
    rows, few_T2 = gates_1NG[0, : reference_samples // hop], uniform_T2[:reference_samples]
    first_T2, equal = engine.run(rows, few_T2, last=True), 0
    if reference_samples:
        logits = judge.score(rows, first_T2)
        for known_2, draw_2, *both in zip(first_T2, few_T2, *logits, strict=True):
            drawn = [_draw(one, float(draw)) for one, draw in zip(both, draw_2, strict=True)]
            equal += drawn == known_2.tolist()
    engine.reset()
    return engine.run(gates_1NG[0], uniform_T2, last=True)[None], equal


def _engine(voice: Checkpoint, format: str) -> kernels.SubscaleSynthesizer:
    model = voice.config.model
    return kernels.load_subscale("cpu", model.subscale, model.fused)(voice, format)


def _judge(voice: Checkpoint) -> kernels.SubscaleSynthesizer:
    model = voice.config.model
    return kernels.load_subscale("reference", model.subscale, model.fused)(voice)


def _draw(logits: np.ndarray, uniform: float) -> int:
    """The byte that the reference draws from logits [Q] or [2, 16]."""
    if logits.ndim == 1:
        return reference.inverse_cdf(torch.from_numpy(logits), uniform)
    upper, rest = reference_fused.draw(torch.from_numpy(logits[0]), uniform)
    lower, _ = reference_fused.draw(torch.from_numpy(logits[1]), rest)
    return upper << 4 | lower


Logits = tuple[np.ndarray, np.ndarray]


def _scores(
    voice: Checkpoint, gates_1NG: torch.Tensor, codes_1T2: np.ndarray
) -> Iterator[tuple[np.ndarray, Logits, Logits]]:
    """Known codes [T, 2] in pieces, with their logits [T, ...] by float32 and by int8."""
    formats = ("float32", "int8")
    if not voice.config.model.plain:
        exact, quantised = (
            _engine(voice, format).score(gates_1NG[0], codes_1T2[0]) for format in formats
        )
        yield codes_1T2[0], exact, quantised
        return
    hop = voice.config.model.conditioning_hop_samples
    engines = [cpu.Synthesizer(voice, 1, format) for format in formats]
    for row in range(0, gates_1NG.shape[1], ROWS):
        codes = codes_1T2[:, row * hop : (row + ROWS) * hop]
        both = [e.score(gates_1NG[:, row : row + ROWS], codes) for e in engines]
        exact, quantised = ((coarse[0], fine[0]) for coarse, fine in both)
        yield codes[0], exact, quantised


def check(voice: Checkpoint, seconds: float = 3.0, reference_s: float = 0.3) -> dict[str, Any]:
    """Judges both formats on speech that float32 made from the example mel; plain figures.

    `kl_*` are means a sample in nats; `nll_change_*` is int8's mean negative log-likelihood less
    float32's, `nll_difference_*` the mean magnitude of the difference. Raises BackendUnavailable.
    """
    config, hop = voice.config.mel, voice.config.model.conditioning_hop_samples
    frames = max(round(seconds * config.rate_hz / config.hop_samples), 1)
    mel_NM = torch.from_numpy(example_mel(voice, frames))
    gates_1NG = torch.cat(list(Conditioning(voice).push(mel_NM, last=True)))[None]
    compared = min(round(reference_s * config.rate_hz / hop), gates_1NG.shape[1]) * hop
    speak = _speak if voice.config.model.plain else _speak_utterance
    codes_1T2, equal = speak(voice, gates_1NG, compared)
    kl_2, change_2, difference_2 = np.zeros((3, 2))
    T = codes_1T2.shape[1]
    for codes_T2, exact, quantised in _scores(voice, gates_1NG, codes_1T2):
        for half in (0, 1):
            p, q = exact[half], quantised[half]
            kl_2[half] += divergence(p, q).sum() / T
            nll_T = likelihood(q, codes_T2[:, half]) - likelihood(p, codes_T2[:, half])
            change_2[half] += nll_T.sum() / T
            difference_2[half] += np.abs(nll_T).sum() / T
    return {
        "samples": T,
        "kl_coarse": float(kl_2[0]),
        "kl_fine": float(kl_2[1]),
        "kl_limit": KL_LIMIT,
        "nll_change_coarse": float(change_2[0]),
        "nll_change_fine": float(change_2[1]),
        "nll_difference_coarse": float(difference_2[0]),
        "nll_difference_fine": float(difference_2[1]),
        "codes_compared": compared,
        "codes_equal": equal,
        "passed": bool(kl_2[0] < KL_LIMIT and equal >= CODES_LIMIT * compared),
    }
