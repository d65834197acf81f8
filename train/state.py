"""All that a run needs to go on as if it had never stopped: one safetensors file, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wavernn import recipe
from wavernn.config import Config
from wavernn.errors import ConfigError, TrainingError
from wavernn.files import write_atomic
from wavernn.model import WaveRNN, matrices
from wavernn.sparse import Pruner
from wavernn.train.sampler import Lanes

FORMAT, VERSION = "wavernn-run", "1"

# what a sample sees of its neighbours must get through X, which at the others' rate lags behind
SHARE_OF_X = 5.0


@dataclass
class RunState:
    """The moving parts of a run, after `step` optimizer steps."""

    config: Config
    model: WaveRNN
    optimizer: torch.optim.Adam
    pruner: Pruner
    lanes: Lanes
    # averaged weights by name
    ema: dict[str, Tensor]
    # state of every lane of every process, carried from slice to slice
    h_BH: Tensor
    # where the run comes from: data_sha256, data_licence, init_from
    origin: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    skipped: int = 0
    # validations so far
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, config: Config, model: WaveRNN, lanes: Lanes) -> RunState:
        """A run at step 0 with the weights that `model` has."""
        train = config.train
        device = model.R.device
        return cls(
            config=config,
            model=model,
            optimizer=torch.optim.Adam(_groups(model), lr=train.learning_rate),
            pruner=Pruner(model.matrices(), config.prune),
            lanes=lanes,
            ema={name: value.detach().clone() for name, value in model.state_dict().items()},
            h_BH=torch.zeros(train.batch, config.model.state_size, device=device),
        )

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights with the pruned blocks at zero: what a checkpoint holds."""
        tensors = {name: value.clone() for name, value in self.ema.items()}
        self.pruner.apply(matrices(tensors))
        return tensors

    def average(self) -> None:
        """Moves the averaged weights towards the present ones; faster in the first steps."""
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        tensors |= {f"mask.{k}": v for k, v in self.pruner.masks.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": v for k, v in moments.items()}
        return tensors | {"h": self.h_BH}

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all; raises TrainingError where it can't."""
        body = json.dumps(
            {
                "step": self.step,
                "skipped": self.skipped,
                "history": self.history,
                "lanes": self.lanes.state(),
                "origin": self.origin,
                "config": self.config.to_dict(),
            }
        )
        tensors = {name: t.detach().cpu().contiguous() for name, t in self._tensors().items()}
        metadata = {"format": FORMAT, "version": VERSION, "body": body}
        metadata["sha256"] = _digest(body, tensors)
        try:
            write_atomic(path, safetensors.torch.save(tensors, metadata))
        except OSError as error:
            raise TrainingError(
                f"can't save step {self.step} to {path}: {error.strerror or error}; "
                "make room, then --resume from the save before"
            ) from None

    def restore(self, path: Path) -> None:
        """Takes over a saved state; raises TrainingError if it's damaged or of another run."""
        body = read_body(path, self.config)
        try:
            with safe_open(path, framework="pt") as file:
                sha256 = file.metadata().get("sha256")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                # saves of before there was a digest are taken as they are
                if sha256 not in (None, _digest(file.metadata()["body"], tensors)):
                    raise _damaged(path, "its sha256 doesn't match")
        except (SafetensorError, OSError) as error:
            raise _damaged(path, str(error)) from None
        device = self.h_BH.device
        group = _group(tensors)
        self.model.load_state_dict(group["model"])
        self.ema = {name: value.to(device) for name, value in group["ema"].items()}
        self.pruner.masks = {k: v.to(device) for k, v in group.get("mask", {}).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in group.get("adam", {}).items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": moments})
        self.h_BH = tensors["h"].to(device)
        self.lanes.set_state(body["lanes"])
        # a save of before there was an origin is of the data that is there
        self.origin |= body.get("origin", {})
        self.step, self.skipped, self.history = body["step"], body["skipped"], body["history"]


def _groups(model: WaveRNN) -> list[dict[str, Any]]:
    """The weights that learn, by the `share` of the learning rate that they have."""
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    context = [learnt.pop("X")] if "X" in learnt else []
    groups = [{"params": list(learnt.values()), "share": 1.0}]
    return [*groups, {"params": context, "share": SHARE_OF_X}] if context else groups


def read_body(path: Path, config: Config) -> dict[str, Any]:
    """Reads all of a saved state but its tensors; raises TrainingError unless it's of `config`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise _damaged(path, f"it is no {FORMAT} of version {VERSION}")
        body: dict[str, Any] = json.loads(metadata["body"])
        saved = recipe.from_dict(body["config"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise _damaged(path, str(error)) from None
    except ConfigError as error:
        raise TrainingError(
            f"{path.parent} was trained by another version of this program: {error}"
        ) from None
    was, now = saved.to_dict(), config.to_dict()
    if was != now:
        key, old, new = first_difference(was, now)
        raise TrainingError(
            f"{path.parent} was trained with another configuration: {key} was {old}, now {new}; "
            "resume with the same recipe and --set, or choose a new --out"
        )
    return body


def _damaged(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"can't resume from {path}: {reason}; start anew in another --out, with --init-from "
        "the run's checkpoint if there is one"
    )


def _digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(body.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _group(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    return groups


def first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any]:
    """Finds the first key in which two nested tables differ, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *new]:
            if old.get(name) != new.get(name):
                return first_difference(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
    return key, old, new
