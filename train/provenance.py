"""Where a voice comes from: stored in its checkpoint, so that a run can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn import __version__
from wavernn.source import commit
from wavernn.train.features import Features
from wavernn.train.state import RunState


def provenance(features: Features, held_out: np.ndarray, state: RunState) -> dict[str, Any]:
    """What was trained on what, how long, and the last validation."""
    train = state.config.train
    return {
        "program": f"wavernn {__version__}",
        "torch": torch.__version__,
        "commit": commit(Path(__file__).resolve()),
        **state.origin,
        "data_seconds": features.seconds,
        "held_out": [features.names[i] for i in held_out],
        "steps": state.step,
        "samples": state.step * train.batch * train.slice_samples,
        "skipped_steps": state.skipped,
        "metrics": state.history[-1] if state.history else {},
    }
