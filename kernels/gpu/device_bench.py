"""All that a GPU is needed for, in one command of less than ten minutes.

`python -m wavernn.kernels.gpu.device_bench` times the exchanges (`exchange`), checks and times
every kernel on every voice (`device_run`), appends a line of JSON for each figure to a file and
prints them as Markdown. Needs torch, triton, numpy and safetensors alone. Each stage is a process
of its own with a time limit: one that hangs or breaks is a row, and the others go on. Returns 1 if
anything failed.

`--interpret` does the same in little on a CPU, under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

VOICES = ("dense-896", "sparse-512", "sparse-1024")
# the voices that a kernel is made for; for others it may say that they don't fit
MADE_FOR = {
    "resident": ("sparse-512",),
    "group": ("dense-896",),
    "group-64": ("dense-896",),
    "tagged": ("dense-896",),
    "graph": VOICES,
}
# these are spoken an utterance at a time
SUBSCALE_VOICES = ("subscale-16", "subscale-8-384")
ROUNDS = 100_000


class Stage(NamedTuple):
    """A process: the exchanges, or a kernel and a voice."""

    kernel: str
    voice: str = ""

    def __str__(self) -> str:
        return f"{self.kernel} {self.voice}".strip()


def stages(interpret: bool) -> list[Stage]:
    """The most telling first, as the time may run out; an interpreter runs no others."""
    pairs = [Stage(kernel, voice) for kernel in MADE_FOR for voice in VOICES]
    own = [stage for stage in pairs if stage.voice in MADE_FOR[stage.kernel]]
    others = [] if interpret else [stage for stage in pairs if stage not in own]
    own += [Stage("subscale", voice) for voice in SUBSCALE_VOICES]
    return [Stage("device"), Stage("exchange"), *own, *others]


def clocks() -> dict[str, str] | None:
    """What nvidia-smi says of clocks, power and temperature just now."""
    keys = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={keys}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = done.stdout.splitlines()[0].split(", ")
    return dict(zip(keys.split(","), values, strict=True))


def device_row(interpret: bool) -> dict[str, Any]:
    """The device, and the versions of what runs on it."""
    import torch
    import triton

    from wavernn.kernels.bench import machine

    row = machine() | {"bench": "device", "clocks": clocks(), "ok": True}
    row["versions"] |= {"triton": triton.__version__, "cuda": torch.version.cuda}
    if interpret:
        return row | {"device": "interpreter"}
    about = torch.cuda.get_device_properties(0)
    row |= {"device": about.name, "multiprocessors": about.multi_processor_count}
    return row | {"memory_bytes": about.total_memory}


def exchange_rows(interpret: bool) -> Iterator[dict[str, Any]]:
    """Every protocol on every number of programs."""
    from wavernn.kernels.gpu import exchange

    rounds, device = (3, "cpu") if interpret else (ROUNDS, "cuda")
    for protocol in exchange.WORDS:
        # interpreted programs run one after the other and would wait for ever
        for programs in (1,) if interpret else exchange.PROGRAMS:
            row = exchange.measure(protocol, programs, rounds, device)
            yield row | {"ok": row["wrong"] == 0}


def kernel_rows(stage: Stage, interpret: bool) -> Iterator[dict[str, Any]]:
    """Whether a kernel is right on a voice, its speed, and what the device has loaded."""
    from wavernn import recipe
    from wavernn.errors import BackendUnavailable
    from wavernn.kernels.bench import random_voice
    from wavernn.kernels.gpu import device_run, device_subscale, device_work

    if stage.kernel == "subscale":
        yield from device_subscale.rows(stage.voice, interpret)
        yield from after()
        return
    plan, overrides = device_work.Plan(), ['mel="24k"']
    if interpret:
        plan = device_work.SMALL
        overrides += ["model.hidden=32", "model.projection=16", "model.channels=4"]
        if stage.voice.startswith("sparse"):
            overrides += [f"prune.density.{name}=0.5" for name in ("R_u", "R_r", "R_e")]
            overrides += [f"prune.density.O{i}=1.0" for i in (1, 2, 3, 4)]
    voice = device_work.lively(random_voice(recipe.load(stage.voice, overrides)))
    if stage.kernel == "graph":
        yield device_run.against_reference(voice, plan)
    try:
        yield from device_run.correctness(stage.kernel, voice, plan)
    except BackendUnavailable as error:
        fits = stage.voice not in MADE_FOR[stage.kernel]
        yield {"bench": "absent", "reason": str(error), "ok": fits}
        return
    yield from device_run.speed(stage.kernel, voice, plan)
    yield from after()


def after() -> Iterator[dict[str, Any]]:
    """The clocks after a stage, and the machine code that it loaded."""
    from wavernn.kernels.gpu import device_work

    yield {"bench": "clocks", "clocks": clocks(), "ok": True}
    for row in device_work.loaded():
        yield {"bench": "code", "ok": row["spills"] == 0} | row


def rows(stage: Stage, interpret: bool) -> Iterator[dict[str, Any]]:
    """A stage's rows."""
    if stage.kernel == "device":
        yield device_row(interpret)
    elif stage.kernel == "exchange":
        yield from exchange_rows(interpret)
    else:
        for row in kernel_rows(stage, interpret):
            yield {"kernel": stage.kernel, "voice": stage.voice} | row


def child(stage: Stage, interpret: bool, limit_s: float) -> Iterator[dict[str, Any]]:
    """Runs a stage as a process; what it lacks at the limit or after an error is one more row."""
    command = [sys.executable, "-m", "wavernn.kernels.gpu.device_bench", "--stage", *stage]
    command += ["--interpret"] * interpret
    environment = dict(os.environ) | ({"TRITON_INTERPRET": "1"} if interpret else {})
    reason = None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        try:
            if code := process.wait(limit_s):
                reason = f"ended with {code}"
        except subprocess.TimeoutExpired:
            process.kill()
            reason = f"not done within {limit_s:.0f} s"
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        out.seek(0)
        for line in out.read().decode().splitlines():
            # a line that was cut off is no row
            if line.startswith("{") and line.endswith("}"):
                yield json.loads(line)
        if reason:
            err.seek(0)
            said = err.read().decode(errors="replace")[-4000:]
            print(said, file=sys.stderr)
            last = (said.strip().splitlines() or [""])[-1]
            row = {"bench": "failure", "kernel": stage.kernel, "voice": stage.voice, "ok": False}
            yield row | {"reason": f"{reason}: {last}".removesuffix(": "), "stderr": said}


def main() -> int:
    """Runs one stage, for itself, or all."""
    parser = argparse.ArgumentParser(
        prog="device_bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.jsonl"), help="JSON lines")
    parser.add_argument("--interpret", action="store_true", help="a small version on the CPU")
    parser.add_argument("--kernels", nargs="+", help="only these, such as exchange or resident")
    parser.add_argument("--seconds", type=float, default=540, help="for all of it")
    parser.add_argument("--stage-seconds", type=float, default=100, help="for one process")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        for row in rows(Stage(*asked.stage), asked.interpret):
            print(json.dumps(row), flush=True)
        return 0

    from wavernn.kernels.gpu.device_table import tables

    begun, found = time.monotonic(), []
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("a") as file:
        for stage in stages(asked.interpret):
            if asked.kernels and stage.kernel not in (*asked.kernels, "device"):
                continue
            left = asked.seconds - (time.monotonic() - begun)
            print(f"{stage}: {left:.0f} s left", file=sys.stderr, flush=True)
            for row in child(stage, asked.interpret, max(min(left, asked.stage_seconds), 0)):
                found.append(row)
                print(json.dumps(row), file=file, flush=True)
    print(tables(found))
    return int(not all(row["ok"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
