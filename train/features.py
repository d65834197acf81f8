"""A folder of recordings as memory-mapped arrays: codes, mel frames, frame labels; made once.

A clip fills a whole number of hops and clips lie one after another, so a slice of any clip is an
index range of every array, on disk or on a GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn.audio import encode, pack_audio, pre_emphasis, read_audio
from wavernn.config import Config
from wavernn.errors import AudioError, DataError
from wavernn.level import frame_levels_db, silent_frames
from wavernn.mel import LogMel
from wavernn.train.pitch import pitch

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")
# raise it when the same recordings and configuration give other arrays
FORMAT = 2
DTYPES = {"codes.u16": np.uint16, "mel.f32": np.float32, "label.u8": np.uint8}
# `pitch` needs four times the highest fundamental
LOWEST_RATE_HZ = 2_000
# labels of frames
OTHER, SILENCE, VOICED = 0, 1, 2


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


def find_recordings(folder: Path) -> dict[str, Path]:
    """Lists the sound files below a folder by name: the path below it without the suffix, sorted.

    Of two files of one name the first is taken and the other named in the log, so that no clip is
    trained on and held out at once. Raises DataError if there is none.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "doesn't exist"
        raise DataError(f"expected a folder of recordings, but {folder} {what}; give a folder")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            log.warning("left out: %s, since %s has the same name", path, found[name].name)
        elif path.is_file():
            found[name] = path
    if not found:
        raise DataError(
            f"{folder} holds no recordings; expected files that end in {', '.join(SUFFIXES)}"
        )
    return found


def _fingerprint(recordings: Mapping[str, Path]) -> str:
    """A digest of names and contents; one that can't be opened counts by its name."""
    data = hashlib.sha256()
    for name, path in recordings.items():
        data.update(f"{name}{path.suffix}".encode() + b"\0")
        try:
            with open(path, "rb") as file:
                data.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            # reading it as audio will say why
            data.update(b"unreadable")
    return data.hexdigest()


def _clips(
    recordings: Mapping[str, Path], config: Config, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]:
    mel = LogMel(config.mel)
    hop, rate_hz = config.mel.hop_samples, config.mel.rate_hz
    for done, (name, path) in enumerate(recordings.items()):
        progress(done, len(recordings))
        try:
            audio_T = read_audio(path, rate_hz)
        except AudioError as error:
            log.warning("left out: %s", error)
            continue
        with torch.no_grad():
            mel_NM = mel(torch.from_numpy(audio_T)[None])[0].numpy()
        padded_T = np.pad(audio_T, (0, len(mel_NM) * hop - len(audio_T)))
        filtered_T, _ = pre_emphasis(padded_T, config.model.pre_emphasis)
        codes_T2 = encode(filtered_T).astype(np.uint16)
        _, voiced_N = pitch(audio_T, rate_hz, hop)
        label_N = np.where(voiced_N, VOICED, OTHER).astype(np.uint8)
        label_N[silent_frames(frame_levels_db(audio_T, hop))] = SILENCE
        flac_bytes = len(pack_audio(padded_T, rate_hz, "flac"))
        yield name, flac_bytes, codes_T2[:, 0] << 8 | codes_T2[:, 1], mel_NM, label_N
    progress(len(recordings), len(recordings))


def build(
    recordings: Mapping[str, Path],
    cache: Path,
    config: Config,
    progress: Callable[[int, int], None] = lambda done, total: None,
    data_sha256: str | None = None,
) -> Features:
    """Makes the arrays of some recordings below `cache`, or opens them if they are there.

    They are found again by the content of the recordings and the configuration of the features.
    Recordings that can't be read are named in the log and left out. Raises DataError if none
    remains, if the arrays can't be written, or if `data_sha256` is given and isn't theirs.
    """
    if config.mel.rate_hz <= LOWEST_RATE_HZ:
        raise DataError(
            f"expected mel.rate_hz above {LOWEST_RATE_HZ}, got {config.mel.rate_hz}: "
            "the pitch of speech can't be told at less"
        )
    fingerprint = _fingerprint(recordings)
    if data_sha256 not in (None, fingerprint):
        raise DataError(
            f"expected the recordings that the run in {cache} began with, but names or contents "
            "have changed; put them back, or start anew in another --out"
        )
    spec = [FORMAT, asdict(config.mel), config.model.pre_emphasis, fingerprint]
    key = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    place = cache / f"features-{key[:16]}"
    if not (place / "index.json").exists():
        partial = place.with_suffix(".partial")
        try:
            _write(partial, _clips(recordings, config, progress), fingerprint)
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"can't write features to {cache}: {reason}; it must be a folder with room in it"
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _open(place, config)


def _write(
    folder: Path,
    clips: Iterator[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]],
    data_sha256: str,
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index: dict[str, Any] = {"names": [], "frames": [], "flac_bytes": []}
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / name, "wb")) for name in DTYPES]
        for name, flac_bytes, *arrays in clips:
            index["names"].append(name)
            index["flac_bytes"].append(flac_bytes)
            index["frames"].append(len(arrays[1]))
            for file, array, dtype in zip(files, arrays, DTYPES.values(), strict=True):
                file.write(array.astype(dtype).tobytes())
        if not index["names"]:
            raise DataError("none of the recordings can be used, see the lines above")
        # on disk before the folder gets its final name, so that a power cut leaves no holes
        index_file = stack.enter_context(open(folder / "index.json", "wb"))
        index_file.write(json.dumps(index | {"data_sha256": data_sha256}).encode())
        for file in (*files, index_file):
            file.flush()
            os.fsync(file.fileno())


def _open(place: Path, config: Config) -> Features:
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
