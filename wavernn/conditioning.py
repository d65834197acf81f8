"""Mel frames to gate input, as they arrive, with a bounded look-ahead."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wavernn.checkpoint import Checkpoint
from wavernn.model import WaveRNN

# frames that the network computes in one call: 8 frames of 256 samples at 22 050 Hz are 93 ms
BLOCK_FRAMES = 8


class Conditioning:
    """Gate input frame by frame, the same bits whatever the pieces in which mels arrive.

    Products of different shapes may round differently, so the network always runs on a block of
    BLOCK_FRAMES frames that begins at a multiple of BLOCK_FRAMES; frames that aren't there yet
    are silence in it and don't reach the rows that are given out.
    """

    def __init__(self, voice: Checkpoint, model: WaveRNN | None = None) -> None:
        # streams of one voice share its model
        self.model = voice.model() if model is None else model
        conditioner = self.model.conditioner
        self.history, self.lookahead = conditioner.history_frames, conditioner.lookahead_frames
        self.bands, self.floor = voice.config.mel.bands, conditioner.floor
        self.reset()

    def reset(self) -> None:
        """Forgets the stream."""
        # frames from `history` before the present block on
        self.mel_NM = torch.full((self.history, self.bands), self.floor)
        # frames of the present block that were given out
        self.given = 0

    @torch.no_grad()
    def push(self, mel_NM: torch.Tensor, last: bool = False) -> Iterator[torch.Tensor]:
        """Takes mel frames and yields gate input [n * steps_per_frame, G] of frames now certain.

        A frame is certain once `lookahead` frames after it are there; with `last`, silence
        follows the end.
        """
        self.mel_NM = torch.cat((self.mel_NM, mel_NM))
        ready = len(self.mel_NM) - self.history - (0 if last else self.lookahead)
        while self.given < ready:
            span = self.history + BLOCK_FRAMES + self.lookahead
            block_NM = self.mel_NM[:span]
            missing = torch.full((span - len(block_NM), self.bands), self.floor)
            gates_NG = self.model.gate_input(torch.cat((block_NM, missing))[None])[0]
            steps = self.model.conditioner.steps_per_frame
            until = min(ready, BLOCK_FRAMES)
            yield gates_NG[self.given * steps : until * steps]
            self.given = until
            if until == BLOCK_FRAMES:
                self.mel_NM = self.mel_NM[BLOCK_FRAMES:]
                self.given, ready = 0, ready - BLOCK_FRAMES
        # a view would hold on to all that was pushed
        self.mel_NM = self.mel_NM.clone()
