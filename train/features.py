"""A folder of recordings as memory-mapped arrays: codes, mel frames, frame labels; made once.

A clip fills a whole number of hops and clips lie one after another, so a slice of any clip is an
index range of every array, on disk or on a GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn.audio import encode, pack_audio, pre_emphasis, read_audio
from wavernn.config import Config
from wavernn.errors import AudioError, DataError
from wavernn.mel import LogMel
from wavernn.train.pitch import pitch

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")
FORMAT = 1
DTYPES = {"codes.u16": np.uint16, "mel.f32": np.float32, "label.u8": np.uint8}
# labels of frames
OTHER, SILENCE, VOICED = 0, 1, 2
SILENCE_DBFS = -45.0


@dataclass(frozen=True)
class Features:
    """The arrays of a data set; clip i is frames first[i] .. first[i] + frames[i] - 1."""

    names: list[str]
    first: np.ndarray
    frames: np.ndarray
    # uint16 [frames * hop]: coarse byte high, fine byte low
    codes_T: np.ndarray
    mel_NM: np.ndarray
    label_N: np.ndarray
    # size of each clip as a FLAC file of 16 bit
    flac_bytes: np.ndarray
    hop_samples: int
    rate_hz: int
    # of the recordings' names and contents
    data_sha256: str

    @property
    def seconds(self) -> float:
        """Length of all clips, tails filled up to a hop."""
        return len(self.codes_T) / self.rate_hz


def find_recordings(folder: Path) -> list[Path]:
    """Lists the sound files below a folder, sorted by path; raises DataError if there is none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "doesn't exist"
        raise DataError(f"expected a folder of recordings, but {folder} {what}; give a folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise DataError(
            f"{folder} holds no recordings; expected files that end in {', '.join(SUFFIXES)}"
        )
    return found


def _key(paths: list[Path], config: Config) -> tuple[str, str]:
    data = hashlib.sha256()
    for path in paths:
        data.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    spec = [FORMAT, asdict(config.mel), config.model.pre_emphasis, data.hexdigest()]
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(), data.hexdigest()


def _clips(
    paths: list[Path], config: Config, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]:
    mel = LogMel(config.mel)
    hop, rate_hz = config.mel.hop_samples, config.mel.rate_hz
    for done, path in enumerate(paths):
        progress(done, len(paths))
        try:
            audio_T = read_audio(path, rate_hz)
        except AudioError as error:
            log.warning("left out: %s", error)
            continue
        with torch.no_grad():
            mel_NM = mel(torch.from_numpy(audio_T)[None])[0].numpy()
        N = len(mel_NM)
        padded_T = np.pad(audio_T, (0, N * hop - len(audio_T)))
        filtered_T, _ = pre_emphasis(padded_T, config.model.pre_emphasis)
        codes_T = encode(filtered_T).astype(np.uint16)
        level_N = 10 * np.log10(np.square(padded_T.reshape(N, hop)).mean(1) + 1e-12)
        _, voiced_N = pitch(audio_T, rate_hz, hop)
        label_N = np.where(voiced_N[:N], VOICED, OTHER).astype(np.uint8)
        label_N[level_N < SILENCE_DBFS] = SILENCE
        flac_bytes = len(pack_audio(padded_T, rate_hz, "flac"))
        yield path.stem, flac_bytes, (codes_T[:, 0] << 8) | codes_T[:, 1], mel_NM, label_N
    progress(len(paths), len(paths))


def build(
    paths: list[Path],
    cache: Path,
    config: Config,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Makes the arrays of some recordings below `cache`, or opens them if they are there.

    They are found again by the content of the recordings and the configuration of the features.
    Recordings that can't be read are named in the log and left out; raises DataError if none
    remains.
    """
    key, data_sha256 = _key(paths, config)
    place = cache / f"features-{key[:16]}"
    if not (place / "index.json").exists():
        partial = cache / f"features-{key[:16]}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        index: dict[str, Any] = {"names": [], "frames": [], "flac_bytes": []}
        index["data_sha256"] = data_sha256
        with ExitStack() as stack:
            files = [stack.enter_context(open(partial / name, "wb")) for name in DTYPES]
            for name, flac_bytes, *arrays in _clips(paths, config, progress):
                index["flac_bytes"].append(flac_bytes)
                index["names"].append(name)
                index["frames"].append(len(arrays[1]))
                for file, array, dtype in zip(files, arrays, DTYPES.values(), strict=True):
                    file.write(array.astype(dtype).tobytes())
        if not index["names"]:
            raise DataError(f"none of {len(paths)} recordings can be used, see the lines above")
        (partial / "index.json").write_text(json.dumps(index))
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    return open_features(place, config)


def open_features(place: Path, config: Config) -> Features:
    """Maps the arrays of a folder that `build` made."""
    index = json.loads((place / "index.json").read_text())
    frames = np.array(index["frames"], np.int64)
    # copy on write: torch wants arrays that could be written to, the files stay as they are
    codes_T, mel_N, label_N = (
        np.memmap(place / name, dtype, "c") for name, dtype in DTYPES.items()
    )
    return Features(
        names=index["names"],
        first=np.cumsum(frames) - frames,
        frames=frames,
        codes_T=codes_T,
        mel_NM=mel_N.reshape(-1, config.mel.bands),
        label_N=label_N,
        flac_bytes=np.array(index["flac_bytes"], np.int64),
        hop_samples=config.mel.hop_samples,
        rate_hz=config.mel.rate_hz,
        data_sha256=index["data_sha256"],
    )


def split(features: Features, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip indices to train on and to validate on: every k-th in order of name is held out.

    At most half of the clips are held out. Raises DataError for fewer than two clips.
    """
    clips = len(features.names)
    if clips < 2:
        raise DataError(
            f"expected at least 2 usable recordings, one to train on and one to validate on, "
            f"got {clips}; add recordings"
        )
    count = min(held_out, clips // 2)
    order = np.argsort(features.names, kind="stable")
    validation = order[((np.arange(count) + 0.5) * clips / count).astype(np.int64)]
    return np.setdiff1d(order, validation), np.sort(validation)


def mel_statistics(features: Features, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each mel band over some clips, float32 [M] each."""
    total, squares, count = 0.0, 0.0, 0
    for clip in clips:
        first = int(features.first[clip])
        mel_NM = features.mel_NM[first : first + int(features.frames[clip])].astype(np.float64)
        total, squares = total + mel_NM.sum(0), squares + np.square(mel_NM).sum(0)
        count += len(mel_NM)
    mean_M = np.asarray(total / count)
    # a band that never moves would divide by zero
    deviation_M = np.sqrt(np.maximum(squares / count - mean_M**2, 1e-2))
    return mean_M.astype(np.float32), deviation_M.astype(np.float32)
