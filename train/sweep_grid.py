"""A grid file: a recipe, what is varied, and how each voice is judged, as a plan of runs.

`[[grid]]` tables hold axes; each table stands for the product of its axes, the sweep for all of
them together. With `[parent]`, runs are branches: they start from a dense parent of their own size.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from wavernn import recipe
from wavernn.config import PRUNABLE, Config
from wavernn.errors import ConfigError

GATES, HEADS = PRUNABLE[:3], PRUNABLE[3:]
# what a grid may say instead of the recipe's keys; `block` is "16x1" and the like
SHORT = {
    "hidden": ("model.hidden",),
    "subscale": ("model.subscale",),
    "balanced": ("prune.balanced",),
    "block": ("prune.block_rows", "prune.block_columns"),
    "density": tuple(f"prune.density.{name}" for name in GATES),
    "heads": tuple(f"prune.density.{name}" for name in HEADS),
    "steps": ("train.steps",),
    "seed": ("train.seed",),
}
SEED = "train.seed"

# a key of the recipe and its value
Settings = dict[str, Any]


@dataclass(frozen=True)
class Judging:
    """How a trained voice is judged, the same for all runs of a sweep."""

    # what the weights are held in; each gives a row
    formats: tuple[str, ...] = ("float32",)
    # held-out clips of copy synthesis, and how much of each is scored in bits per sample
    clips: int = 2
    seconds_per_clip: float = 4.0
    backend: str = "auto"
    threads: int = 1
    # of the draws
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("clips", "seconds_per_clip", "threads"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"evaluate.{key} must be positive, got {getattr(self, key)}")
        if not 0 <= self.seed < 1 << 64:
            raise ConfigError(f"evaluate.seed must lie in 0..2^64-1, got {self.seed}")


@dataclass(frozen=True)
class Run:
    """A voice to train: `recipe.load(recipe, overrides)` is its configuration."""

    name: str
    # the name without the seed: what error bars are taken over
    point: str
    kind: Literal["run", "parent", "branch"]
    recipe: str
    overrides: tuple[str, ...]
    config: Config
    # whose checkpoint it starts from, with the weights as they are and a new optimizer
    parent: Run | None = None

    @property
    def config_sha256(self) -> str:
        """The digest of the configuration."""
        return _digest(self.config.to_dict())

    @property
    def steps(self) -> int:
        """Optimizer steps of the run itself, without its parent's."""
        return self.config.train.steps

    @property
    def parent_steps(self) -> int:
        """Optimizer steps that its weights had seen when it began."""
        return self.parent.steps if self.parent else 0

    @property
    def samples(self) -> int:
        """Samples that the run itself trains on."""
        return self.steps * self.config.train.batch * self.config.train.slice_samples


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, a [[grid]] after the other, in each the parents that it needs first."""

    name: str
    runs: tuple[Run, ...]
    judging: Judging

    def training_key(self, run: Run, data_sha256: str) -> str:
        """Names what a run's weights depend on."""
        parent = run.parent.config_sha256 if run.parent else None
        return _digest([run.config_sha256, parent, data_sha256])

    def key(self, run: Run, data_sha256: str) -> str:
        """Names what a run's rows depend on: its weights, and how they are judged."""
        return _digest([self.training_key(run, data_sha256), vars(self.judging)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load(path: Path) -> Plan:
    """Reads a grid file; raises ConfigError for anything in it that can't be run."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read grid {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"grid {path} is not valid TOML: {error}") from None
    try:
        return _plan(path, table)
    except ConfigError as error:
        raise ConfigError(f"grid {path}: {error}") from None


def _plan(path: Path, table: Settings) -> Plan:
    _known(table, ("recipe", "set", "parent", "evaluate", "grid"))
    base = table.get("recipe")
    if not isinstance(base, str):
        raise ConfigError(f"recipe must name a recipe or a .toml file, got {base!r}")
    grids = table.get("grid", [])
    if not isinstance(grids, list) or not grids:
        raise ConfigError("it must hold at least one [[grid]] table with axes")
    fixed = _settings(table.get("set", {}), "set")
    parent = table.get("parent")
    if parent is not None:
        _known(_table(parent, "parent"), ("set",), "parent")
    more = None if parent is None else _settings(parent.get("set", {}), "parent.set")
    # beside the grid, as a recipe's own base is
    found = str(path.parent / base) if base.endswith(".toml") else base
    runs: dict[str, Run] = {}
    seen: set[str] = set()
    ordered: list[Run] = []
    for grid in grids:
        before = set(runs)
        for name, point, settings in _product(_table(grid, "grid")):
            run = _run(name or path.stem, point or path.stem, base, found, {**fixed, **settings})
            if more is not None:
                run = _branch(run, found, {**fixed, **settings}, more, runs)
            if run.config_sha256 in seen:
                continue
            seen.add(run.config_sha256)
            if run.name in runs:
                raise ConfigError(
                    f"two runs that differ are called {run.name}; give a [[grid]] a name"
                )
            runs[run.name] = run
        new = [run for name, run in runs.items() if name not in before]
        ordered += sorted(new, key=lambda run: run.kind != "parent")
    return Plan(path.stem, tuple(ordered), _judging(table.get("evaluate", {})))


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str = "") -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(
                f"unknown key {f'{where}.{key}'.lstrip('.')}; known: {', '.join(keys)}"
            )


def _table(value: Any, where: str) -> Settings:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table, got {value!r}")
    return value


def _leaves(table: Settings, path: str = "") -> Iterable[tuple[str, Any]]:
    """Writes nested tables out as dotted keys."""
    for key, value in table.items():
        where = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from _leaves(value, where)
        else:
            yield where, value


def _settings(table: Any, where: str) -> Settings:
    spelled = [_spell(key, value) for key, value in _leaves(_table(table, where))]
    return {key: value for some in spelled for key, value in some.items()}


def _spell(key: str, value: Any) -> Settings:
    """Writes a short name out as keys of the recipe."""
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{key} must be a number, a string or true or false, got {value!r}")
    if key == "format":
        raise ConfigError("the format is no matter of training; list it in evaluate.formats")
    if key != "block":
        return dict.fromkeys(SHORT.get(key, (key,)), value)
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(value))
    if not sides:
        raise ConfigError(f"block must be rows x columns, such as 16x1, got {value!r}")
    return dict(zip(SHORT["block"], map(int, sides.groups()), strict=True))


def _product(grid: Settings) -> Iterable[tuple[str, str, Settings]]:
    """Yields name, name without the seed, and settings of every combination of a [[grid]]."""
    _known(grid, ("name", "set", "axes", "named"), "grid")
    prefix = grid.get("name", "")
    if not isinstance(prefix, str):
        raise ConfigError(f"grid.name must be a string, got {prefix!r}")
    fixed = _settings(grid.get("set", {}), "grid.set")
    # each value as (what a name says of it, is it a seed, settings)
    axes: list[list[tuple[str, bool, Settings]]] = []
    for axis, values in _table(grid.get("named", {}), "grid.named").items():
        where = f"grid.named.{axis}"
        some = _table(values, where)
        axes.append([(k, False, _settings(v, f"{where}.{k}")) for k, v in some.items()])
    for axis, values in _leaves(_table(grid.get("axes", {}), "grid.axes")):
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.axes.{axis} must be a list of values, got {values!r}")
        is_seed = SHORT.get(axis, (axis,)) == (SEED,)
        axes.append([(_word(axis, value), is_seed, _spell(axis, value)) for value in values])
    for chosen in itertools.product(*axes):
        settings = dict(fixed)
        for _, _, more in chosen:
            settings |= more
        words = [(prefix, False), *((word, is_seed) for word, is_seed, _ in chosen)]
        name = "-".join(word for word, _ in words if word)
        yield name, "-".join(word for word, is_seed in words if word and not is_seed), settings


def _word(axis: str, value: Any) -> str:
    key = axis.rpartition(".")[2]
    if isinstance(value, bool):
        return key if value else f"not-{key}"
    return str(value) if isinstance(value, str) else f"{key}{value}"


def _run(name: str, point: str, base: str, found: str, settings: Settings) -> Run:
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.startswith("."):
        raise ConfigError(f"a run's name must be letters, digits and .+-_ only, got {name!r}")
    overrides = tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())
    try:
        config = recipe.load(found, overrides)
    except ConfigError as error:
        raise ConfigError(f"run {name}: {error}") from None
    return Run(name, point, "run", base, overrides, config)


def _branch(run: Run, found: str, settings: Settings, more: Settings, runs: dict[str, Run]) -> Run:
    """The run as a branch of a dense parent, which is added to `runs` unless it's there."""
    dense = {f"prune.density.{name}": 1.0 for name in run.config.prune.density}
    kept = {key: value for key, value in settings.items() if not key.startswith("prune.")}
    model = run.config.model
    point = f"parent-h{model.hidden}"
    for letter, factor in (("u", model.subscale), ("fused", model.fused)):
        point += f"-{letter}{factor}" if factor > 1 else ""
    # the recipe's own densities, if it has any, are the only ones left to undo
    own = recipe.load(found).prune.density
    undone = {key: value for key, value in dense.items() if key.rpartition(".")[2] in own}
    name = f"{point}-seed{run.config.train.seed}"
    parent = _run(name, point, run.recipe, found, {**kept, **undone, **more})
    if any(density < 1 for density in parent.config.prune.density.values()):
        raise ConfigError("parent.set must leave the parent dense")
    if parent.name in runs and runs[parent.name].config_sha256 != parent.config_sha256:
        name = f"{name}-{parent.config_sha256[:6]}"
    parent = Run(name, point, "parent", run.recipe, parent.overrides, parent.config)
    for part in ("model", "mel"):
        if getattr(parent.config, part) != getattr(run.config, part):
            raise ConfigError(f"run {run.name}: parent.set must not change {part}")
    parent = runs.setdefault(name, parent)
    return Run(run.name, run.point, "branch", run.recipe, run.overrides, run.config, parent)


def _judging(table: Any) -> Judging:
    table = dict(_table(table, "evaluate"))
    _known(table, [f.name for f in fields(Judging)], "evaluate")
    formats = table.pop("formats", ["float32"])
    strings = isinstance(formats, list) and all(isinstance(f, str) for f in formats)
    if not strings or not formats or len(set(formats)) < len(formats):
        raise ConfigError(f"evaluate.formats must be a list of different names, got {formats!r}")
    judging: Judging = recipe.build(Judging, table, "evaluate")
    return Judging(tuple(formats), *(getattr(judging, f.name) for f in fields(Judging)[1:]))
