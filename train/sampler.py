"""Which slices make up a batch: lanes that walk through clips, or slices from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavernn.config import TrainConfig
from wavernn.errors import DataError
from wavernn.model import SILENT_CODE
from wavernn.train.features import Features


@dataclass(frozen=True)
class Batch:
    """Slices of the data: T samples of B lanes and the mel frames around them."""

    mel_BNM: Tensor
    # the code before each target, int64 in 0..255; in a subscale voice that of its sub-tensor
    previous_BT2: Tensor
    codes_BT2: Tensor
    # lanes that begin anew, with a zero state
    fresh_B: Tensor
    # subscale: codes from before to after the slice, and whether they lie in the clip
    around_BW3: Tensor | None = None


class Lanes:
    """Chooses the slice of each lane, step after step, from one seed.

    With `carry`, a lane walks through a clip slice by slice and then takes the next clip of a
    shuffled order; a walk starts within the first slice of a clip, so that cuts and lost tails
    vary. Without, each slice lies anywhere and starts anew.
    """

    def __init__(
        self, frames: np.ndarray, lanes: int, slice_frames: int, carry: bool, seed: int
    ) -> None:
        self.frames = frames
        self.slice_frames = slice_frames
        self.carry = carry
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.queue = np.empty(0, np.int64)
        self.clip_B = np.zeros(lanes, np.int64)
        self.frame_B = np.zeros(lanes, np.int64)
        self.fresh_B = np.ones(lanes, bool)
        self.long_enough = np.flatnonzero(frames >= slice_frames)
        if not len(self.long_enough):
            raise DataError(
                f"expected clips of at least a slice ({slice_frames} frames), but the longest has "
                f"{frames.max()}; choose a smaller train.slice_samples or longer recordings"
            )
        for lane in range(lanes):
            self._next_clip(lane, anywhere=True)

    def _next_clip(self, lane: int, anywhere: bool) -> None:
        if not len(self.queue):
            self.queue = self.random.permutation(self.long_enough)
        clip, self.queue = self.queue[0], self.queue[1:]
        room = int(self.frames[clip]) - self.slice_frames
        limit = room if anywhere else min(room, self.slice_frames - 1)
        self.clip_B[lane] = clip
        self.frame_B[lane] = self.random.integers(limit + 1)
        self.fresh_B[lane] = True

    def next(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns clip, first frame within it, and whether the lane begins anew, each [B]."""
        if self.carry:
            now = self.clip_B.copy(), self.frame_B.copy(), self.fresh_B.copy()
            self.frame_B += self.slice_frames
            self.fresh_B[:] = False
            over = self.frame_B + self.slice_frames > self.frames[self.clip_B]
            for lane in np.flatnonzero(over):
                self._next_clip(int(lane), anywhere=False)
            return now
        room = self.frames[self.long_enough] - self.slice_frames + 1
        pick = self.random.choice(len(room), len(self.clip_B), p=room / room.sum())
        frame_B = self.random.integers(room[pick])
        return self.long_enough[pick], frame_B, self.fresh_B.copy()

    def state(self) -> dict[str, Any]:
        """Everything that decides the slices to come, as JSON values."""
        return {
            "random": self.random.bit_generator.state,
            "queue": self.queue.tolist(),
            "clip": self.clip_B.tolist(),
            "frame": self.frame_B.tolist(),
            "fresh": self.fresh_B.tolist(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.random.bit_generator.state = state["random"]
        self.queue = np.array(state["queue"], np.int64)
        self.clip_B = np.array(state["clip"], np.int64)
        self.frame_B = np.array(state["frame"], np.int64)
        self.fresh_B = np.array(state["fresh"], bool)


class Slices:
    """Cuts batches out of features that lie on `device`: memory-mapped on a CPU, else copied."""

    def __init__(
        self,
        features: Features,
        history: int,
        lookahead: int,
        floor: float,
        device: torch.device,
        subscale: int = 1,
        before: int = 1,
        after: int = 0,
    ) -> None:
        # U, and how many samples a batch holds before and after its slices
        self.subscale, self.before, self.after = subscale, before, after
        self.hop = features.hop_samples
        self.history, self.lookahead, self.floor = history, lookahead, floor
        self.device = device
        self.first = torch.from_numpy(features.first).to(device)
        self.frames = torch.from_numpy(features.frames).to(device)
        self.codes_T = torch.from_numpy(features.codes_T.view(np.int16)).to(device)
        self.mel_NM = torch.from_numpy(features.mel_NM).to(device)

    def cut(
        self, clip_B: np.ndarray, frame_B: np.ndarray, fresh_B: np.ndarray, slice_frames: int
    ) -> Batch:
        """Gathers slices of `slice_frames` frames; where a clip ends, silence follows."""
        clip, frame = (torch.from_numpy(x).to(self.device) for x in (clip_B, frame_B))
        first, frames = self.first[clip][:, None], self.frames[clip][:, None]
        T = slice_frames * self.hop
        offset = torch.arange(-self.before, T + self.after, device=self.device)
        sample = frame[:, None] * self.hop + offset
        inside = (sample >= 0) & (sample < frames * self.hop)
        index = first * self.hop + sample.clamp_min(0).minimum(frames * self.hop - 1)
        code = self.codes_T[index].long() & 0xFFFF
        code = torch.where(inside, code, SILENT_CODE[0] << 8 | SILENT_CODE[1])
        codes_BW2 = torch.stack((code >> 8, code & 0xFF), dim=-1)
        around_BW3 = None
        if self.subscale > 1:
            around_BW3 = torch.cat((codes_BW2, inside[..., None].long()), dim=-1)
        around = torch.arange(-self.history, slice_frames + self.lookahead, device=self.device)
        row = frame[:, None] + around
        inside = (row >= 0) & (row < frames)
        mel_BNM = self.mel_NM[first + row.clamp_min(0).minimum(frames - 1)]
        mel_BNM = torch.where(inside[..., None], mel_BNM, self.floor)
        fresh = torch.from_numpy(fresh_B).to(self.device)
        codes_BT2 = codes_BW2[:, self.before : self.before + T]
        return Batch(mel_BNM, self.previous(codes_BW2, T), codes_BT2, fresh, around_BW3)

    def previous(self, codes_BW2: Tensor, samples: int) -> Tensor:
        """Of the codes around slices, those that stand before each sample: [B, T, 2]."""
        first = self.before - self.subscale
        return codes_BW2[:, first : first + samples]


class Batches:
    """The batches of one process: its lanes of those that all processes share."""

    def __init__(
        self, lanes: Lanes, mine: slice, slices: Slices, clips: np.ndarray, train: TrainConfig
    ) -> None:
        self.lanes, self.mine = lanes, mine
        self.slices, self.clips = slices, clips
        self.train = train

    def next(self, step: int) -> Batch:
        """Moves the lanes on and cuts this process's slices."""
        clip, frame, fresh = (x[self.mine] for x in self.lanes.next())
        batch = self.slices.cut(self.clips[clip], frame, fresh, self.lanes.slice_frames)
        if not self.train.input_noise:
            return batch
        noise_BT = self.noise(step)[self.mine].to(batch.codes_BT2.device)
        if batch.around_BW3 is None:
            return replace(batch, previous_BT2=add_noise(batch.previous_BT2, noise_BT))
        codes_BW2 = add_noise(batch.around_BW3[..., :2], noise_BT)
        around_BW3 = torch.cat((codes_BW2, batch.around_BW3[..., 2:]), dim=-1)
        previous_BT2 = self.slices.previous(codes_BW2, batch.codes_BT2.shape[1])
        return replace(batch, previous_BT2=previous_BT2, around_BW3=around_BW3)

    def noise(self, step: int) -> Tensor:
        """Gaussian noise for all lanes, in steps of the 16-bit scale (LPCNet, section 3.4).

        A function of seed and step, so that nothing has to be saved to resume.
        """
        (seed,) = np.random.SeedSequence((self.train.seed, step)).generate_state(1)
        random = torch.Generator().manual_seed(int(seed))
        width = self.train.slice_samples + self.slices.before + self.slices.after
        if self.slices.subscale == 1:
            width -= 1
        noise_BT = torch.randn(self.train.batch, width, generator=random)
        return (noise_BT * self.train.input_noise).round().long()


def add_noise(codes_BT2: Tensor, noise_BT: Tensor) -> Tensor:
    """Adds whole numbers to 16-bit codes, without running over either end."""
    code_BT = (codes_BT2[..., 0] << 8 | codes_BT2[..., 1]) + noise_BT
    code_BT = code_BT.clamp(0, 65535)
    return torch.stack((code_BT >> 8, code_BT & 0xFF), dim=-1)
