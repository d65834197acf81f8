"""Recordings that are made up, a recipe that trains in a second, and what to compare runs by."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from wavernn import recipe
from wavernn.audio import write_audio
from wavernn.train.features import build, find_recordings
from wavernn.train.loop import train

RATE_HZ, HOP = 8_000, 64

# a shell that runs the tests in the background may have turned Ctrl-C off for its children
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from wavernn.cli import main; main()"
)

RECIPE = """
[mel]
rate_hz = 8000
fft_samples = 256
window_samples = 256
hop_samples = 64
bands = 16
high_hz = 4000

[model]
hidden = 64
projection = 32
embedding = 4
channels = 8
layers = 1
conditioning_hop_samples = 32

[prune]
density = { R_u = 0.05, R_r = 0.05, R_e = 0.05, O1 = 0.05, O4 = 0.25 }
start_step = 4
ramp_steps = 12
every_steps = 3

[train]
steps = 24
batch = 4
slice_samples = 128
warmup_steps = 4
input_noise = 2.0
validate_every_steps = 8
save_every_steps = 6
log_every_steps = 4
validation_clips = 2
validation_seconds_per_clip = 0.1
"""


def recording(seed, seconds=0.5):
    """Silence, a harmonic tone, noise, silence."""
    random = np.random.default_rng(seed)
    T = int(seconds * RATE_HZ)
    time_T = np.arange(T) / RATE_HZ
    f0_hz = random.uniform(100, 200)
    tone_T = sum(np.sin(2 * np.pi * k * f0_hz * time_T) / k for k in range(1, 9))
    noise_T = random.standard_normal(T)
    part_T = np.arange(T) / T
    voiced_T = (part_T > 0.2) & (part_T < 0.6)
    noisy_T = (part_T >= 0.6) & (part_T < 0.8)
    return 0.2 * tone_T * voiced_T + 0.05 * noise_T * noisy_T + 2e-5 * noise_T


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of eight recordings, no two of one length, none a whole number of frames."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        write_audio(folder / f"clip{i}.wav", recording(i, 0.4 + 0.0517 * i), RATE_HZ)
    return folder


@pytest.fixture(scope="session")
def recipe_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "quick.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def quick(recipe_path):
    """Makes the configuration of the recipe with overrides."""

    def make(*overrides):
        return recipe.load(str(recipe_path), overrides)

    return make


@pytest.fixture(scope="session")
def features(tmp_path_factory, data, quick):
    return build(find_recordings(data), tmp_path_factory.mktemp("features"), quick())


def _open(path):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), tensors


class Runs:
    """Training runs below a folder, by name: in this process, or in one of their own."""

    def __init__(self, folder, data, recipe_path):
        self.folder, self.data, self.recipe_path = folder, data, recipe_path
        self.started = []

    def train(self, name, *overrides, data=None, **more):
        config = recipe.load(str(self.recipe_path), overrides)
        return train(config, data or self.data, self.folder / name, **more)

    def start(self, name, *more):
        """Starts `wavernn train`, away from this folder's own modules."""
        options = ("--data", str(self.data), "--out", str(self.folder / name), *more)
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "train", str(self.recipe_path), *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def stop(self):
        """Ends what a failed test has left running."""
        for process in self.started:
            process.kill()
            process.communicate()

    def state(self, name):
        """The body of a saved state, and its tensors."""
        metadata, tensors = _open(self.folder / name / "state.safetensors")
        return json.loads(metadata["body"]), tensors

    def voice(self, name):
        """The metadata of a checkpoint, and its tensors."""
        return _open(self.folder / name / "checkpoint.safetensors")

    def assert_same(self, name, other):
        """State and checkpoint of two runs are equal to the last bit."""
        for read in (self.state, self.voice):
            (body, mine), (other_body, others) = read(name), read(other)
            assert body == other_body
            assert mine.keys() == others.keys()
            assert [
                key for key in mine if mine[key].numpy().tobytes() != others[key].numpy().tobytes()
            ] == []


@pytest.fixture
def runs(tmp_path, data, recipe_path):
    made = Runs(tmp_path, data, recipe_path)
    yield made
    made.stop()
