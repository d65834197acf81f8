import dataclasses

from wavernn.config import MEL_PRESETS, MelConfig
from wavernn.specification import check_length, declared_mismatch

MEL = MelConfig()


def test_a_declared_specification_is_compared() -> None:
    same = {
        "sampling_rate": 22050, "hop_size": 256, "n_fft": 1024, "win_size": 1024, "num_mels": 80,
        "fmin": 0, "fmax": 8000.0, "log": "ln", "floor": 1e-5, "segment_size": 8192,
    }  # fmt: skip
    assert declared_mismatch(same, MEL) == []
    assert declared_mismatch(dataclasses.asdict(MEL), MEL) == []
    other = {"sr": 24_000, "hop_length": 300, "fmax": None, "n_mels": "80", "log": "log10"}
    rate, hop, top, bands, log = declared_mismatch(other, MEL)
    assert rate.startswith("sr is 24000 in the specification, but the voice takes 22050; resample")
    assert hop.startswith("hop_length is 300 in the specification, but the voice takes 256;")
    assert top.startswith("fmax is 12000 in the specification, but the voice takes 8000;")
    assert bands.startswith("n_mels is 80 in")
    assert log.startswith("log is log10 in")
    assert declared_mismatch({"fmax": None, "fmin": None}, MEL_PRESETS["24k"]) == []


def test_lengths_are_compared() -> None:
    for frames in (96, 99, 100, 101):
        assert check_length(frames, 25_600, MEL) == []
    (sentence,) = check_length(80, 25_600, MEL)
    assert "80 frames, but a recording of 25600 samples has 100" in sentence
    assert "about 320 samples (14.51 ms)" in sentence
    assert len(check_length(0, 25_600, MEL)) == len(check_length(9, 0, MEL)) == 1
    assert check_length(0, 0, MEL) == []
