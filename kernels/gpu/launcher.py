"""Streams on the GPU: their state, and runs cut into launches whose output is copied meanwhile."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from wavernn.checkpoint import Checkpoint
from wavernn.kernels import check
from wavernn.kernels.gpu.call import Call, Kernel
from wavernn.kernels.gpu.choice import choose
from wavernn.model import LEVELS, SILENT_CODE
from wavernn.rng import uniforms

log = logging.getLogger(__name__)

# samples of a launch; what it made is copied while the next one runs
CHUNK = 4096


class Synthesizer:
    """The sample loop of B streams on a GPU; see `kernels.Synthesizer`.

    `kernel` is one of `choice.FORMATS` or the voice packed already; without it the voice and the
    device decide. `device` may be "cpu" for the kernel graph, and for all under Triton's
    interpreter. `threads` means nothing here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        streams: int,
        format: str | None = None,
        threads: int = 1,
        kernel: str | Kernel | None = None,
        device: str | torch.device = "cuda",
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        check.check_plain(checkpoint.config.model)
        self.device = torch.device(device)
        if kernel is None or isinstance(kernel, str):
            self.kernel, why = choose(checkpoint, self.device, format, kernel)
            log.info("kernel %s", why)
        else:
            self.kernel = kernel
        self.format = self.kernel.format
        model = checkpoint.config.model
        self._hop, self._gate_rows = model.conditioning_hop_samples, model.gate_rows
        B, device = streams, self.device
        self._h_BH = torch.zeros(B, model.hidden, device=device)
        silence = torch.tensor(SILENT_CODE, dtype=torch.int32, device=device)
        self._code_B2 = silence.repeat(B, 1)
        self._sample_B = torch.zeros(B, dtype=torch.int64, device=device)
        self._memory_B = torch.zeros(B, dtype=torch.float64, device=device)
        # the host's copy, so that a call needn't wait for the device to be checked
        self._samples_B = np.zeros(streams, np.int64)
        self._copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def reset(self, active_B: np.ndarray | None = None) -> None:
        """Puts streams back to the start: zero state, silence before it."""
        rows = check.check_active(active_B, len(self._samples_B))
        index = torch.from_numpy(rows).to(self.device)
        self._h_BH[index] = 0
        self._code_B2[index] = torch.tensor(SILENT_CODE, dtype=torch.int32, device=self.device)
        self._sample_B[index] = 0
        self._memory_B[index] = 0
        self._samples_B[rows] = 0

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all streams' state: h [B, H], code [B, 2], sample [B], memory [B]."""
        return {
            "h": self._h_BH.cpu().numpy().copy(),
            "code": self._code_B2.cpu().numpy().astype(np.uint8),
            "sample": self._samples_B.copy(),
            "memory": self._memory_B.cpu().numpy().copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state."""
        check.check_state(state, *self._h_BH.shape)
        self._h_BH.copy_(torch.from_numpy(np.asarray(state["h"])))
        self._code_B2.copy_(torch.from_numpy(np.asarray(state["code"])))
        self._samples_B[:] = state["sample"]
        self._sample_B.copy_(torch.from_numpy(self._samples_B))
        self._memory_B.copy_(torch.from_numpy(np.asarray(state["memory"])))

    def run(
        self,
        gates_BNG: Tensor,
        uniform_BT2: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Draws the next T samples of each active stream: uint8 codes [B, T, 2]."""
        T = check.check_uniform(uniform_BT2, len(self._samples_B))
        codes_BT2 = np.tile(np.array(SILENT_CODE, np.uint8), (len(self._samples_B), T, 1))
        given = {"uniform_BT2": self._to_device(np.ascontiguousarray(uniform_BT2))}
        self._run(gates_BNG, T, active_B, temperature, given, codes=codes_BT2)
        return codes_BT2

    def speak(
        self,
        gates_BNG: Tensor,
        samples: int,
        seed_B: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Makes the next samples of each active stream: float32 [B, T] in [-1, 1)."""
        check.check_seeds(seed_B, len(self._samples_B))
        audio_BT = np.zeros((len(seed_B), samples), np.float32)
        given = {"uniform_BT2": self._draws(seed_B, samples)}
        self._run(gates_BNG, samples, active_B, temperature, given, audio=audio_BT)
        return audio_BT

    def score(self, gates_BNG: Tensor, codes_BT2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes known codes instead of drawing: coarse and fine logits [B, T, Q]."""
        B, T = len(codes_BT2), check.check_codes(codes_BT2, len(self._samples_B))
        logits_BT2Q = torch.empty(B, T, 2, LEVELS, device=self.device)
        known_BT2 = self._to_device(np.ascontiguousarray(codes_BT2))
        self._run(gates_BNG, T, None, 1.0, {"known_BT2": known_BT2, "logits_BT2Q": logits_BT2Q})
        logits = logits_BT2Q.cpu().numpy()
        return logits[:, :, 0], logits[:, :, 1]

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _draws(self, seed_B: np.ndarray, samples: int) -> Tensor:
        if self.device.type == "cuda":
            from wavernn.kernels.gpu import draws

            return draws.uniforms(np.ascontiguousarray(seed_B), self._sample_B, samples)
        pairs = zip(seed_B.tolist(), self._samples_B.tolist(), strict=True)
        parts = [uniforms(seed, start, samples) for seed, start in pairs]
        return torch.from_numpy(np.stack(parts) if parts else np.zeros((0, samples, 2), "f4"))

    def _run(
        self,
        gates_BNG: Tensor,
        samples: int,
        active_B: np.ndarray | None,
        temperature: float | np.ndarray,
        given: dict[str, Tensor],
        codes: np.ndarray | None = None,
        audio: np.ndarray | None = None,
    ) -> None:
        """Runs the active streams; `codes` and `audio` get what they made."""
        B = len(self._samples_B)
        rows = check.check_active(active_B, B)
        temperature_B = check.check_temperature(temperature, B)
        check.check_gates(gates_BNG, self._gate_rows, self._hop, self._samples_B, samples, rows)
        if not samples or not len(rows):
            return
        B, lanes = len(self._samples_B), self.kernel.lanes
        shared = {
            "h_BH": self._h_BH,
            "code_B2": self._code_B2,
            "sample_B": self._sample_B,
            "memory_B": self._memory_B,
            "gates_BNG": gates_BNG.contiguous().to(self.device),
            "temperature_B": self._to_device(temperature_B),
            "codes_BT2": torch.empty(B, samples, 2, dtype=torch.uint8, device=self.device),
            "audio_BT": torch.empty(B, samples, device=self.device),
        }
        parts = [
            self._to_device(rows[at : at + lanes].astype(np.int32))
            for at in range(0, len(rows), lanes)
        ]
        outputs = [
            (self._staging(shared[name]), shared[name], array)
            for name, array in (("codes_BT2", codes), ("audio_BT", audio))
            if array is not None
        ]
        for start in range(0, samples, CHUNK):
            steps = min(CHUNK, samples - start)
            for stream_L in parts:
                steps_L = torch.full_like(stream_L, steps)
                self.kernel.launch(
                    Call(stream_L=stream_L, steps_L=steps_L, start=start, **shared, **given)
                )
            self._copy(slice(start, start + steps), outputs)
        self.kernel.check()
        if self._copies is not None:
            self._copies.synchronize()
        self._samples_B[rows] += samples
        for staged, _, array in outputs:
            array[rows] = staged.numpy()[rows]

    def _staging(self, made: Tensor) -> Tensor:
        """Memory of the host that the device can write to while it goes on."""
        return torch.empty(made.shape, dtype=made.dtype, pin_memory=self._copies is not None)

    def _copy(self, part: slice, outputs: list[tuple[Tensor, Tensor, np.ndarray]]) -> None:
        """Brings what launches made to the host, after them and beside the next ones."""
        if self._copies is None:
            for staged, made, _ in outputs:
                staged[:, part] = made[:, part]
            return
        self._copies.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._copies):
            for staged, made, _ in outputs:
                staged[:, part].copy_(made[:, part], non_blocking=True)
