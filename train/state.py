"""All that a run needs to go on as if it had never stopped: one safetensors file, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wavernn.config import Config
from wavernn.errors import TrainingError
from wavernn.files import write_atomic
from wavernn.model import WaveRNN
from wavernn.sparse import Pruner
from wavernn.train.sampler import Lanes

VERSION = "1"


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
    step: int = 0
    skipped: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, config: Config, model: WaveRNN, lanes: Lanes) -> RunState:
        """A run at step 0 with the weights that `model` has."""
        train = config.train
        learnt = [p for p in model.parameters() if p.requires_grad]
        device = model.R.device
        return cls(
            config=config,
            model=model,
            optimizer=torch.optim.Adam(learnt, lr=train.learning_rate),
            pruner=Pruner(model.matrices(), config.prune),
            lanes=lanes,
            ema={name: value.detach().clone() for name, value in model.state_dict().items()},
            h_BH=torch.zeros(train.batch, config.model.hidden, device=device),
        )

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights with the pruned blocks at zero: what a checkpoint holds."""
        tensors = {name: value.clone() for name, value in self.ema.items()}
        R_u, R_r, R_e = tensors["R"].chunk(3)
        heads = {f"O{i}": tensors[f"O{i}.weight"] for i in (1, 2, 3, 4)}
        self.pruner.apply({"R_u": R_u, "R_r": R_r, "R_e": R_e, **heads})
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
        """Writes the state, whole or not at all."""
        body = {
            "step": self.step,
            "skipped": self.skipped,
            "history": self.history,
            "lanes": self.lanes.state(),
            "config": self.config.to_dict(),
        }
        tensors = {name: t.detach().cpu().contiguous() for name, t in self._tensors().items()}
        metadata = {"format": "wavernn-run", "version": VERSION, "body": json.dumps(body)}
        write_atomic(path, safetensors.torch.save(tensors, metadata))

    def restore(self, path: Path) -> None:
        """Takes over a saved state; raises TrainingError if it's damaged or of another run."""
        body, tensors = read_state(path)
        if body["config"] != json.loads(json.dumps(self.config.to_dict())):
            raise TrainingError(
                f"{path.parent} was trained with another configuration: "
                f"{_first_difference(body['config'], self.config.to_dict())}; "
                "resume with the same recipe and --set, or choose a new --out"
            )
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
        self.step, self.skipped, self.history = body["step"], body["skipped"], body["history"]


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a saved state's JSON body and tensors; raises TrainingError if it's damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            body: dict[str, Any] = json.loads(metadata["body"])
            return body, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise TrainingError(
            f"can't resume from {path}: {error}; start anew in another --out"
        ) from None


def _group(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    return groups


def _first_difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *new]:
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} was {old}, now {new}"
