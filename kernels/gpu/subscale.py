"""The GPU engine for subscale voices: one utterance, whose state stays on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavernn.audio import de_emphasis, decode
from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels import check
from wavernn.kernels.gpu import unavailable as unavailable
from wavernn.kernels.utterance import Utterance
from wavernn.model import LEVELS
from wavernn.rng import uniforms

FORMAT = "float16"
# ticks of a launch
CHUNK = 4096


class Synthesizer:
    """The samples of one utterance on a GPU; see `kernels.SubscaleSynthesizer`.

    `ctas` programs hold the voice, as many as it needs without. `device` may be "cpu" under
    Triton's interpreter. `threads` means nothing here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        format: str | None = None,
        threads: int = 1,
        device: str | torch.device = "cuda",
        ctas: int | None = None,
    ) -> None:
        if format not in (None, FORMAT):
            raise BackendUnavailable(
                f"the gpu engine has subscale voices in {FORMAT} alone, not in {format}"
            )
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        from wavernn.kernels.gpu.subscale_group import Lanes

        self.format, self.device = FORMAT, torch.device(device)
        try:
            self.lanes = Lanes(checkpoint, self.device, ctas)
        except (ValueError, BackendUnavailable) as error:
            raise BackendUnavailable(f"the gpu engine can't run this voice: {error}") from None
        self.pre_emphasis = checkpoint.config.model.pre_emphasis
        self.utterance = Utterance(checkpoint.config.model)
        self.reset()

    def reset(self) -> None:
        """Puts the utterance back to its start."""
        self.utterance.reset()
        self.lanes.reset()
        self.memory = 0.0

    def run(
        self,
        gates_NG: Tensor,
        uniform_T2: np.ndarray,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning and draws of the next T samples; uint8 codes [*, 2] that came due."""
        check.check_uniform(uniform_T2[None], 1)
        self._give(gates_NG, len(uniform_T2), uniform_T2, last)
        return self._advance(temperature, {"uniform_W2": self._to_device(self.utterance.drawn_W2)})

    def speak(
        self,
        gates_NG: Tensor,
        samples: int,
        seed: int,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning of the next samples; float32 audio [*] in [-1, 1) that came due."""
        self._give(gates_NG, samples, None, last)
        codes_T2 = self._advance(temperature, {"uniform_W2": self._draws(seed)})
        audio_T, self.memory = de_emphasis(decode(codes_T2), self.pre_emphasis, self.memory)
        return np.clip(audio_T, -1, 32767 / 32768).astype(np.float32)

    @torch.no_grad()
    def score(self, gates_NG: Tensor, codes_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes an utterance's codes instead of drawing, from its start: logits [T, Q] each."""
        T = check.check_codes(codes_T2[None], 1)
        self.reset()
        self._give(gates_NG, T, codes_T2, True)
        logits_T2Q = torch.empty(T, 2, LEVELS, device=self.device)
        known_T2 = self._to_device(self.utterance.drawn_W2)
        self._advance(1.0, {"known_W2": known_T2, "logits_W2Q": logits_T2Q})
        logits = logits_T2Q.cpu().numpy()
        return logits[:, 0], logits[:, 1]

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _draws(self, seed: int) -> Tensor:
        """The draws of all samples of the window."""
        u = self.utterance
        if self.device.type == "cuda":
            from wavernn.kernels.gpu import draws

            base_1 = torch.tensor([u.base], device=self.device)
            return draws.uniforms(np.array([seed], np.uint64), base_1, u.given - u.base)[0]
        return torch.from_numpy(uniforms(seed, u.base, u.given - u.base))

    def _give(
        self, gates_NG: Tensor, samples: int, drawn_T2: np.ndarray | None, last: bool
    ) -> None:
        if gates_NG.dtype != torch.float32 or gates_NG.device.type != "cpu":
            raise ValueError(
                f"expected gate input as float32 on the CPU, got {gates_NG.dtype} on "
                f"{gates_NG.device}"
            )
        self.utterance.give(gates_NG.to(self.device), samples, drawn_T2, last)

    def _advance(self, temperature: float, given: dict[str, Tensor]) -> np.ndarray:
        """Runs all ticks that can be run; the codes [T, 2] that came due."""
        from wavernn.kernels.gpu.subscale_group import Window

        u = self.utterance
        heat = float(check.check_temperature(temperature, 1)[0])
        until = u.ready_ticks
        if until > u.tick:
            codes_W2 = self._to_device(u.codes_W2)
            window = Window(u.gates_NG.contiguous(), codes_W2, u.base, **given)
            for tick in range(u.tick, until, CHUNK):
                self.lanes.run(window, tick, min(CHUNK, until - tick), heat)
            try:
                self.lanes.check()
            except RuntimeError:
                # what its lanes remember is lost
                u.ended = True
                raise
            u.codes_W2 = codes_W2.cpu().numpy()
        return u.take(until)
