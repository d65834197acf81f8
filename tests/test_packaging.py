"""What a sdist, a wheel and an editable install hold, and that each can be imported."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("wavernn", "kernels", "train", "serve")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# the folders are seen as parts of wavernn and as nothing else
PROBE = """
import importlib.util, wavernn.kernels, wavernn.train, wavernn.serve
for module in (wavernn, wavernn.kernels, wavernn.train, wavernn.serve):
    print(module.__file__)
print([n for n in ("kernels", "train", "serve", "tests") if importlib.util.find_spec(n)])
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
    for name in FOLDERS:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def installed(path: Path) -> str:
    name = path.relative_to(ROOT)
    return (name if name.parts[0] == "wavernn" else "wavernn" / name).as_posix()


def package_files() -> Iterable[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")
    yield ROOT / "wavernn/py.typed"
    yield from (ROOT / "train/recipes").glob("*.toml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_the_sources(tmp_path_factory.mktemp("source"))
    # the wheel is made from the sdist, so it shows that the sdist is complete
    run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_sdist_holds_the_sources(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in package_files()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not any(name.startswith("checkpoints/") for name in names)


def test_wheel_holds_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {installed(path) for path in package_files()} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"wavernn"}


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
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps")
    run(*pip, "--no-index", "--target", target, wheel, cwd=tmp_path)
    *files, others = run(sys.executable, "-c", PROBE, cwd=tmp_path, PYTHONPATH=str(target))
    assert [Path(file).parent.relative_to(target).as_posix() for file in files] == [
        "wavernn",
        "wavernn/kernels",
        "wavernn/train",
        "wavernn/serve",
    ]
    assert others == "[]"


def test_editable_install_follows_the_folders(tmp_path: Path) -> None:
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
    run(*pip, *options, source, cwd=tmp_path)
    *files, others = run(python, "-c", PROBE, cwd=tmp_path)
    assert [Path(file).parent for file in files] == [source / name for name in FOLDERS]
    assert others == "[]"
    (source / "kernels" / "added.py").touch()
    run(python, "-c", "import wavernn.kernels.added", cwd=tmp_path)


def test_every_package_is_declared() -> None:
    found = {
        installed(path.parent).replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_torch_is_no_build_requirement() -> None:
    assert not any("torch" in name for name in PYPROJECT["build-system"]["requires"])
