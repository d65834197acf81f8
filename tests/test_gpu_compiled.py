"""The GPU kernels as machine code: compiled ahead of time, which needs Triton and no GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavernn.kernels.gpu.compiled import MODULES, drift

HERE = Path(__file__).parent
# written by python -m wavernn.kernels.gpu.compiled --update tests/gpu_code.json
RECORD = HERE / "gpu_code.json"
# the configuration that a kernel has where nothing else is asked for
DEFAULTS = {
    "resident": "resident sparse-512",
    "group": "group dense-896 56x16",
    "tagged": "tagged dense-896 56",
    "subscale": "subscale-16 64x16",
}
SAME = ("registers", "shared", "instructions", "counts")
# what is wrong with each toy
TOYS = {
    "toy that holds": [],
    "toy that spills": ["bytes of a thread spill", "LDL in the loop", "STL in the loop"],
    "toy that reloads": ["33 LDG in the loop, expected 1"],
    "toy that prefetches": ["LDGSTS in the loop: loads run ahead"],
    "toy that divides": ["CALL in the loop: such as a division in float64"],
    "toy that waits": [],
    "toy that waits alone": ["launch it cooperatively"],
    "toy that waits by atomics": ["a loop that waits has 2 barriers"],
    "toy of other counts": ["1 MEMBAR in the loop, expected 0", "BARS is nothing that is counted"],
}


def run(*arguments, program="wavernn.kernels.gpu.compiled", **more):
    # a process that interprets kernels can't compile any
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", program, *arguments]
    environment |= {"PYTHONPATH": path} | more
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module", autouse=True)
def triton(absent):
    if importlib.util.find_spec("triton") is None:
        absent("gpu", "triton isn't installed")


@pytest.fixture(scope="module")
def compile():
    def rows(modules, arch, *arguments):
        done = run("--json", "--arch", str(arch), "--modules", *modules, *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        made = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == any(row["faults"] for row in made)
        return {row["name"]: row for row in made}

    return rows


@pytest.fixture(scope="module")
def shipped(compile):
    return compile(MODULES, 90, "--jobs", "2")


def test_shipped_kernels_have_no_faults(shipped):
    assert not {name: row["faults"] for name, row in shipped.items() if row["faults"]}


def test_shipped_kernels_are_as_long_as_recorded(shipped):
    recorded = json.loads(RECORD.read_text())
    (version,) = {row["triton"] for row in shipped.values()}
    if version not in recorded:
        pytest.skip(f"no record of Triton {version}; known: {', '.join(recorded)}")
    known = recorded[version]["sm_90"]
    assert known.keys() == shipped.keys()
    moved = {name: drift(row, known[name]) for name, row in shipped.items()}
    assert moved == dict.fromkeys(shipped)


def test_what_a_launch_compiles_is_what_was_checked(shipped, tmp_path):
    done = run(program="gpu_launches", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == DEFAULTS.keys()
    for row in rows:
        known = shipped[DEFAULTS[row["kernel"]]]
        assert row["cooperative"] == (row["kernel"] != "resident")
        assert row["stack"] == row["counts"]["LDL"] == row["counts"]["LDGSTS"] == 0
        if not row["scored"]:
            assert {key: row[key] for key in SAME} == {key: known[key] for key in SAME}


@pytest.mark.parametrize("arch", [80, 89, 100])
def test_other_gpus_have_code_as_well(compile, arch):
    assert len(compile(MODULES, arch, "--first")) == len(MODULES)


def test_bad_code_is_refused(compile):
    toys = compile(["gpu_toys"], 90)
    assert toys.keys() == TOYS.keys()
    for name, row in toys.items():
        assert len(row["faults"]) == len(TOYS[name]), (name, row["faults"])
        for fault, expected in zip(row["faults"], TOYS[name], strict=True):
            assert expected in fault


def test_a_table_and_a_record_can_be_had(tmp_path):
    record = tmp_path / "code.json"
    done = run("--modules", "gpu_toys", "--first", "--update", str(record))
    head, line, row = done.stdout.splitlines()
    assert head.startswith("| kernel | warps | registers |")
    assert row.startswith("| toy that holds | 8 |") and row.count("|") == line.count("|")
    (archs,) = json.loads(record.read_text()).values()
    assert archs["sm_90"]["toy that holds"].keys() == {"instructions", "registers", "shared"}


def test_a_process_that_interprets_is_refused():
    done = run("--modules", "gpu_toys", TRITON_INTERPRET="1")
    assert done.returncode == 1
    assert "TRITON_INTERPRET is set" in done.stderr
