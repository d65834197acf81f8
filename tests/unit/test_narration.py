import numpy as np
import pytest
import torch

from wavernn.acoustic import AcousticModel
from wavernn.acoustic_checkpoint import AcousticCheckpoint, save
from wavernn.acoustic_config import AcousticConfig, AcousticModelConfig
from wavernn.config import MelConfig
from wavernn.english.phonemes import ENGLISH
from wavernn.errors import CheckpointError, MelError, TextError
from wavernn.narration import PAUSE_S, Narrator, ShippedAcoustic, open_acoustic
from wavernn.symbols import Alphabet
from wavernn.text import PAUSES, FrontEnd

TEXT = "Good morning, everybody. It is a fine day; let us go out!"


@pytest.fixture(scope="module")
def checkpoint():
    """Random weights of the shipped form, small."""
    torch.manual_seed(0)
    model = AcousticModelConfig(
        channels=16, encoder_layers=1, attention_layers=1, decoder_layers=2, prosody_channels=8
    )
    symbols = Alphabet.of(ENGLISH).symbols
    tensors = AcousticModel(model, MelConfig(), len(symbols), 2).state_dict()
    return AcousticCheckpoint(AcousticConfig(model=model), symbols, ("ann", "bob"), tensors)


@pytest.fixture(scope="module")
def narrator(checkpoint):
    return Narrator(ShippedAcoustic(checkpoint))


def test_every_clause_gives_a_mel_and_lasts_longer_by_its_pause(narrator, checkpoint):
    clauses = list(FrontEnd().clauses(TEXT))
    pieces = list(narrator.frames(TEXT))
    assert len(pieces) == len(clauses) > 1
    acoustic = ShippedAcoustic(checkpoint)
    for piece_NM, clause in zip(pieces, clauses, strict=True):
        assert piece_NM.dtype == np.float32 and piece_NM.shape[1] == 80
        bare_NM = acoustic.frames(clause)
        pause = round(PAUSE_S[clause.tokens[-1]] * 22_050 / 256)
        assert 0 <= len(piece_NM) - len(bare_NM) <= pause
        assert len(piece_NM) >= pause


def test_every_pause_has_its_length():
    assert PAUSE_S.keys() == set(PAUSES)


def test_clauses_are_made_when_they_are_asked_for(narrator, monkeypatch):
    made = []
    frames = ShippedAcoustic.frames

    def watch(self, clause, *rest):
        made.append(clause.text)
        return frames(self, clause, *rest)

    monkeypatch.setattr(ShippedAcoustic, "frames", watch)
    stream = narrator.frames(TEXT)
    next(stream)
    assert len(made) == 1


def test_the_same_text_gives_the_same_mel(narrator):
    one, other = (np.concatenate(list(narrator.frames(TEXT))) for _ in range(2))
    assert (one == other).all()


@pytest.mark.parametrize("speed", [0.25, 2.0, 4.0])
def test_speed_divides_the_length(narrator, speed):
    usual, changed = (sum(map(len, narrator.frames(TEXT, s))) for s in (1.0, speed))
    assert changed == pytest.approx(usual / speed, rel=0.15)


@pytest.mark.parametrize("speed", [0.2, 4.1, float("nan"), -1.0])
def test_a_speed_out_of_range_is_refused(narrator, speed):
    with pytest.raises(TextError, match=r"expected a speed in 0\.25\.\.4, got"):
        next(narrator.frames(TEXT, speed))


@pytest.mark.parametrize("semitones", [13.0, -12.5, float("nan")])
def test_a_pitch_out_of_range_is_refused(narrator, semitones):
    with pytest.raises(TextError, match=r"expected a pitch of -12\.\.12 semitones, got"):
        next(narrator.frames(TEXT, 1.0, semitones))


@pytest.mark.parametrize("text", ["", "  \n", "…!?", "\u200b", "日本語", "\U0001f600"])
def test_a_text_without_words_is_refused(narrator, text):
    with pytest.raises(TextError):
        next(narrator.frames(text))


def test_a_speaker_is_chosen_by_name(checkpoint):
    acoustic = ShippedAcoustic(checkpoint)
    ann, bob = (np.concatenate(list(Narrator(acoustic, n).frames(TEXT))) for n in ("ann", "bob"))
    assert ann.shape != bob.shape or not np.allclose(ann, bob)
    with pytest.raises(TextError, match="unknown speaker 'eve'; known: ann, bob"):
        Narrator(acoustic, "eve")


def test_a_voice_of_another_mel_is_refused(narrator, voice):
    narrator.check(voice)
    narrator.acoustic.mel = MelConfig(rate_hz=24_000)
    try:
        with pytest.raises(
            MelError, match=r"makes mels with rate_hz 24000, but voice .* takes 22050"
        ):
            narrator.check(voice)
    finally:
        narrator.acoustic.mel = MelConfig()


def test_a_model_is_found_by_its_file_and_an_unknown_name_is_told(checkpoint, tmp_path):
    path = tmp_path / "mine.safetensors"
    save(path, checkpoint)
    assert open_acoustic(str(path)).speakers == ("ann", "bob")
    with pytest.raises(CheckpointError, match="unknown acoustic model nobody; shipped: "):
        open_acoustic("nobody")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_acoustic(str(tmp_path / "gone.safetensors"))


class Conformer:
    """Another library's model behind the protocol `Acoustic`: FastSpeech 2 of transformers."""

    mel = MelConfig()
    phonemizer = "gruut"
    speakers = ("only",)

    def __init__(self, transformers):
        torch.manual_seed(0)
        self.alphabet = Alphabet.of(ENGLISH)
        config = transformers.FastSpeech2ConformerConfig(
            hidden_size=32,
            vocab_size=len(self.alphabet.symbols),
            num_mel_bins=self.mel.bands,
            encoder_layers=1,
            decoder_layers=1,
            encoder_linear_units=32,
            decoder_linear_units=32,
            speech_decoder_postnet_units=32,
            duration_predictor_channels=32,
            pitch_predictor_channels=32,
            energy_predictor_channels=32,
        )
        self.model = transformers.FastSpeech2ConformerModel(config).eval()

    def frames(self, clause, speaker, speed, semitones, pause_s):
        ids_1J = torch.from_numpy(self.alphabet.encode(clause.tokens)[:, 0])[None]
        with torch.no_grad():
            mel_NM = self.model(ids_1J).spectrogram[0]
        silence = round(pause_s * self.mel.rate_hz / self.mel.hop_samples)
        floor = torch.full((silence, self.mel.bands), self.mel.floor_value)
        return torch.cat([mel_NM, floor]).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_of_another_library_fits(voice):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    narrator = Narrator(Conformer(transformers))
    narrator.check(voice)
    pieces = list(narrator.frames(TEXT))
    assert len(pieces) == len(list(FrontEnd().clauses(TEXT)))
    assert all(p.ndim == 2 and p.shape[1] == 80 and np.isfinite(p).all() for p in pieces)
    from wavernn.vocoder import Vocoder

    samples_T = Vocoder(voice, "reference").synthesize(pieces[0][:3])
    assert len(samples_T) == 3 * 256
