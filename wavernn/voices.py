"""Where voices are found by name: the `checkpoints` folder of the source tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wavernn.checkpoint import Checkpoint, load
from wavernn.errors import CheckpointError

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
DEFAULT = "lj-sparse-384"


def find(name: str) -> Path:
    """Returns the file of a voice given by path, by name, or as "default"."""
    # os.path takes names that are too long for a path; a folder may be called as a voice is
    if name.endswith(".safetensors") or (os.path.exists(name) and not os.path.isdir(name)):
        return Path(name)
    path = FOLDER / f"{DEFAULT if name == 'default' else name}.safetensors"
    if not os.path.exists(path):
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.safetensors"))) or "none"
        raise CheckpointError(
            f"unknown voice {name}; shipped: {known}; or give the path of a .safetensors file"
        )
    return path


def open_voice(name: str) -> Checkpoint:
    """Loads a voice given by path, by name, or as "default"; raises CheckpointError."""
    return load(find(name))


def open_voices(names: Sequence[str]) -> dict[str, Checkpoint]:
    """Loads voices by what tells them apart: the file's name, or its folder's for a run.

    Raises CheckpointError where two would be called the same.
    """
    found: dict[str, Checkpoint] = {}
    for name in names:
        path = find(name)
        # a run's voice is RUN/checkpoint.safetensors
        label = path.resolve().parent.name if path.stem == "checkpoint" else path.stem
        if label in found:
            raise CheckpointError(f"two voices are called {label}; give one file another name")
        found[label] = load(path)
    return found
