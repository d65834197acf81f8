import numpy as np
import pytest

from wavernn.audio import write_audio
from wavernn.errors import DataError
from wavernn.narration import Narrator, open_acoustic
from wavernn.train import texteval
from wavernn.train.intelligibility import missing_aligner
from wavernn.train.texteval import SENTENCES, evaluate_text, word_errors
from wavernn.vocoder import Vocoder
from wavernn.voices import open_voice


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c d", "b c d a", 2),
    ],
)
def test_word_errors_are_the_edit_distance(said, heard, errors):
    assert word_errors(said.split(), heard.split()) == errors


def test_the_sentences_are_twenty_and_all_different():
    assert len(set(SENTENCES)) == 20


@pytest.fixture(scope="module")
def shipped():
    """The shipped models on whichever engine runs."""
    if sentence := missing_aligner():
        pytest.skip(sentence)
    return Vocoder(open_voice("default")), Narrator(open_acoustic())


def test_text_is_understood_beside_recordings(shipped, speech_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(texteval, "SENTENCES", SENTENCES[:2])
    told = []
    result = evaluate_text(
        *shipped, speech_dir, clips=1, keep=tmp_path / "kept", progress=lambda *r: told.append(r)
    )
    assert (result["clips"], result["sentences"]) == (1, 2)
    assert result["words"] > 5
    assert result["wer"].keys() == {"recording", "copy_synthesis", "text"}
    assert all(0 <= rate <= 2 for rate in result["wer"].values())
    assert result["accepted"] == result["rejected"] == 2
    assert result["align_right"] > 5 * result["align_wrong"]
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert told[-1] == ("alignment", 2, 2)


def test_recordings_without_texts_are_refused(shipped, tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros(22_050), 22_050)
    with pytest.raises(DataError, match=r"holds no transcripts; expected a metadata\.csv"):
        evaluate_text(*shipped, tmp_path)


def test_without_the_recogniser_nothing_is_begun(monkeypatch, tmp_path):
    monkeypatch.setattr(texteval, "missing_aligner", lambda: "it isn't there")
    with pytest.raises(DataError, match=r"judged by pocketsphinx: pip install 'wavernn\[eval\]'"):
        evaluate_text(None, None, tmp_path)
