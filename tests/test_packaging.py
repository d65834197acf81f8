"""What a sdist, a wheel and an editable install hold, and that each can be imported."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterable
from email import message_from_string
from pathlib import Path
from typing import NoReturn

import pytest

from wavernn.errors import BackendUnavailable
from wavernn.kernels import native

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("wavernn", "kernels", "train", "serve")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CSRC = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels/csrc").iterdir()}

# the folders are seen as parts of wavernn and as nothing else
PROBE = """
import importlib.util, wavernn.kernels, wavernn.train, wavernn.serve
for module in (wavernn, wavernn.kernels, wavernn.train, wavernn.serve):
    print(module.__file__)
print([n for n in ("kernels", "train", "serve", "tests") if importlib.util.find_spec(n)])
"""

PROBE_ENGINE = """
from wavernn.kernels import native
print(native.path(), *native.isas(), sep="\\n")
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def copy_of_the_sources(to: Path) -> Path:
    # building writes into the folder that it builds
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to / name)
    ignored = shutil.ignore_patterns("__pycache__", "_engine*")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    # where files go doesn't depend on optimisation, which takes most of the time
    pyproject = (to / "pyproject.toml").read_text(encoding="utf-8")
    assert pyproject.count('"-O2"') == 1
    (to / "pyproject.toml").write_text(pyproject.replace('"-O2"', '"-O0"'), encoding="utf-8")
    return to


def installed(path: Path) -> str:
    name = path.relative_to(ROOT)
    return (name if name.parts[0] == "wavernn" else "wavernn" / name).as_posix()


def package_files() -> Iterable[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")
    yield ROOT / "wavernn/py.typed"
    yield from (ROOT / "train/recipes").glob("*.toml")
    yield ROOT / "train/page.html"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp()
    # the workers of `-n` share one
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with open(folder / "dist.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "dist").exists():
            source = copy_of_the_sources(tmp_path_factory.mktemp("source"))
            # the wheel is made from the sdist, so it shows that the sdist is complete
            run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
            (source / "dist").rename(folder / "dist")
    return folder / "dist"


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def compiler(absent: Callable[[str, str], NoReturn]) -> str:
    command = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    if shutil.which(command.split()[0]) is None:
        absent("cpu", f"no C++ compiler: {command} not found")
    return command


def install(wheel: Path, target: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps")
    run(*pip, "--no-index", "--target", target, wheel, cwd=target.parent)


def test_sdist_holds_the_sources(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in package_files()} <= names
    assert CSRC | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not any(name.startswith("checkpoints/") for name in names)


def test_wheel_holds_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {installed(path) for path in package_files()} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"wavernn"}
    assert not any("csrc" in name for name in names)


def test_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(info).decode())
        scripts = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "wavernn = wavernn.cli:main" in scripts


def test_wheel_is_imported_as_one_package(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    install(wheel, target)
    *files, others = run(sys.executable, "-c", PROBE, cwd=tmp_path, PYTHONPATH=str(target))
    assert [Path(file).parent.relative_to(target).as_posix() for file in files] == [
        "wavernn",
        "wavernn/kernels",
        "wavernn/train",
        "wavernn/serve",
    ]
    assert others == "[]"


def test_wheel_holds_the_engine_for_every_python(
    compiler: str, wheel: Path, tmp_path: Path
) -> None:
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]
    with zipfile.ZipFile(wheel) as archive:
        assert "wavernn/kernels/_engine.abi3.so" in archive.namelist()
    target = tmp_path / "target"
    install(wheel, target)
    here = {"PYTHONPATH": str(target), native.LIBRARY: ""}
    path, *isas = run(sys.executable, "-c", PROBE_ENGINE, cwd=tmp_path, **here)
    assert Path(path) == target / "wavernn/kernels/_engine.abi3.so"
    assert isas[-1] == "baseline"


def test_editable_install_without_a_compiler_follows_the_folders(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    copy_of_the_sources(source)
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    # setuptools and torch come from the environment that runs the tests
    (site,) = home.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    options = ("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable")
    nothing = {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    run(*pip, *options, source, "--log", tmp_path / "log", cwd=tmp_path, **nothing)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert re.search('extension "wavernn.kernels._engine" failed: .*no-such-compiler', log)
    *files, others = run(python, "-c", PROBE, cwd=tmp_path)
    assert [Path(file).parent for file in files] == [source / name for name in FOLDERS]
    assert others == "[]"
    (source / "kernels" / "added.py").touch()
    run(python, "-c", "import wavernn.kernels.added", cwd=tmp_path)
    voice = ROOT / "tests/backend/golden/voice.safetensors"
    info = (python, "-m", "wavernn", "info", voice, "--json")
    (line,) = run(*info, cwd=tmp_path, **{native.LIBRARY: ""})
    assert "was not built" in json.loads(line)["backends"]["cpu"]


def test_engine_of_another_release_is_refused(
    absent: Callable[[str, str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    if native.path() is None:
        absent("cpu", "no native engine")
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    with pytest.raises(BackendUnavailable, match="of another release; install wavernn again"):
        # past the one that is kept
        native.library.__wrapped__()


def test_engine_that_is_no_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engine.so").write_text("int wavernn_abi(void);\n", encoding="utf-8")
    monkeypatch.setenv(native.LIBRARY, str(tmp_path / "engine.so"))
    with pytest.raises(BackendUnavailable, match=r"can't be loaded: .*engine\.so"):
        native.library.__wrapped__()


def test_every_source_of_the_engine_is_declared() -> None:
    (engine,) = PYPROJECT["tool"]["setuptools"]["ext-modules"]
    assert {*engine["sources"], *engine["depends"]} == CSRC


def test_every_package_is_declared() -> None:
    found = {
        installed(path.parent).replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_torch_is_no_build_requirement() -> None:
    assert not any("torch" in name for name in PYPROJECT["build-system"]["requires"])
