"""What a stream of a subscale voice is given ahead of time, and holds until it comes due.

Its sub-tensors run as the lanes of one batch (`wavernn.subscale.Order`), so lane 0 is ahead of
what comes out by up to `lookahead_samples`. A window of samples is held: from those that the lanes
still see to the last one whose conditioning is there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.config import ModelConfig, PruneConfig
from wavernn.model import SILENT_CODE
from wavernn.subscale import Order


def lane_voice(voice: Checkpoint) -> Checkpoint:
    """The plain voice that each sub-tensor is: its gate input has the context in it."""
    tensors = {k: v for k, v in voice.tensors.items() if k != "X" and not k.startswith("context.")}
    model = replace(voice.config.model, subscale=1)
    # what was to be pruned may be X
    return Checkpoint(replace(voice.config, model=model, prune=PruneConfig()), tensors)


class Utterance:
    """Conditioning, draws and codes of one utterance, and how far it has come.

    Of the samples from `base` on there are codes [W, 2], draws or known codes [W, 2] and, from the
    row of sample `base` on, gate input [N, G].
    """

    def __init__(self, model: ModelConfig) -> None:
        self.order = Order.of(model)
        self.hop, self.gate_rows = model.conditioning_hop_samples, model.gate_rows
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next sample given is the first."""
        # samples whose conditioning is there, samples that were taken, ticks that have run
        self.given = self.taken = self.tick = self.base = 0
        # the last sample is given
        self.ended = False
        self.codes_W2 = np.empty((0, 2), np.uint8)
        self.gates_NG = torch.empty(0, self.gate_rows)
        self.drawn_W2 = np.empty((0, 2), np.float32)

    def give(
        self, gates_NG: torch.Tensor, samples: int, drawn_T2: np.ndarray | None, last: bool
    ) -> None:
        """Takes the next samples: gate input from the row that holds the first of them on.

        Raises ValueError where rows are missing or the utterance has ended.
        """
        if self.ended:
            raise ValueError("the utterance has ended; reset before another one")
        known = -(-self.given // self.hop) - self.base // self.hop
        # the row of the first sample may be there already
        begun = int(self.given % self.hop > 0)
        rows = -(-(self.given + samples) // self.hop) - self.given // self.hop if samples else 0
        if gates_NG.ndim != 2 or gates_NG.shape[1] != self.gate_rows or len(gates_NG) < rows:
            raise ValueError(
                f"expected gate input of at least [{rows}, {self.gate_rows}], "
                f"got {list(gates_NG.shape)}"
            )
        fresh_NG = gates_NG[begun:rows] if samples else gates_NG[:0]
        self.gates_NG = torch.cat((self.gates_NG[:known].to(gates_NG), fresh_NG))
        silent_T2 = np.tile(np.array(SILENT_CODE, np.uint8), (samples, 1))
        self.codes_W2 = np.concatenate((self.codes_W2, silent_T2))
        if drawn_T2 is not None:
            self.drawn_W2 = np.concatenate((self.drawn_W2.astype(drawn_T2.dtype), drawn_T2))
        self.given += samples
        self.ended = last

    @property
    def ready_ticks(self) -> int:
        """Ticks that can have run with what is given: lane 0 is ahead of the others."""
        steps = -(-self.given // self.order.factor)
        return max(self.order.ticks(self.given), self.tick) if self.ended else steps

    def take(self, ticks: int) -> np.ndarray:
        """Notes that all `ticks` have run; returns codes [T, 2] that are due and weren't taken."""
        self.tick = ticks
        due = min(self.order.made(ticks), self.given)
        codes_T2 = self.codes_W2[self.taken - self.base : due - self.base].copy()
        self.taken = due
        self._forget()
        return codes_T2

    def _forget(self) -> None:
        """Lets go of what no lane sees any more: before the step that the last lane made last."""
        U = self.order.factor
        step = self.tick - 1 - (U - 1) * self.order.lag_steps
        base = max(min(U * step, self.taken), self.base)
        drop = base - self.base
        self.codes_W2, self.drawn_W2 = self.codes_W2[drop:], self.drawn_W2[drop:]
        self.gates_NG = self.gates_NG[base // self.hop - self.base // self.hop :]
        self.base = base
