"""Recipes: TOML files that overlay the defaults of `config.Config`, strictly.

`base = "other.toml"` lays a file on top of another in the same folder; a `--set model.hidden=512`
is one more line of TOML laid on top of both. `mel = "16k"` takes a preset.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wavernn.config import MEL_PRESETS, Config
from wavernn.errors import ConfigError

# an editable install leaves the folder where it is in the source tree
RECIPES = Path(str(resources.files("wavernn.train"))) / "recipes"


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one table on top of another, table by table."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = overlay(old, value) if both else value  # type: ignore[arg-type]
    return result


def _check_type(value: Any, wanted: Any, path: str) -> Any:
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            known = " or ".join(map(str, get_args(wanted)))
            raise ConfigError(f"{path} must be {known}, got {value!r}")
        return value
    if get_origin(wanted) is not None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a table, got {value!r}")
        of = get_args(wanted)[1]
        return {k: _check_type(v, of, f"{path}.{k}") for k, v in value.items()}
    # beyond that, a whole number is no float either
    if wanted is float and type(value) is int and abs(value) < 1 << 1000:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{path} must be {wanted.__name__}, got {value!r}")
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{path} must be a finite number, got {value}")
    return value


def build(kind: type[Any], table: Mapping[str, Any], path: str = "") -> Any:
    """Makes the record `kind` from a table; raises ConfigError for unknown keys or wrong types."""
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in known:
            raise ConfigError(f"unknown key {where}; known: {', '.join(known)}")
        wanted = hints[key]
        if is_dataclass(wanted):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where} must be a table, got {value!r}")
            values[key] = build(wanted, value, where)  # type: ignore[arg-type]
        else:
            values[key] = _check_type(value, wanted, where)
    return kind(**values)


def from_dict(table: Mapping[str, Any]) -> Config:
    """Makes a whole configuration from nested tables, as `Config.to_dict` or a recipe has them."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"a configuration must be a table, got {table!r}")
    config: Config = build(Config, with_preset(table))
    return config


def with_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a mel preset out, so that single keys can be laid on top of it."""
    mel = table.get("mel")
    if not isinstance(mel, str):
        return dict(table)
    if mel not in MEL_PRESETS:
        raise ConfigError(f"unknown mel preset {mel}; known: {', '.join(MEL_PRESETS)}")
    return {**table, "mel": asdict(MEL_PRESETS[mel])}


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"recipe {path} is its own base")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read recipe {path}: {error.strerror}") from None
    # ValueError: also for bytes that aren't UTF-8 and numbers of too many digits
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from None
    base = table.pop("base", None)
    table = {"name": path.stem} | with_preset(table)
    if base is None:
        return table
    if not isinstance(base, str):
        raise ConfigError(f"base in {path} must be the name of a TOML file, got {base!r}")
    return overlay(_read(path.parent / base, (*seen, path.resolve())), table)


def recipe_path(name: str) -> Path:
    """Finds a recipe by the path of its file or by the exact name of one that is shipped."""
    if name.endswith(".toml"):
        return Path(name)
    path = RECIPES / f"{name}.toml"
    if not os.path.exists(path):
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ConfigError(f"unknown recipe {name}; shipped: {known}; or give a .toml file")
    return path


def read(name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a recipe by name or path and lays overrides such as "model.hidden=512" on top."""
    table = _read(recipe_path(name))
    for line in overrides:
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"an override looks like model.hidden=512, got {line!r}")
        try:
            extra = tomllib.loads(line)
        except (ValueError, RecursionError):
            # a bare word is a string
            try:
                extra = tomllib.loads(f'{key} = "{value.strip()}"')
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"override {line!r} is not valid TOML: {error}") from None
        table = overlay(table, with_preset(extra))
    return table


def load(name: str, overrides: Iterable[str] = ()) -> Config:
    """Reads a vocoder's recipe; raises ConfigError for one that can't be used."""
    table = read(name, overrides)
    if table.get("kind") == "acoustic":
        raise ConfigError(
            f"{name} is a recipe of an acoustic model, but a vocoder's is wanted; choose another"
        )
    return from_dict(table)
