"""Durations of phones in recordings, from hidden Markov models that are fitted to them alone.

Flat start and Viterbi training (Rabiner 1989, section III; Young et al., The HTK Book, section
8.3): the loud frames are first dealt evenly to the phones of the text, then each round fits a
Gaussian with full covariance to the frames of each state and finds the likeliest path again.
Breaks between words and pauses share one model of silence and may be left out.

Letters: `N` frames, `D` dimensions of a frame, `K` states of all models, `S` states of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wavernn.errors import DataError

# states of a phone: at least so many frames
PHONE_STATES = 2
# frames of the shortest silence between words
SILENCE_STATES = 3
# cepstral coefficients, which are given with their differences and second differences
CEPSTRA = 13
# frames of the shared covariance that are mixed into that of a state
PRIOR_FRAMES = 200.0
# nats that entering a silence between words costs; a closure of a plosive is quiet too
BREAK_COST = 20.0


@dataclass(frozen=True)
class Text:
    """What is said in a recording: a model per token, and the tokens that may be left out."""

    # index of the token's model
    model_J: np.ndarray
    # silences: 0 none, 1 a break between words, 2 a pause or an end
    silence_J: np.ndarray


def cepstra(mel_NM: np.ndarray) -> np.ndarray:
    """Turns log-mel frames into mel-cepstra without their mean, and differences: [N, 39]."""
    M = mel_NM.shape[1]
    basis_DM = np.cos(np.pi / M * (np.arange(M) + 0.5) * np.arange(CEPSTRA)[:, None])
    c_ND = mel_NM.astype(np.float64) @ basis_DM.T / M
    c_ND -= c_ND.mean(0)
    first = _difference(c_ND)
    return np.concatenate([c_ND, first, _difference(first)], axis=1)


def _difference(x_ND: np.ndarray) -> np.ndarray:
    """The slope over five frames."""
    p = np.pad(x_ND, ((2, 2), (0, 0)), mode="edge")
    n = len(x_ND)
    return np.asarray((2 * (p[4:] - p[:n]) + (p[3 : n + 3] - p[1 : n + 1])) / 10)


def align(
    frames: Sequence[np.ndarray],
    silent: Sequence[np.ndarray],
    texts: Sequence[Text],
    models: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """Returns the frames that each token of each text lasts, int64 [J], silences possibly 0.

    `frames` are `cepstra`, `silent` says which of them are quiet, `models` counts the phones'
    models; silence has one of its own. Raises DataError where a recording is too short for its
    text.
    """
    chains = [_Chain.of(text, models) for text in texts]
    for number, (x_ND, chain) in enumerate(zip(frames, chains, strict=True)):
        if len(x_ND) < chain.shortest:
            raise DataError(
                f"recording {number} has {len(x_ND)} frames, too few for the "
                f"{chain.shortest} states of its text"
            )
    states = models * PHONE_STATES + 1
    pooled = np.concatenate(frames)
    labels = np.concatenate([c.even(quiet) for c, quiet in zip(chains, silent, strict=True)])
    for done in range(rounds):
        progress(done, rounds)
        gaussians = _fit(pooled, labels, states)
        paths = [
            chain.best(gaussians.score(x_ND)) for x_ND, chain in zip(frames, chains, strict=True)
        ]
        labels = np.concatenate([c.state_S[p] for c, p in zip(chains, paths, strict=True)])
    progress(rounds, rounds)
    return [
        np.bincount(chain.token_S[path], minlength=len(text.model_J))
        for chain, path, text in zip(chains, paths, texts, strict=True)
    ]


@dataclass(frozen=True)
class _Gaussians:
    mean_KD: np.ndarray
    # inverse Cholesky factors, and log of their determinants
    whiten_KDD: np.ndarray
    log_K: np.ndarray

    def score(self, x_ND: np.ndarray) -> np.ndarray:
        """Log-likelihoods [N, K], up to a constant."""
        K, D, _ = self.whiten_KDD.shape
        # one large product, as many small ones keep threads waiting for each other
        z_NKD = (x_ND @ self.whiten_KDD.transpose(1, 0, 2).reshape(D, K * D)).reshape(-1, K, D)
        z_NKD -= np.einsum("kd,kde->ke", self.mean_KD, self.whiten_KDD)
        return np.asarray(self.log_K - 0.5 * np.einsum("nkd,nkd->nk", z_NKD, z_NKD))


def _fit(x_ND: np.ndarray, label_N: np.ndarray, states: int) -> _Gaussians:
    D = x_ND.shape[1]
    overall_D = x_ND.mean(0)
    mean_KD = np.tile(overall_D, (states, 1))
    scatter_KDD = np.zeros((states, D, D))
    count_K = np.bincount(label_N, minlength=states)
    order = np.argsort(label_N, kind="stable")
    for k, part in enumerate(np.split(order, np.cumsum(count_K)[:-1])):
        if len(part):
            # a state of few frames stays near the mean of all
            weight = len(part) / (len(part) + 1)
            mean_KD[k] = weight * x_ND[part].mean(0) + (1 - weight) * overall_D
            z_ND = x_ND[part] - mean_KD[k]
            scatter_KDD[k] = z_ND.T @ z_ND
    shared_DD = scatter_KDD.sum(0) / len(x_ND) + 1e-6 * np.eye(D)
    covariance_KDD = (scatter_KDD + PRIOR_FRAMES * shared_DD) / (
        count_K[:, None, None] + PRIOR_FRAMES
    )
    whiten_KDD = np.linalg.inv(np.linalg.cholesky(covariance_KDD)).transpose(0, 2, 1)
    log_K = np.log(np.diagonal(whiten_KDD, axis1=1, axis2=2)).sum(1)
    return _Gaussians(mean_KD, whiten_KDD, log_K)


@dataclass(frozen=True)
class _Chain:
    """The states of a text in order."""

    # of all models' states, the one that each is
    state_S: np.ndarray
    token_S: np.ndarray
    # the state that may come before besides the one to the left, or -1; and what that costs
    skip_S: np.ndarray
    # nats for coming from the left
    cost_S: np.ndarray
    # states that a path may begin and end in
    begins: list[int]
    ends: list[int]
    # frames that the text needs
    shortest: int
    # number of the state of silence
    silent: int

    @classmethod
    def of(cls, text: Text, models: int) -> _Chain:
        silent = models * PHONE_STATES
        state: list[int] = []
        token: list[int] = []
        skip: list[int] = []
        cost: list[float] = []
        # first states of tokens that may begin a path; last states that lead to the next token
        begins: list[int] = []
        open_ends: list[int] = []
        shortest = 0
        for j, (model, silence) in enumerate(
            zip(text.model_J.tolist(), text.silence_J.tolist(), strict=True)
        ):
            count = SILENCE_STATES if silence else PHONE_STATES
            if j == 0 or (j == 1 and text.silence_J[0]):
                begins.append(len(state))
            over = [end for end in open_ends if end != len(state) - 1]
            for i in range(count):
                state.append(silent if silence else model * PHONE_STATES + i)
                token.append(j)
                skip.append(over[0] if i == 0 and over else -1)
                cost.append(BREAK_COST if i == 0 and silence == 1 else 0.0)
            if silence:
                open_ends = [*open_ends[-1:], len(state) - 1]
            else:
                open_ends = [len(state) - 1]
                shortest += count
        return cls(
            state_S=np.array(state),
            token_S=np.array(token),
            skip_S=np.array(skip),
            cost_S=np.array(cost),
            begins=begins,
            ends=open_ends,
            shortest=shortest,
            silent=silent,
        )

    def even(self, quiet_N: np.ndarray) -> np.ndarray:
        """States [N] for the first round: silence where it's quiet, the rest dealt evenly."""
        silent = self.silent
        phones = self.state_S[self.state_S != silent]
        label_N = np.full(len(quiet_N), silent)
        loud = np.flatnonzero(~quiet_N)
        label_N[loud] = phones[np.arange(len(loud)) * len(phones) // max(len(loud), 1)]
        return label_N

    def best(self, score_NK: np.ndarray) -> np.ndarray:
        """The likeliest path: the state [N] of each frame."""
        score_NS = score_NK[:, self.state_S]
        N, S = score_NS.shape
        come_NS = np.empty((N, S), np.int64)
        stay = np.arange(S)
        skip = self.skip_S
        best_S = np.full(S, -np.inf)
        best_S[self.begins] = score_NS[0, self.begins]
        for n in range(1, N):
            left_S = np.concatenate([[-np.inf], best_S[:-1]]) - self.cost_S
            over_S = np.where(skip >= 0, best_S[skip], -np.inf)
            value_S = np.maximum(np.maximum(best_S, left_S), over_S)
            come_NS[n] = np.where(
                value_S == best_S, stay, np.where(value_S == left_S, stay - 1, skip)
            )
            best_S = value_S + score_NS[n]
        path = np.empty(N, np.int64)
        path[-1] = max(self.ends, key=lambda s: best_S[s])
        for n in range(N - 1, 0, -1):
            path[n - 1] = come_NS[n, path[n]]
        return path
