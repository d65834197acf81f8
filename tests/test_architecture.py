"""Who may import whom, what the top level holds, and how long a file may be."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# folders that install as wavernn.<name>
PARTS = ("kernels", "train", "serve")
# a part of the package, and the parts that it may import
MAY_IMPORT = {
    "core": {"core"},
    "engine": {"core", "engine", "kernels"},
    "cli": {"core", "engine", "cli", *PARTS},
    "kernels": {"core", "kernels"},
    "train": {"core", "engine", "kernels", "train"},
    "serve": {"core", "engine", "serve"},
}
# files that belong to the part of another name: the command line's, what it does to files
ALIASES = {
    **dict.fromkeys(
        (
            *("__main__", "cli_bench", "cli_live", "cli_load", "cli_say", "cli_serve", "cli_sweep"),
            "options",
        ),
        "cli",
    ),
    **dict.fromkeys(
        ("synthesis", "endtoend", "vocoder", "channel", "lanes", "capacity", "live", "waking"),
        "engine",
    ),
}
# what `wavernn --help` may load besides the standard library
LIGHT = {"typer"}

TOP_LEVEL = {"pyproject.toml", "README.md", "wavernn", "checkpoints", "tests", *PARTS}
TOP_LEVEL_MORE = {"Makefile", "LICENSE"}

SOURCES = {".py", ".cpp", ".h", ".cu", ".js"}
LINES = {"wavernn": 300, "kernels": 300, "train": 300, "serve": 300, "tests": 400}


def sources(root: Path, *suffixes: str) -> list[Path]:
    files = (path for folder in LINES for path in sorted((root / folder).rglob("*")))
    return [path for path in files if path.suffix in suffixes and "__pycache__" not in path.parts]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(root: Path, path: Path) -> str:
    names = list(path.relative_to(root).with_suffix("").parts)
    if names[0] in PARTS:
        names.insert(0, "wavernn")
    return ".".join(names)


def path_of(root: Path, module: str) -> Path | None:
    names = module.split(".")
    stem = root.joinpath(*(names[1:] if names[1:2] and names[1] in PARTS else names))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def part_of(module: str) -> str | None:
    package, *names = module.split(".")
    if package != "wavernn":
        return None
    name = ALIASES.get(names[0], names[0]) if names else "core"
    return name if name in MAY_IMPORT else "core"


def imported(nodes: Iterable[ast.AST], module: str) -> Iterator[tuple[int, str]]:
    package = module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def forbidden_imports(root: Path) -> list[str]:
    found = []
    for path in sources(root, ".py"):
        module = module_of(root, path)
        own = part_of(module)
        for line, target in imported(ast.walk(parse(path)), module):
            where = f"{path.relative_to(root)}:{line}"
            top = target.partition(".")[0]
            if top in PARTS:
                found.append(f"{where} imports top-level {top}, which is wavernn.{top}")
            if own and (part := part_of(target)) and part not in MAY_IMPORT[own]:
                found.append(f"{where} is {own} and must not import {part}")
    return found


def run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def heavy_imports(root: Path, module: str) -> list[str]:
    found, seen, waiting = [], set(), [module]
    while waiting:
        name = waiting.pop()
        path = path_of(root, name)
        if path is None or path in seen:
            continue
        seen.add(path)
        for line, target in imported(run_at_import(parse(path)), module_of(root, path)):
            top, *names = target.split(".")
            if top == "wavernn":
                # importing a.b.c runs a, a.b and a.b.c
                waiting.extend(".".join([top, *names[:n]]) for n in range(len(names) + 1))
            elif top not in LIGHT and top not in sys.stdlib_module_names:
                found.append(f"{path.relative_to(root)}:{line} loads {top} at import")
    return found


def long_files(root: Path) -> list[str]:
    found = []
    for path in sources(root, *SOURCES):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = LINES[path.relative_to(root).parts[0]]
        if lines > limit:
            found.append(f"{path.relative_to(root)} has {lines} lines, more than {limit}")
    return found


def catch_alls(root: Path) -> list[str]:
    found = []
    for path in sources(root, ".py"):
        if path.relative_to(root).parts[0] != "tests":
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.walk(node.type) if node.type else [ast.Name("Exception")]
                names = {name.id for name in caught if isinstance(name, ast.Name)}
                if names & {"Exception", "BaseException"}:
                    found.append(f"{path.relative_to(root)}:{node.lineno} catches everything")
    return found


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git isn't installed")
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return done.stdout.strip()


def test_parts_import_only_what_the_table_allows() -> None:
    assert forbidden_imports(ROOT) == []


def test_help_loads_nothing_heavy() -> None:
    assert path_of(ROOT, "wavernn.cli")
    assert heavy_imports(ROOT, "wavernn.cli") == []


def test_files_are_short() -> None:
    assert long_files(ROOT) == []


def test_no_test_catches_everything() -> None:
    assert catch_alls(ROOT) == []


def test_top_level_is_fixed() -> None:
    if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
        pytest.skip("the repository isn't its own git checkout")
    top = {name.partition("/")[0] for name in git("ls-files", "-z").split("\0") if name}
    assert {name for name in top - TOP_LEVEL - TOP_LEVEL_MORE if name[0] != "."} == set()
    assert {name for name in TOP_LEVEL if not (ROOT / name).exists()} == set()


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("wavernn/mel.py", "import wavernn.kernels", "is core and must not import kernels"),
        ("wavernn/mel.py", "from . import engine", "is core and must not import engine"),
        ("wavernn/__init__.py", "from .cli import main", "is core and must not import cli"),
        ("wavernn/engine.py", "import wavernn.train.loop", "is engine and must not import train"),
        ("kernels/cpu.py", "from wavernn import engine", "is kernels and must not import engine"),
        ("kernels/gpu/x.py", "from ... import serve", "is kernels and must not import serve"),
        ("train/loop.py", "def f():\n    from .. import serve", "train and must not import serve"),
        ("serve/app.py", "from wavernn.train import loop", "is serve and must not import train"),
        ("serve/app.py", "from wavernn.kernels import cpu", "serve and must not import kernels"),
        ("serve/app.py", "import train.loop", "imports top-level train"),
        ("tests/unit/test_x.py", "from kernels import cpu", "imports top-level kernels"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    plant(tmp_path, name, text)
    (found,) = forbidden_imports(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wavernn/mel.py", "from wavernn.config import MelConfig"),
        ("wavernn/engine.py", "from wavernn.kernels import load"),
        ("wavernn/cli.py", "import wavernn.train, wavernn.serve, wavernn.kernels"),
        ("train/loop.py", "from wavernn.engine import Vocoder\nfrom .data import slices"),
        ("tests/unit/test_x.py", "from wavernn.train import loop"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, name: str, text: str) -> None:
    plant(tmp_path, name, text)
    assert forbidden_imports(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "from torch import nn",
        "try:\n    import torch\nfinally:\n    pass",
        "from wavernn.kernels import load",
    ],
)
def test_a_heavy_import_is_found(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "wavernn/cli.py", text)
    plant(tmp_path, "kernels/__init__.py", "import torch")
    (found,) = heavy_imports(tmp_path, "wavernn.cli")
    assert "loads torch at import" in found


def test_a_late_import_is_light(tmp_path: Path) -> None:
    late = "import typing, typer\nif typing.TYPE_CHECKING:\n    import torch\n"
    plant(tmp_path, "wavernn/cli.py", late + "def run():\n    import torch")
    assert heavy_imports(tmp_path, "wavernn.cli") == []


def test_a_long_file_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "train/loop.py", "\n" * 301)
    plant(tmp_path, "kernels/csrc/loop.cpp", "\n" * 301)
    plant(tmp_path, "tests/test_x.py", "\n" * 400)
    assert [line.partition(" ")[0] for line in long_files(tmp_path)] == [
        "kernels/csrc/loop.cpp",
        "train/loop.py",
    ]


@pytest.mark.parametrize("caught", ["", " Exception", " (OSError, BaseException)"])
def test_a_catch_all_is_found(tmp_path: Path, caught: str) -> None:
    plant(tmp_path, "tests/test_x.py", f"try:\n    pass\nexcept{caught}:\n    pass")
    assert len(catch_alls(tmp_path)) == 1
