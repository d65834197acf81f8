"""From phones to a mel spectrogram, all frames at once.

The form of FastSpeech 2 (Ren et al. 2021, "FastSpeech 2: Fast and High-Quality End-to-End Text to
Speech", section 2) with pitch and energy per phone as in FastPitch (Łańcucki 2021, section 2.1):

    d, p, e = prosody(phones, speaker)         duration, pitch and energy of each phone
    x = encoder(phones, speaker)
    y = repeat(x + P(p) + E(e), d)             one row a frame, with its place in the phone
    mel = decoder(y)

Letters: `B` utterances, `J` tokens of a text, `N` mel frames, `M` mel bands, `C` channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavernn.acoustic_config import AcousticModelConfig
from wavernn.config import MelConfig
from wavernn.symbols import STRESSES

# dilations that the decoder's layers take in turn
DILATIONS = (1, 2, 4)
# of one token, so that a bad prediction can't ask for an hour of it
LONGEST_FRAMES = 200
# semitones of one unit of log-frequency
SEMITONES = 12 / math.log(2)


@dataclass(frozen=True)
class Prosody:
    """What the predictors say of each token [B, J], and what training compares them with."""

    # log(1 + frames)
    log_duration: Tensor
    # log of the fundamental and mean log-mel, as deviations from the speaker's mean in its units
    pitch: Tensor
    energy: Tensor


class ConvLayer(nn.Module):
    """A residual layer: norm, convolution, GELU, product; positions out of range hold zeros."""

    def __init__(self, channels: int, taps: int, dropout: float, dilation: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        padding = dilation * (taps // 2)
        self.wide = nn.Conv1d(channels, channels, taps, padding=padding, dilation=dilation)
        self.narrow = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BNC: Tensor, mask_BN1: Tensor) -> Tensor:
        """Maps [B, N, C] to the same; what the mask leaves out touches nothing."""
        y_BNC = self.norm(x_BNC) * mask_BN1
        y_BNC = self.wide(y_BNC.transpose(1, 2)).transpose(1, 2)
        y_BNC = self.dropout(self.narrow(F.gelu(y_BNC)))
        sum_BNC: Tensor = x_BNC + y_BNC
        return sum_BNC


class Rows(nn.Module):
    """Learned rows for symbol, stress and speaker, added up."""

    def __init__(self, channels: int, symbols: int, speakers: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, channels)
        self.stress = nn.Embedding(len(STRESSES), channels)
        self.speaker = nn.Embedding(speakers, channels)

    def forward(self, ids_BJ2: Tensor, speaker_B: Tensor) -> Tensor:
        """Maps tokens [B, J, 2], padded with symbol -1, to [B, J, C]."""
        ids_BJ2 = ids_BJ2.clamp(min=0)
        x_BJC: Tensor = self.symbol(ids_BJ2[..., 0]) + self.stress(ids_BJ2[..., 1])
        x_BJC = x_BJC + self.speaker(speaker_B)[:, None]
        return x_BJC


class Predictor(nn.Module):
    """Duration, pitch and energy of each token, from nothing but the text.

    Small and apart from the encoder: what the mel teaches that learns the prosody of each training
    sentence by heart, and then predicts that of others worse.
    """

    def __init__(self, model: AcousticModelConfig, symbols: int, speakers: int) -> None:
        super().__init__()
        P = model.prosody_channels
        self.rows = Rows(P, symbols, speakers)
        self.layers = nn.ModuleList(
            ConvLayer(P, model.encoder_taps, model.prosody_dropout)
            for _ in range(model.prosody_layers)
        )
        self.duration_norm = nn.LayerNorm(P)
        self.duration = nn.Linear(P, 1)
        # pitch falls and rises over a phrase, durations depend on the neighbours
        self.phrase = nn.GRU(P, P // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(model.prosody_dropout)
        self.melody_norm = nn.LayerNorm(P)
        self.melody = nn.Linear(P, 2)

    def forward(self, ids_BJ2: Tensor, speaker_B: Tensor) -> Prosody:
        """Maps tokens [B, J, 2], padded with symbol -1, to [B, J] each."""
        mask_BJ1 = (ids_BJ2[..., :1] >= 0).float()
        x_BJP = self.rows(ids_BJ2, speaker_B)
        for layer in self.layers:
            x_BJP = layer(x_BJP, mask_BJ1)
        duration_BJ1 = self.duration(self.duration_norm(x_BJP))
        packed = nn.utils.rnn.pack_padded_sequence(
            x_BJP,
            mask_BJ1[..., 0].sum(1).long().cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        phrase_BJP, _ = nn.utils.rnn.pad_packed_sequence(
            self.phrase(packed)[0], batch_first=True, total_length=ids_BJ2.shape[1]
        )
        melody_BJ2 = self.melody(self.melody_norm(x_BJP + self.dropout(phrase_BJP)))
        return Prosody(duration_BJ1[..., 0], melody_BJ2[..., 0], melody_BJ2[..., 1])


class AcousticModel(nn.Module):
    """Phones in, mel out; `ids` are [B, J, 2] of symbol and stress, padded with symbol -1."""

    mean_M: Tensor
    deviation_M: Tensor
    pitch_S2: Tensor
    energy_S2: Tensor

    def __init__(
        self, model: AcousticModelConfig, mel: MelConfig, symbols: int, speakers: int
    ) -> None:
        super().__init__()
        C = model.channels
        self.channels = C
        self.floor = mel.floor_value
        # statistics of the training data, set once: of mel bands, and mean and deviation of each
        # speaker's pitch (natural log of Hz) and energy (mean log-mel)
        self.register_buffer("mean_M", torch.full((mel.bands,), self.floor / 2))
        self.register_buffer("deviation_M", torch.full((mel.bands,), -self.floor / 4))
        self.register_buffer("pitch_S2", torch.tensor([[5.0, 0.3]] * speakers))
        self.register_buffer("energy_S2", torch.tensor([[self.floor / 2, 1.0]] * speakers))
        self.rows = Rows(C, symbols, speakers)
        self.encoder = nn.ModuleList(
            ConvLayer(C, model.encoder_taps, model.dropout) for _ in range(model.encoder_layers)
        )
        self.attention = nn.ModuleList(
            nn.TransformerEncoderLayer(
                C, model.heads, 2 * C, model.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(model.attention_layers)
        )
        self.encoder_norm = nn.LayerNorm(C)
        self.prosody = Predictor(model, symbols, speakers)
        self.pitch = nn.Conv1d(1, C, 3, padding=1)
        self.energy = nn.Conv1d(1, C, 3, padding=1)
        self.place = nn.Linear(3, C)
        self.decoder = nn.ModuleList(
            ConvLayer(C, model.decoder_taps, model.dropout, DILATIONS[i % len(DILATIONS)])
            for i in range(model.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(C)
        self.out = nn.Linear(C, mel.bands)

    def encode(self, ids_BJ2: Tensor, speaker_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns [B, J, C] and the mask [B, J, 1] of what isn't padding."""
        mask_BJ1 = (ids_BJ2[..., :1] >= 0).float()
        x_BJC = self.rows(ids_BJ2, speaker_B)
        for layer in self.encoder:
            x_BJC = layer(x_BJC, mask_BJ1)
        x_BJC = x_BJC + _positions(x_BJC.shape[1], self.channels, x_BJC.device)
        padding_BJ = mask_BJ1[..., 0] == 0
        for layer in self.attention:
            x_BJC = layer(x_BJC, src_key_padding_mask=padding_BJ)
        return self.encoder_norm(x_BJC), mask_BJ1

    def decode(
        self,
        x_BJC: Tensor,
        mask_BJ1: Tensor,
        duration_BJ: Tensor,
        pitch_BJ: Tensor,
        energy_BJ: Tensor,
    ) -> Tensor:
        """Returns the mel [B, N, M], whose tail past the sum of the durations means nothing."""
        for enter, value_BJ in ((self.pitch, pitch_BJ), (self.energy, energy_BJ)):
            known_B1J = (value_BJ * mask_BJ1[..., 0])[:, None]
            x_BJC = x_BJC + enter(known_B1J).transpose(1, 2)
        y_BNC, mask_BN1 = self._repeat(x_BJC * mask_BJ1, duration_BJ)
        for layer in self.decoder:
            y_BNC = layer(y_BNC, mask_BN1)
        z_BNM: Tensor = self.out(self.decoder_norm(y_BNC)).float()
        return z_BNM * self.deviation_M + self.mean_M

    def _repeat(self, x_BJC: Tensor, duration_BJ: Tensor) -> tuple[Tensor, Tensor]:
        """Lays each token over its frames, with its place: from start, to end, log of length."""
        ends_BJ = duration_BJ.cumsum(1)
        n_N = torch.arange(int(ends_BJ[:, -1].max()), device=x_BJC.device)
        mask_BN = n_N < ends_BJ[:, -1:]
        j_BN = torch.searchsorted(ends_BJ, n_N.expand(len(ends_BJ), -1).contiguous(), right=True)
        j_BN = j_BN.clamp(max=ends_BJ.shape[1] - 1)
        length_BN = duration_BJ.gather(1, j_BN).clamp(min=1).float()
        left_BN = (ends_BJ.gather(1, j_BN) - n_N).float() - 0.5
        share_BN = left_BN / length_BN
        place_BN3 = torch.stack([1 - share_BN, share_BN, length_BN.log()], dim=-1)
        y_BNC = x_BJC.gather(1, j_BN[..., None].expand(-1, -1, x_BJC.shape[2]))
        return y_BNC + self.place(place_BN3), mask_BN[..., None].float()

    @torch.inference_mode()
    def speak(
        self,
        ids_J2: Tensor,
        speaker: int = 0,
        speed: float = 1.0,
        semitones: float = 0.0,
        pause_frames: int = 1,
    ) -> Tensor:
        """Turns a text's tokens into its mel [N, M], at least one frame.

        `speed` divides all durations, `semitones` moves the pitch; the last token, a pause, lasts
        at least `pause_frames`.
        """
        speaker_1 = torch.tensor([speaker], device=ids_J2.device)
        x_BJC, mask_BJ1 = self.encode(ids_J2[None], speaker_1)
        said: Prosody = self.prosody(ids_J2[None], speaker_1)
        deviation = float(self.pitch_S2[speaker, 1])
        pitch_BJ = said.pitch + semitones / SEMITONES / deviation
        duration_BJ = whole_frames(said.log_duration, speed)
        duration_BJ[:, -1].clamp_(min=max(pause_frames, 1))
        mel_BNM = self.decode(x_BJC, mask_BJ1, duration_BJ, pitch_BJ, said.energy)
        return mel_BNM[0].clamp(min=self.floor)


def whole_frames(log_duration_BJ: Tensor, speed: float) -> Tensor:
    """Rounds where tokens end, not how long they are, so that no errors add up; int64 [B, J]."""
    frames_BJ = log_duration_BJ.double().exp().sub(1).clamp(0, LONGEST_FRAMES) / speed
    ends_BJ = frames_BJ.cumsum(1).round().long()
    return ends_BJ.diff(dim=1, prepend=torch.zeros_like(ends_BJ[:, :1]))


def _positions(J: int, C: int, device: torch.device) -> Tensor:
    """Sines and cosines of the position, [J, C] (Vaswani et al. 2017, section 3.5)."""
    rate_c = torch.exp(torch.arange(0, C, 2, device=device) * (-math.log(10_000.0) / C))
    angle_Jc = torch.arange(J, device=device)[:, None] * rate_c
    return torch.cat([angle_Jc.sin(), angle_Jc.cos()], dim=1)
