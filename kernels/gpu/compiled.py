"""The kernels compiled ahead of time, for GPUs that aren't there, and what became of them.

`python -m wavernn.kernels.gpu.compiled` prints a table of every configuration, or with `--json` a
line each. A process that runs Triton's interpreter (TRITON_INTERPRET=1) can't compile.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from wavernn.kernels.gpu.call import Configuration
from wavernn.kernels.gpu.machine_code import Code, measure

# modules with `configurations() -> Iterable[Configuration]`
MODULES = tuple(
    f"wavernn.kernels.gpu.{name}" for name in ("resident", "group", "tagged", "subscale_group")
)
# by compute capability: bytes of shared memory that a program may have, and those that the
# system counts as its own
SHARED = {80: (166_912, 0), 89: (101_376, 0), 90: (232_448, 1024), 100: (232_448, 1024)}
REGISTERS = 65_536
# a pointer's alignment in bytes; torch allocates at more
ALIGNMENT = 16
# loads of 128 bits that a loop may wait for at once
POLLED = 2
# how far the length of the loop may be from the recorded one
DRIFT = 0.1


def compile(configuration: Configuration, arch: int) -> Any:
    """Compiles for a compute capability such as 90; needs no GPU and no driver."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource
    if configuration.gluon:
        from triton.experimental.gluon._runtime import GluonASTSource

        source = GluonASTSource
    names, types = configuration.function.arg_names, configuration.types
    unknown = set(names) ^ (types.keys() | configuration.constants.keys())
    if unknown:
        raise ValueError(f"{configuration.name}: arguments {sorted(unknown)} don't match")
    aligned = [["tt.divisibility", ALIGNMENT]]
    made = source(
        configuration.function,
        {name: types.get(name, "constexpr") for name in names},
        constexprs=configuration.constants,
        attrs={(i,): aligned for i, n in enumerate(names) if types.get(n, "")[:1] == "*"},
    )
    options = {
        "num_warps": configuration.warps,
        # more would fetch ahead what another program hasn't written yet
        "num_stages": 1,
        "maxnreg": configuration.registers,
        "launch_cooperative_grid": configuration.cooperative,
        # the default is to change in a later release
        "enable_fp_fusion": True,
    }
    return triton.compile(made, target=GPUTarget("cuda", arch, 32), options=options)


def code_of(configuration: Configuration, arch: int) -> Code:
    """Compiles and measures."""
    kernel = compile(configuration, arch)
    assert kernel.metadata.launch_cooperative_grid == configuration.cooperative
    return measure(kernel.asm["cubin"], kernel.metadata.shared, SHARED[arch][1])


def faults(configuration: Configuration, code: Code, arch: int) -> list[str]:
    """What a kernel must not have, as sentences; none for a good one."""
    found = []

    def refuse(condition: bool, sentence: str) -> None:
        if condition:
            found.append(sentence)

    counts, threads = code.counts, 32 * configuration.warps
    refuse(code.stack > 0, f"{code.stack} bytes of a thread spill")
    for kind in ("LDL", "STL"):
        refuse(counts[kind] > 0, f"{counts[kind]} {kind} in the loop: registers spill")
    refuse(counts["LDGSTS"] > 0, f"{counts['LDGSTS']} LDGSTS in the loop: loads run ahead")
    refuse(counts["CALL"] > 0, f"{counts['CALL']} CALL in the loop: such as a division in float64")
    refuse(
        threads * code.registers > REGISTERS,
        f"{threads} threads of {code.registers} registers exceed {REGISTERS}",
    )
    limit = SHARED[arch][0]
    refuse(code.shared > limit, f"{code.shared} bytes of shared memory exceed {limit}")
    counts = counts | {"polls": len(code.polls)}
    for kind, expected in configuration.expected.items():
        refuse(kind not in counts, f"{kind} is nothing that is counted: {', '.join(counts)}")
        got = counts.get(kind, expected)
        refuse(got != expected, f"{got} {kind} in the loop, expected {expected}")
    for poll in code.polls:
        refuse(
            poll.loads > POLLED, f"a loop that waits has {poll.loads} loads, expected {POLLED} or 1"
        )
        refuse(poll.stale > 0, f"a loop that waits may read {poll.stale} stale words")
        refuse(poll.barriers > 0, f"a loop that waits has {poll.barriers} barriers")
    refuse(
        bool(code.polls) and not configuration.cooperative,
        "a program waits for others that need not run: launch it cooperatively",
    )
    return found


def drift(row: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    """Says how the loop's length left what was `recorded` for it, or None if it didn't."""
    old, new = recorded["instructions"], row["instructions"]
    if abs(new - old) <= DRIFT * old:
        return None
    return f"{new} instructions in the loop, recorded {old}"


def row_of(arch: int, place: tuple[str, int]) -> dict[str, Any]:
    """Measures a module's configuration by its number: what `--json` prints."""
    import triton

    module, number = place
    configuration = list(importlib.import_module(module).configurations())[number]
    code = code_of(configuration, arch)
    about = {"name": configuration.name, "arch": arch, "triton": triton.__version__}
    about |= {"warps": configuration.warps, "faults": faults(configuration, code, arch)}
    return about | code.to_dict()


def rows(
    modules: Iterable[str], arch: int, first: bool = False, jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """Measures all configurations of modules, or the first of each, in `jobs` processes."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET is set: a process that interprets can't compile")
    places = []
    for module in modules:
        known = len(list(importlib.import_module(module).configurations()))
        places += [(module, number) for number in range(min(known, 1) if first else known)]
    measured = partial(row_of, arch)
    if jobs == 1:
        yield from map(measured, places)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(measured, places)


def table(found: Iterable[dict[str, Any]]) -> str:
    """Rows as Markdown; loop counts are those of one warp and sample."""
    kinds = ("BAR", "MEMBAR", "LDG", "LDG.STRONG", "LDS", "STS", "FFMA", "HMMA", "HGMMA", "SHFL")
    heads = ("kernel", "warps", "registers", "stack", "shared", "instructions", *kinds, "polls")
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in found:
        cells = [row["name"], *(row[key] for key in heads[1:6])]
        cells += [row["counts"][kind] for kind in kinds] + [len(row["polls"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def update(path: Path, found: list[dict[str, Any]]) -> None:
    """Records the loops' lengths in place of those of the same Triton and compute capability."""
    known = json.loads(path.read_text()) if path.exists() else {}
    of_version = known.setdefault(found[0]["triton"], {})
    keys = ("instructions", "registers", "shared")
    of_version[f"sm_{found[0]['arch']}"] = {r["name"]: {k: r[k] for k in keys} for r in found}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def main() -> int:
    """Prints what was asked for; returns 1 where a kernel has a fault."""
    parser = argparse.ArgumentParser(prog="compiled", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", type=int, default=90, choices=tuple(SHARED))
    parser.add_argument("--modules", nargs="+", default=MODULES)
    parser.add_argument("--first", action="store_true", help="one configuration a module")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--json", action="store_true", help="a line of JSON a configuration")
    parser.add_argument("--update", type=Path, help="a file to record the loops' lengths in")
    asked = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        # a compiler's cache would hide what this compiler does
        os.environ["TRITON_CACHE_DIR"] = folder
        for row in rows(asked.modules, asked.arch, asked.first, asked.jobs):
            found.append(row)
            if asked.json:
                print(json.dumps(row), flush=True)
    if not asked.json:
        print(table(found))
    if asked.update:
        update(asked.update, found)
    for row in found:
        for fault in row["faults"]:
            print(f"{row['name']}: {fault}", file=sys.stderr)
    return int(any(row["faults"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
