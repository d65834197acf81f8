import json
import os
import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavernn import __version__, checkpoint, kernels
from wavernn.config import MelConfig
from wavernn.kernels import bench_cpu, bench_suite, fidelity, roofs, tune
from wavernn.melfile import write_mel

# as the installed script does it, whether the package is installed or on the path
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'wavernn'; from wavernn.cli import main; main()",
]
COMMANDS = ["train", "synth", "info", "eval", "doctor", "bench", "tune"]


def process(folder, *arguments, **options):
    options = {"capture_output": True, "text": True, "cwd": folder} | options
    return subprocess.run([*PROGRAM, *map(str, arguments)], **options)


def sine(samples, rate_hz=22_050, hz=300):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)


def one_json(out):
    (line,) = out.splitlines()
    return json.loads(line, parse_constant=pytest.fail)


def test_help_is_fast_and_loads_no_torch(tmp_path):
    spent_s = []
    for _ in range(3):
        before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = process(tmp_path, "--help")
        spent_s.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s)
        assert done.returncode == 0
        assert all(command in done.stdout for command in COMMANDS)
    assert statistics.median(spent_s) < 0.5
    timed = [PROGRAM[0], "-X", "importtime", *PROGRAM[1:], "--help"]
    loaded = subprocess.run(timed, capture_output=True, text=True, cwd=tmp_path).stderr
    assert re.search(r"\| +typer$", loaded, re.M)
    assert not re.search(r"\| +(torch|numpy|rich\.progress|soundfile)\b", loaded)


def test_version_is_one_line(wavernn):
    assert wavernn("--version") == (0, f"wavernn {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(wavernn, command):
    done = wavernn(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"wavernn {command}" in done.out


def test_no_command_and_a_wrong_one_are_wrong_use(wavernn):
    assert wavernn().code == 2
    done = wavernn("sing")
    assert (done.code, done.out) == (2, "")
    assert "No such command 'sing'" in done.err


def test_synth_as_a_program(tmp_path, voice):
    soundfile.write(tmp_path / "in.wav", sine(500), 22_050)
    done = process(tmp_path, "synth", voice, "in.wav", "-o", "out.wav", "--backend", "reference")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(
        r"out\.wav: 0\.02 s of speech in .* s, real-time factor [0-9.e-]+$", done.stderr
    )
    made = soundfile.info(tmp_path / "out.wav")
    assert (made.samplerate, made.frames, made.channels, made.subtype) == (22_050, 512, 1, "PCM_16")
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav", "out.wav"}


def test_a_seed_makes_a_file_and_a_stream(tmp_path, voice, wavernn, mel_NM):
    write_mel(tmp_path / "a.npz", mel_NM[20:23], MelConfig())
    synth = ("synth", voice, tmp_path / "a.npz", "--backend", "reference")
    for name, seed in [("a", 3), ("b", 3), ("c", 4), ("d", 2**64 - 1)]:
        assert wavernn(*synth, "--seed", seed, "-o", tmp_path / f"{name}.wav").code == 0
    a, b, c, d = ((tmp_path / f"{name}.wav").read_bytes() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
    streamed = process(tmp_path, *synth, "--seed", 3, "--stream", text=False)
    assert streamed.returncode == 0
    samples_T = np.frombuffer(streamed.stdout, "<i2")
    assert (samples_T == soundfile.read(tmp_path / "a.wav", dtype="int16")[0]).all()
    assert len(samples_T) == 3 * 256


def test_a_reader_who_leaves_ends_the_stream_without_a_word(tmp_path, voice, mel_NM):
    np.save(tmp_path / "a.npy", mel_NM[:40])
    arguments = ["synth", voice, "a.npy", "--stream", "--backend", "reference"]
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], cwd=tmp_path, stdout=-1, stderr=-1
    ) as running:
        assert len(running.stdout.read(2)) == 2
        running.stdout.close()
        assert running.wait(60) == 1
        assert "Error" not in running.stderr.read().decode()


def test_formats_and_threads_are_the_engines(tmp_path, voice, wavernn, mel_NM, needs_cpu):
    np.save(tmp_path / "a.npy", mel_NM[:4])
    synth = ("synth", voice, tmp_path / "a.npy", "--backend", "cpu", "--seed", 1)
    made = {}
    for format in ("int8", "float32"):
        for threads in (1, 2):
            out = tmp_path / f"{format}{threads}.wav"
            done = wavernn(*synth, "--format", format, "--threads", threads, "-o", out)
            assert done.code == 0
            made[format, threads] = out.read_bytes()
    assert made["int8", 1] == made["int8", 2] != made["float32", 1] == made["float32", 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_a_sentence(tmp_path, voice):
    with open("/dev/full", "w") as full:
        done = process(tmp_path, "info", voice, capture_output=False, stdout=full, stderr=-1)
    assert (done.returncode, done.stderr) == (2, "wavernn: the output: No space left on device\n")


def test_info_says_what_a_voice_is(voice, wavernn):
    done = wavernn("info", voice, "--json")
    assert (done.code, done.err) == (0, "")
    table = one_json(done.out)
    named = (
        "config density nonzeros parameters operations_per_sample bytes memory backends memory_cpu"
    )
    assert set(named.split()) <= set(table)
    assert list(table["memory_cpu"]) == list(table["memory"]) == ["1", "4", "16", "64"]
    assert set(table["backends"]) == {"gpu", "cpu", "reference"}
    assert table["backends"]["reference"].startswith("runs")
    assert table["config"]["model"]["hidden"] == 16
    assert table["sha256"] == checkpoint.load(voice).sha256
    said = wavernn("info", voice)
    assert said.code == 0
    assert all(f"{key}:" in said.out for key in named.split())


@pytest.fixture
def needs_cpu(absent):
    if reason := kernels.unavailable("cpu"):
        absent("cpu", reason)


def test_info_says_which_instructions_run(voice, wavernn, monkeypatch, needs_cpu):
    monkeypatch.setenv("WAVERNN_ISA", "baseline")
    said = one_json(wavernn("info", voice, "--json").out)["backends"]["cpu"]
    assert re.fullmatch(r"runs: baseline \(has .*baseline\)", said)


@pytest.mark.parametrize("passed", [True, False])
def test_a_check_decides_the_exit_code(voice, wavernn, monkeypatch, needs_cpu, passed):
    figures = {"kl_coarse": 2e-4, "passed": passed}
    monkeypatch.setattr(fidelity, "check", lambda of: figures)
    done = wavernn("info", voice, "--check", "--json")
    assert (done.code, done.err) == (0 if passed else 2, "")
    assert one_json(done.out)["check"] == figures
    assert (
        f"check: \n  kl_coarse 0.0002\n  passed {passed}\n" in wavernn("info", voice, "--check").out
    )


def test_doctor_says_what_fits(tmp_path, voice, wavernn, mel_NM):
    np.save(tmp_path / "a.npy", mel_NM)
    done = wavernn("doctor", tmp_path / "a.npy", "--voice", voice, "--json")
    assert (done.code, done.err) == (0, "")
    table = one_json(done.out)
    assert table["fits"] is True
    assert table["findings"][0].startswith("The mel fits: 63 frames")
    done = wavernn("doctor", tmp_path / "a.npy", "--voice", voice)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("fits: True\nfindings: \n  The mel fits")


def test_bench_measures_a_voice_and_a_recipe(voice, wavernn):
    named = (
        "machine versions commit backend kernel isa format recipe nonzeros streams threads "
        "samples_per_s realtime_factor p10 p50_ms p99_ms chunk_ms roof roof_share parts bytes"
    )
    done = wavernn("bench", voice, "--backend", "reference", "--json", "--streams", 2)
    assert (done.code, done.err) == (0, "")
    row = one_json(done.out)
    assert set(named.split()) <= set(row)
    assert (row["backend"], row["recipe"], row["streams"]) == ("reference", "small", 2)
    assert row["chunk_ms"] == pytest.approx(220 / 22.05)
    small = ("--recipe", "tiny", "--set", "model.hidden=16", "--set", "name=mine")
    done = wavernn("bench", *small, "--backend", "reference")
    assert done.code == 0
    assert "recipe: mine\n" in done.out
    # a recipe is measured at 24 kHz unless it is told otherwise
    assert "chunk_ms: 10\n" in done.out
    small += ("--set", "mel=16k", "--set", "model.conditioning_hop_samples=40")
    small += ("--set", "train.slice_samples=400")
    row = one_json(wavernn("bench", *small, "--backend", "reference", "--json").out)
    assert row["samples_per_s"] / row["realtime_factor"] == pytest.approx(16_000)


@pytest.fixture
def short(monkeypatch):
    """Limits that needn't be measured, and short windows."""
    read = dict.fromkeys(("L1", "L2", "L3", "DRAM"), 1e9)
    limits = {"float32": 1e9, "int8": 1e9}
    monkeypatch.setattr(roofs, "measure", lambda isa: roofs.Roofs(isa, read, limits))
    monkeypatch.setattr(bench_cpu, "WINDOW_S", 1e-4)


@pytest.mark.parametrize("format", ["int8", "float32"])
def test_bench_measures_the_native_engine(voice, wavernn, needs_cpu, short, format):
    options = ("--backend", "cpu", "--format", format, "--threads", 2, "--streams", 3)
    threads = torch.get_num_threads()
    done = wavernn("bench", voice, *options, "--json")
    torch.set_num_threads(threads)
    assert (done.code, done.err) == (0, "")
    row = one_json(done.out)
    assert (row["backend"], row["format"], row["threads"]) == ("cpu", format, 2)
    assert row["streams"] == 3


def test_bench_measures_from_file_to_file(voice, wavernn):
    done = wavernn(
        *("bench", voice, "--end-to-end", "--seconds", 0.02, "--backend", "reference", "--json")
    )
    assert (done.code, done.err) == (0, "")
    assert one_json(done.out)["bench"] == "end to end"


def test_bench_prints_the_suite(wavernn, monkeypatch):
    asked, row = [], {"bench": "machine", "roofs": {}, "machine": "m", "versions": {}, "commit": ""}

    def suite(quick):
        asked.append(quick)
        yield from (row, row)

    monkeypatch.setattr(bench_suite, "bench_suite", suite)
    done = wavernn("bench", "--suite", "--json")
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line) for line in done.out.splitlines()] == [row, row]
    done = wavernn("bench", "--table", "--quick")
    assert (done.code, done.err) == (0, "1 machine \n2 machine \n")
    assert done.out.startswith("One core of m, ")
    assert asked == [False, True]
    assert wavernn("bench", "--table", "--json").code == 2


def test_tune_raises_the_streams(voice, wavernn, monkeypatch):
    monkeypatch.setattr(tune, "SIZES", (1, 2))
    monkeypatch.setattr(tune, "CHUNK_S", 1e-4)
    monkeypatch.setattr(bench_cpu, "WINDOW_S", 1e-4)
    monkeypatch.setattr(tune, "MARGIN", 1e-9)
    options = ("--backend", "reference", "--json")
    done = wavernn("tune", voice, *options)
    assert (done.code, done.err) == (0, "")
    *rows, last = (json.loads(line) for line in done.out.splitlines())
    assert [row["streams"] for row in rows] == [1, 2]
    assert (last["streams_per_core"], last["too_many"]) == (2, None)
    monkeypatch.setattr(tune, "MARGIN", 1e9)
    done = wavernn("tune", voice, "--backend", "reference")
    assert (done.code, done.err) == (0, "")
    assert re.match(r"1 streams: [\d,]+ samples/s, .*\nbench: tuned\nstreams: 0\n", done.out)


def test_eval_judges_a_voice(tmp_path, voice, wavernn):
    data = tmp_path / "data"
    data.mkdir()
    for name, samples_T in [("a", sine(3000)), ("b", sine(2500)), ("c", np.zeros(1000))]:
        soundfile.write(data / f"{name}.wav", samples_T, 22_050)
    arguments = ("--backend", "reference", "--clips", 3, "--keep", tmp_path / "kept")
    arguments += ("--format", "float32", "--threads", 2)
    done = wavernn("eval", voice, data, *arguments, "--json")
    assert done.code == 0
    table = one_json(done.out)
    named = (
        "bits_per_sample bits_coarse bits_fine flac_bits mel_l1 mr_stft mcd_db f0_rmse_hz "
        "vuv_error pesq stoi silence_db realtime_factor clips"
    )
    assert set(named.split()) <= set(table)
    assert table["clips"] == 3
    # random weights know nothing: about 8 bits for each half
    assert 14 < table["bits_per_sample"] < 20
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"a.flac", "b.flac", "c.flac"}


def test_eval_makes_a_page_and_a_table(tmp_path, voice, wavernn):
    pytest.importorskip("matplotlib")
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "a.wav", sine(3000), 22_050)
    (tmp_path / "twin.safetensors").write_bytes(voice.read_bytes())
    arguments = ("--backend", "reference", "--html", tmp_path / "page.html")
    done = wavernn(
        "eval", voice, tmp_path / "data", *arguments, "--compare", tmp_path / "twin.safetensors"
    )
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split()[:3] == ["small", "twin", "griffin_lim"]
    table = {key: values for key, *values in map(str.split, rows)}
    # the same voice by two names
    for key in ("bits_per_sample", "mel_l1", "mr_stft", "stoi"):
        assert table[key][0] == table[key][1], key
    assert table["bits_per_sample"][2] == "–"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<audio") == page.count("<img") == len(head.split()) + 1
    assert "page.html" in {path.name for path in tmp_path.iterdir()}


def test_train_makes_a_voice_that_speaks(tmp_path, wavernn):
    data = tmp_path / "data"
    data.mkdir()
    for name in "abc":
        soundfile.write(data / f"{name}.wav", sine(4000), 22_050)
    overrides = ["model.hidden=16", "train.steps=2", "train.batch=2", "train.slice_samples=256"]
    set_ = [word for line in overrides for word in ("--set", line)]
    done = wavernn("train", "tiny", "--data", data, "--out", tmp_path / "run", *set_)
    assert done.code == 0
    made = Path(done.out.strip())
    assert made == tmp_path / "run" / "checkpoint.safetensors"
    assert checkpoint.load(made).provenance["steps"] == 2
    done = wavernn("synth", made, data / "a.wav", "-o", tmp_path / "a.ogg", "--backend", "auto")
    assert done.code == 0
    assert soundfile.info(tmp_path / "a.ogg").frames == 16 * 256


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_backend_that_is_not_there_says_why(tmp_path, voice, wavernn, mel_NM, name):
    reason = kernels.unavailable(name)
    if reason is None:
        pytest.skip(f"backend {name} runs here")
    np.save(tmp_path / "a.npy", mel_NM[:2])
    done = wavernn("synth", voice, tmp_path / "a.npy", "-o", tmp_path / "a.wav", "--backend", name)
    assert done == (2, "", f"wavernn: {reason}\n")
    assert not (tmp_path / "a.wav").exists()


def test_an_unknown_log_level_is_a_sentence(voice, wavernn, monkeypatch):
    monkeypatch.setenv("WAVERNN_LOG", "loud")
    done = wavernn("info", voice)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("wavernn: WAVERNN_LOG must be one of CRITICAL")
    assert os.environ["WAVERNN_LOG"] == "loud"
