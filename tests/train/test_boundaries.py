"""The aligner's words against a recogniser's, on real speech."""

import shutil

import numpy as np
import pytest

from wavernn.acoustic_config import AcousticConfig
from wavernn.audio import read_audio
from wavernn.symbols import START
from wavernn.text import PAUSES, WORD_BREAK
from wavernn.train import corpus
from wavernn.train.features import find_recordings
from wavernn.train.intelligibility import Aligner, missing_aligner
from wavernn.train.transcripts import find_transcripts

CLIPS = 60


def words(utterance, seconds_per_frame):
    """Begin and end of each word in seconds, [W, 2]."""
    end_J = np.cumsum(utterance.duration_J) * seconds_per_frame
    begin_J = end_J - utterance.duration_J * seconds_per_frame
    found, open_ = [], False
    for j, token in enumerate(utterance.tokens):
        phone = token not in (START, WORD_BREAK, *PAUSES)
        if phone and not open_:
            found.append([begin_J[j], end_J[j]])
        elif phone:
            found[-1][1] = end_J[j]
        open_ = phone
    return np.array(found)


def test_words_begin_and_end_where_a_recogniser_finds_them(speech_dir, tmp_path, capsys):
    if sentence := missing_aligner():
        pytest.skip(sentence)
    data = tmp_path / "data"
    data.mkdir()
    recordings = dict(list(find_recordings(speech_dir).items())[:CLIPS])
    for path in recordings.values():
        (data / path.name).symlink_to(path)
    shutil.copy(speech_dir / "metadata.csv", data)
    found = corpus.build(data, tmp_path / "cache", AcousticConfig(name="speech"))
    texts, aligner = find_transcripts(recordings), Aligner()
    far = []
    for utterance in found.utterances:
        said = aligner.words(texts[utterance.name])
        mine = words(utterance, found.features.hop_samples / found.features.rate_hz)
        if len(mine) != len(said) or aligner.unknown(said):
            continue
        samples_T = read_audio(recordings[utterance.name], found.features.rate_hz)
        if aligner.score(samples_T, found.features.rate_hz, said):
            parts = [part for part in aligner._decoder.seg() if part.word[0] not in "<["]
            theirs = np.array([[p.start_frame, p.end_frame + 1] for p in parts]) / 100
            far.append(np.abs(mine - theirs).ravel())
    far = np.concatenate(far)
    with capsys.disabled():
        print(f"\nword boundaries: {1000 * far.mean():.0f} ms, median {1000 * np.median(far):.0f}")
    assert len(far) > 500
    assert far.mean() < 0.045 and np.median(far) < 0.03
