"""Where a voice comes from: stored in its checkpoint, so that a run can be repeated."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn import __version__
from wavernn.config import Config
from wavernn.train.features import Features
from wavernn.train.state import RunState


def commit() -> str | None:
    """The commit of the source tree that runs, "-dirty" if it was changed; None outside one."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def provenance(
    config: Config, features: Features, held_out: np.ndarray, state: RunState, licence: str
) -> dict[str, Any]:
    """What was trained on what, how long, and the last validation."""
    return {
        "program": f"wavernn {__version__}",
        "torch": torch.__version__,
        "commit": commit(),
        "data_sha256": features.data_sha256,
        "data_seconds": features.seconds,
        "data_licence": licence,
        "held_out": [features.names[i] for i in held_out],
        "steps": state.step,
        "samples": state.step * config.train.batch * config.train.slice_samples,
        "skipped_steps": state.skipped,
        "metrics": state.history[-1] if state.history else {},
    }
