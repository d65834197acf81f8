"""What the order of a subscale voice costs or saves each sub-tensor, for Gaussian signals.

Of a stationary Gaussian signal the entropy of a sample given others is log2 of the standard
deviation of its best linear prediction, plus a constant. So the autocorrelation of a piece of
speech says what a sample would cost that is predicted from its own sub-tensor's past and from
earlier ones up to the horizon (`wavernn.subscale`), and what it costs in the plain order, given the
samples before it. Without a horizon the mean over sub-tensors would be that of the plain order, by
the chain rule. Run it as

    python -m wavernn.train.order_bound RECORDINGS [--subscale 16] [--horizon 8]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wavernn.audio import pre_emphasis, read_audio
from wavernn.config import ModelConfig
from wavernn.subscale import Order
from wavernn.train.features import find_recordings

# samples of a piece, and how far back any order remembers
PIECE, PAST = 2048, 256


def seen(order: Order, lane: int) -> np.ndarray:
    """Where what a sample of sub-tensor `lane` sees lies, counted from it: int64 [n]."""
    U, steps = order.factor, PAST // order.factor
    own = [-U * k for k in range(1, steps + 1)]
    columns = range(-steps, order.horizon + 1)
    return np.array(own + [U * k + z - lane for k in columns for z in range(lane)], np.int64)


def bits_of(r_K: np.ndarray, offsets: np.ndarray) -> float:
    """Bits of a sample given those at `offsets`, by the autocorrelation r[0 .. K - 1], up to a sum.

    Raises numpy.linalg.LinAlgError where r isn't that of any signal.
    """
    A = r_K[np.abs(offsets[:, None] - offsets)]
    b = r_K[np.abs(offsets)]
    return float(0.5 * np.log2(r_K[0] - b @ np.linalg.solve(A, b)))


def excess_bits(r_K: np.ndarray, order: Order) -> np.ndarray:
    """Bits of a sample of each sub-tensor beyond those of the plain order: [U]."""
    plain = bits_of(r_K, np.arange(-PAST, 0))
    return np.array([bits_of(r_K, seen(order, s)) - plain for s in range(order.factor)])


def autocorrelation(x_T: np.ndarray) -> np.ndarray:
    """Of a piece of `PIECE` samples, windowed, and smoothed as by a narrow Gaussian window."""
    windowed_T = x_T * np.hanning(len(x_T))
    power = np.abs(np.fft.rfft(windowed_T, 2 * len(x_T))) ** 2
    r_K = np.fft.irfft(power)[: len(x_T)] / len(x_T)
    # a spectrum without peaks that a piece as short can't tell; rounding is noise of 1/12
    r_K *= np.exp(-0.5 * (np.arange(len(x_T)) / 400) ** 2)
    r_K[0] += 1 / 12
    return np.asarray(r_K)


def pieces(recordings: Iterable[Path], each: int, rate_hz: int) -> Iterable[np.ndarray]:
    """Pieces of recordings that aren't silent, after pre-emphasis, in 16-bit steps."""
    random = np.random.default_rng(0)
    for path in recordings:
        emphasised_T, _ = pre_emphasis(read_audio(path, rate_hz), ModelConfig.pre_emphasis)
        x_T = 32768 * emphasised_T
        for start in random.integers(0, max(len(x_T) - PIECE, 1), each):
            piece_T = x_T[start : start + PIECE]
            if len(piece_T) == PIECE and piece_T.std() > 10:
                yield piece_T


def main() -> None:
    """Prints the mean over pieces, in all and by sub-tensor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--subscale", type=int, default=16)
    parser.add_argument("--horizon", type=int, default=8)
    parser.add_argument("--rate", type=int, default=22_050, help="samples per second")
    parser.add_argument("--clips", type=int, default=24, help="recordings to take pieces of")
    asked = parser.parse_args()
    order = Order(asked.subscale, asked.horizon)
    found = [*find_recordings(asked.recordings).values()]
    some = found[:: max(len(found) // asked.clips, 1)][: asked.clips]
    rows = [excess_bits(autocorrelation(x_T), order) for x_T in pieces(some, 4, asked.rate)]
    print(
        f"{len(rows)} pieces; bits/sample beyond the plain order: {np.mean(rows):.3f} in the mean"
    )
    print("by sub-tensor: " + " ".join(f"{bits:.2f}" for bits in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
