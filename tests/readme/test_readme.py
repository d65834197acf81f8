import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wavernn.audio import write_audio

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "kernels/README.md",
    "train/README.md",
    "serve/README.md",
    "checkpoints/README.md",
]


def blocks(page):
    text = (ROOT / page).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def tone(seconds, hz, rate_hz=22_050):
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(int(hz)).normal(size=len(time))
    return 0.2 * np.sin(2 * np.pi * hz * time) + 0.01 * noise


@pytest.fixture
def desk(tmp_path):
    """A folder that looks like the checkout, with what the pages speak of: a clip, recordings."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", "runs"):
            (tmp_path / entry.name).symlink_to(entry)
    write_audio(tmp_path / "clip.flac", tone(0.3, 200), 22_050)
    (tmp_path / "recordings").mkdir()
    for hz in (150, 200, 250, 300):
        write_audio(tmp_path / "recordings" / f"{hz}.wav", tone(1.0, hz), 22_050)
        (tmp_path / "recordings" / f"{hz}.txt").write_text("A tone.")
    return tmp_path


def run(command, desk):
    if re.match(r"make (test|check|gpu)", command):
        # this test is part of it, or its work is tested elsewhere
        command = command.replace("make", "make --dry-run", 1)
    # through the links of a desk, .venv must not be filled again
    command = re.sub(r"^make demo", "make --assume-old=.venv/core.stamp demo", command)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
    )


SHELL = [(page, code) for page in PAGES for kind, code in blocks(page) if kind == "sh"]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(
    ("page", "code"), SHELL, ids=[f"{p}:{c.split(chr(10))[0]}" for p, c in SHELL]
)
def test_shell_blocks_run(page, code, desk):
    done = run(code, desk)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for made in re.findall(r"-o (\S+)", code):
        assert (desk / made).stat().st_size > 1000


def test_python_blocks_run(desk, monkeypatch):
    monkeypatch.chdir(desk)
    mel = np.full((4, 80), -8.0, np.float32)
    codes = [code for page in PAGES for kind, code in blocks(page) if kind == "python"]
    assert codes
    for code in codes:
        names = {"mel": mel, "iter_of_mels": [mel[:1], mel[1:]]}
        exec(code, names)
        assert len(names["samples"]) == 4 * 256
        assert np.array_equal(np.concatenate(list(names["chunks"])), names["samples"])


def test_there_is_a_block_for_the_main_job():
    assert any("make demo" in code for page, code in SHELL if page == "README.md")
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link
