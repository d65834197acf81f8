"""The step in plain PyTorch, captured as a CUDA graph: what the other kernels have to beat.

The equations are those of `kernels/reference.py`, for a tile of lanes at once, with the input's
rows folded into the gates (`weights.tables`). Nothing is fused and the voice is taken as it is, so
that this in float64, on a rounded voice, judges the other kernels where they run.

A launch goes through its samples in windows. What a window needs is gathered into buffers that
never move, [S, L, ...] with time first; a captured step picks its row by a counter on the device.
On a CPU the same step runs without a capture. The tile has a fixed size, so that products of one
shape make a stream's numbers, whoever its neighbours are (where the library sums all rows alike:
MKL doesn't in float64 for some odd sizes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.kernels.gpu.call import Call
from wavernn.kernels.gpu.weights import tables
from wavernn.model import LEVELS

# samples whose input is gathered at once, and those that a captured graph makes
WINDOW = 64
CAPTURED = 8


def draw(logits_LQ: Tensor, uniform_L: Tensor) -> Tensor:
    """The inverse of the cumulative probabilities, int64 [L]: `reference.inverse_cdf`."""
    cdf_LQ = torch.softmax(logits_LQ, dim=1).cumsum(1)
    return (cdf_LQ <= uniform_L[:, None]).sum(1).clamp_(max=LEVELS - 1)


def cell(h: Tensor, Rh: Tensor, Ix: Tensor) -> Tensor:
    """Equation 2 for one half: h [L, H/2]; Rh and Ix [L, 3, H/2]."""
    u = torch.sigmoid(Rh[:, 0] + Ix[:, 0])
    r = torch.sigmoid(Rh[:, 1] + Ix[:, 1])
    e = torch.tanh(r * Rh[:, 2] + Ix[:, 2])
    return u * h + (1 - u) * e


class Graph:
    """The kernel "graph": weights, state and arithmetic in `dtype`, float32 or float64.

    Unlike the others it keeps `h_BH` and `logits_BT2Q` in float64 where a call brings them so.
    """

    name = "graph"

    def __init__(
        self,
        voice: Checkpoint,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        lanes: int = 16,
    ) -> None:
        self.device, self.dtype, self.lanes = torch.device(device), dtype, lanes
        self.format = str(dtype).removeprefix("torch.")
        config = voice.config.model
        self.hop, self.pre_emphasis = config.conditioning_hop_samples, config.pre_emphasis
        self.H, G = config.hidden, config.gate_rows
        place: dict[str, Any] = {"device": self.device, "dtype": dtype}
        w = {name: tensor.to(**place) for name, tensor in voice.tensors.items()}
        self.R = w["R"]
        self.heads = [
            [w[f"O{i}.{part}"] for i in layers for part in ("weight", "bias")]
            for layers in ((1, 2), (3, 4))
        ]
        self.past_c, self.past_f, self.now = (table.to(**place) for table in tables(voice))

        S, L = WINDOW, lanes
        # a window's input
        self.gates_SLG = torch.zeros(S, L, G, **place)
        self.uniform_SL2 = torch.zeros(S, L, 2, **place)
        self.known_SL2 = torch.zeros(S, L, 2, dtype=torch.int64, device=device)
        self.alive_SL = torch.zeros(S, L, dtype=torch.bool, device=device)
        self.temperature_L1 = torch.ones(L, 1, **place)
        # the state of the lanes, and the sample of the window that is next
        self.h_LH = torch.zeros(L, self.H, **place)
        self.code_L2 = torch.zeros(L, 2, dtype=torch.int64, device=device)
        self.memory_L = torch.zeros(L, dtype=torch.float64, device=device)
        self.next_1 = torch.zeros(1, dtype=torch.int64, device=device)
        # its output
        self.code_SL2 = torch.zeros_like(self.known_SL2)
        self.audio_SL = torch.zeros(S, L, dtype=torch.float64, device=device)
        self.logits_SL2Q = torch.zeros(S, L, 2, LEVELS, **place)
        self._captured: dict[bool, Callable[[], None]] = {}

    def _head(self, half: int, y: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.heads[half]
        return F.linear(torch.relu(F.linear(y, w1, b1)), w2, b2)

    @torch.no_grad()
    def _step(self, known: bool) -> None:
        """The next sample of every lane; a lane that isn't alive keeps its state."""

        def row(buffer: Tensor) -> Tensor:
            return buffer.index_select(0, self.next_1)[0]

        def code(half: int, logits_LQ: Tensor) -> Tensor:
            if known:
                return row(self.known_SL2)[:, half]
            return draw(logits_LQ / self.temperature_L1, row(self.uniform_SL2)[:, half])

        h, past_c, past_f = self.h_LH, self.code_L2[:, 0], self.code_L2[:, 1]
        shape = (self.lanes, 3, 2, self.H // 2)
        Rh = F.linear(h, self.R).view(shape)
        Ix = (self.past_c[past_c] + self.past_f[past_f] + row(self.gates_SLG)).view(shape)
        h_c, h_f = h.chunk(2, dim=1)

        y_c = cell(h_c, Rh[:, :, 0], Ix[:, :, 0])
        coarse_LQ = self._head(0, y_c)
        c = code(0, coarse_LQ)
        now = self.now[c].view(self.lanes, 3, -1)
        y_f = cell(h_f, Rh[:, :, 1], Ix[:, :, 1] + now)
        fine_LQ = self._head(1, y_f)
        f = code(1, fine_LQ)

        y = (c * 256 + f - 32768).double() / 32768
        # two operations, so that product and sum are rounded apart
        x = y + self.memory_L * self.pre_emphasis

        alive_L = row(self.alive_SL)
        alive_L1 = alive_L[:, None]
        code_L2 = torch.stack((c, f), dim=1)
        self.h_LH.copy_(torch.where(alive_L1, torch.cat((y_c, y_f), dim=1), h))
        self.code_L2.copy_(torch.where(alive_L1, code_L2, self.code_L2))
        self.memory_L.copy_(torch.where(alive_L, x, self.memory_L))
        outputs = [(self.code_SL2, code_L2), (self.audio_SL, x)]
        if known:
            outputs += [(self.logits_SL2Q, torch.stack((coarse_LQ, fine_LQ), dim=1))]
        for buffer, value in outputs:
            buffer.index_copy_(0, self.next_1, value[None])
        self.next_1 += 1

    def _steps(self, known: bool) -> None:
        for _ in range(CAPTURED):
            self._step(known)

    def _capture(self, known: bool) -> Callable[[], None]:
        """CAPTURED steps as one graph; run where the buffers hold nothing that matters."""
        self.next_1.zero_()
        # libraries make their plans outside of a capture, on a stream of its own
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            self._steps(known)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            self._steps(known)
        replay: Callable[[], None] = graph.replay
        return replay

    def _advance(self, samples: int, known: bool) -> None:
        self.next_1.zero_()
        if self.device.type != "cuda":
            for _ in range(samples):
                self._step(known)
            return
        # what a graph makes beyond the samples is dead, and its rows still lie in the window
        for _ in range(-(-samples // CAPTURED)):
            self._captured[known]()

    @torch.no_grad()
    def launch(self, call: Call) -> None:
        """Runs a call of up to `lanes` lanes: waits until its steps are known, then enqueues."""
        pairs_L2 = torch.stack((call.stream_L, call.steps_L), dim=1).tolist()
        assert len(pairs_L2) <= self.lanes
        live = [(stream, steps) for stream, steps in pairs_L2 if steps]
        if not live:
            return
        known = call.known_BT2 is not None
        if self.device.type == "cuda" and known not in self._captured:
            self._captured[known] = self._capture(known)
        n, longest = len(live), max(steps for _, steps in live)
        # lanes beyond the live ones read stream 0 and write nothing
        live += [(0, 0)] * (self.lanes - n)
        steps_L = torch.tensor([steps for _, steps in live])
        # [2, samples]: every sample that is made, as its time and its lane, in order of time
        made = (torch.arange(longest)[:, None] < steps_L).nonzero().T.to(self.device)
        stream_L, left_L = torch.tensor(live).T.to(self.device)
        self.h_LH.copy_(call.h_BH[stream_L])
        self.code_L2.copy_(call.code_B2[stream_L])
        self.memory_L.copy_(call.memory_B[stream_L])
        self.temperature_L1.copy_(call.temperature_B[stream_L, None])
        done = 0
        for first in range(0, longest, WINDOW):
            until = int(steps_L.clamp(max=first + WINDOW).sum())
            self._give(call, stream_L, left_L - first, first)
            self._advance(min(longest - first, WINDOW), known)
            self._take(call, stream_L, first, made[:, done:until])
            done = until
        rows = stream_L[:n]
        call.h_BH[rows] = self.h_LH[:n].to(call.h_BH.dtype)
        call.code_B2[rows] = self.code_L2[:n].int()
        call.memory_B[rows] = self.memory_L[:n]
        call.sample_B[rows] += left_L[:n]

    def _give(self, call: Call, stream_L: Tensor, left_L: Tensor, first: int) -> None:
        """Gathers the input of WINDOW samples from `first` on, of which a lane makes `left_L`."""
        sample_S1 = torch.arange(WINDOW, device=self.device)[:, None]
        self.alive_SL.copy_(sample_S1 < left_L)
        stream_1L, time_S1 = stream_L[None], call.start + first + sample_S1
        phase_L = (call.sample_B[stream_L] - call.start) % self.hop
        # a lane that has ended reads any row there is
        row_SL = ((phase_L + time_S1) // self.hop).clamp(max=call.gates_BNG.shape[1] - 1)
        self.gates_SLG.copy_(call.gates_BNG[stream_1L, row_SL])
        given, buffer = call.uniform_BT2, self.uniform_SL2
        if call.known_BT2 is not None:
            given, buffer = call.known_BT2, self.known_SL2
        assert given is not None
        buffer.copy_(given[stream_1L, time_S1.clamp(max=given.shape[1] - 1)])

    def _take(self, call: Call, stream_L: Tensor, first: int, made: Tensor) -> None:
        """Writes what a window made; `made` holds times and lanes."""
        time, lane = made
        s, place = time - first, (stream_L[lane], call.start + time)
        call.codes_BT2[place] = self.code_SL2[s, lane].to(torch.uint8)
        call.audio_BT[place] = self.audio_SL[s, lane].clamp(-1, 32767 / 32768).float()
        if call.known_BT2 is not None:
            assert call.logits_BT2Q is not None
            call.logits_BT2Q[place] = self.logits_SL2Q[s, lane].to(call.logits_BT2Q.dtype)

    def check(self) -> None:
        """Waits for the device; plain PyTorch raises its own errors."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
