"""What every test may ask for: data that isn't part of the repository, and `--require`."""

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]

# GPU machines may lack hypothesis
if importlib.util.find_spec("hypothesis"):
    import hypothesis

    # a loaded machine must not fail a test, and a failure must come back
    hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=("reference", "cpu", "neon", "gpu", "speech", "voices"),
        help="fail where a test would be skipped because this backend or data is absent",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Triton looks at it when it's first imported
    if "gpu" not in config.getoption("--require"):
        os.environ["TRITON_INTERPRET"] = "1"
    # the workers of `-n` share the cores; torch isn't imported yet, and child processes inherit it
    parallel = config.getoption("numprocesses", default=None)
    os.environ.setdefault("OMP_NUM_THREADS", "1" if parallel else "2")
    # packed voices stay out of the user's cache; matplotlib's list of fonts is slow to make anew
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    os.environ.setdefault("MPLCONFIGDIR", f"{home}/matplotlib")
    cache = tempfile.TemporaryDirectory(prefix="wavernn-cache-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name


@pytest.fixture(scope="session")
def absent(pytestconfig: pytest.Config) -> Callable[[str, str], NoReturn]:
    """Skips the test for a reason, or fails it if `--require` names what is missing."""

    def say(name: str, reason: str) -> NoReturn:
        if name in pytestconfig.getoption("--require"):
            pytest.fail(f"{name} is required: {reason}", pytrace=False)
        pytest.skip(reason)

    return say


@pytest.fixture(scope="session")
def speech_dir(absent: Callable[[str, str], NoReturn]) -> Path:
    """A folder of recordings of one speaker."""
    return _data_dir("speech", absent)


@pytest.fixture(scope="session")
def voices_dir(absent: Callable[[str, str], NoReturn]) -> Path:
    """A folder of recordings of several speakers."""
    return _data_dir("voices", absent)


def _data_dir(name: str, absent: Callable[[str, str], NoReturn]) -> Path:
    variable = f"WAVERNN_{name.upper()}"
    given = os.environ.get(variable)
    folder = Path(given) if given else ROOT.parent / "shared" / "data" / name
    if not folder.is_dir():
        absent(name, f"no folder {folder}; {variable} names another")
    return folder
