"""What the machine code of a kernel is made of, read from its cubin without a GPU.

Triton's wheel brings NVIDIA's own tools: `cuobjdump` knows registers and stack, `nvdisasm` lists
the instructions (SASS). The sample loop is found in the graph of jumps, since parts of it may lie
behind the end of the kernel: it is the largest set of instructions that reach each other.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# what is counted in the loop: a name, and how the instructions that it stands for begin
KINDS = {
    "BAR": r"BAR\.",
    # a fence that other multiprocessors see
    "MEMBAR": r"MEMBAR\..*(GPU|SYS)",
    # a load that may come from the first-level cache, and one that sees what others wrote
    "LDG": r"LDG\.(?!.*STRONG)",
    "LDG.STRONG": r"LDG\..*STRONG",
    "LD": r"LD\.",
    "STG": r"STG\.",
    "LDGSTS": r"LDGSTS|UBLKCP|UTMALDG",
    "LDL": r"LDL",
    "STL": r"STL",
    "LDS": r"LDS(?!M)",
    "LDSM": r"LDSM",
    "STS": r"STSM?\b",
    "FFMA": r"FFMA",
    "HFMA2": r"HFMA2",
    "HMMA": r"HMMA",
    "HGMMA": r"HGMMA",
    "ATOM": r"ATOMG?\.",
    "RED": r"REDG?\.",
    "SHFL": r"SHFL",
    "REDUX": r"REDUX",
    "MUFU": r"MUFU",
    # of a function, such as a division in float64; to a label it is a jump
    "CALL": r"CALL.*\$",
}

LABEL = re.compile(r"^(\.L_x?_?\d+):")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
TARGET = re.compile(r"`\((\.L_x?_?\d+)\)")


@dataclass(frozen=True)
class Poll:
    """A loop within the sample loop that reads what other programs write: how it waits."""

    instructions: int
    # loads that see what others write, and those that needn't
    loads: int
    stale: int
    barriers: int


@dataclass(frozen=True)
class Code:
    """A kernel's machine code: what a thread and a program take, and what a sample's is."""

    registers: int
    # bytes of a thread that don't fit its registers
    stack: int
    # bytes of a program, static and dynamic
    shared: int
    # in the sample loop, all and by the names of KINDS; those of a loop within it count once
    instructions: int
    counts: dict[str, int] = field(default_factory=dict)
    polls: tuple[Poll, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As tables of plain numbers."""
        return asdict(self)


class Instruction(NamedTuple):
    """One instruction of a listing, as far as jumps need it."""

    address: int
    # without one it is always carried out
    predicate: str
    name: str
    operands: str


class Listing(NamedTuple):
    """A kernel's instructions, and the place in them that each label stands before."""

    instructions: list[Instruction]
    labels: dict[str, int]


def tool(name: str) -> Path:
    """The path of a program of Triton's wheel."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def parse(text: str) -> Listing:
    """Reads what `nvdisasm -c` prints."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.search(line):
            address, predicate, name, operands = found.groups()
            made = Instruction(int(address, 16), predicate or "", name, operands)
            instructions.append(made)
    return Listing(instructions, labels)


def successors(listing: Listing) -> list[list[int]]:
    """The places that each instruction may go on at.

    BRA.DIV leads to a slow copy of the code, for a warp whose threads have parted; it isn't taken.
    """
    instructions, labels = listing
    # a barrier register, and the place where those that wait at it go on
    meeting: dict[str, int] = {}
    result = []
    for i, (_, predicate, name, operands) in enumerate(instructions):
        target = TARGET.search(operands)
        base = name.split(".")[0]
        always = predicate in ("", "PT")
        onward = {i + 1}
        if base == "BSSY" and target:
            meeting[operands.split(",")[0].strip()] = labels[target[1]]
        elif base == "BSYNC":
            onward = {meeting.get(operands.split(",")[0].strip(), i + 1)}
            onward |= set() if always else {i + 1}
        elif base in ("EXIT", "RET") and always:
            onward = set()
        elif base == "BRA" and target and not name.startswith("BRA.DIV"):
            # a condition may also stand before the label
            if always and operands.strip() == target[0]:
                onward = set()
            onward |= {labels[target[1]]}
        elif base in ("WARPSYNC", "CALL") and target:
            # what is called counts only where it jumps back instead of returning
            onward |= {labels[target[1]]}
        result.append([n for n in onward if n < len(instructions)])
    return result


def components(edges: list[list[int]], nodes: set[int]) -> Iterator[set[int]]:
    """The loops among `nodes`: the largest sets whose members all reach each other (Tarjan)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[int] = []
    inside: set[int] = set()
    for root in sorted(nodes):
        work = [] if root in index else [(root, iter(edges[root]))]
        while work:
            node, onward = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                waiting.append(node)
                inside.add(node)
            for after in onward:
                if after in nodes and after not in index:
                    work.append((after, iter(edges[after])))
                    break
                if after in inside:
                    low[node] = min(low[node], index[after])
            else:
                work.pop()
                if work:
                    before = work[-1][0]
                    low[before] = min(low[before], low[node])
                if low[node] == index[node]:
                    start = waiting.index(node)
                    found = set(waiting[start:])
                    del waiting[start:]
                    inside -= found
                    if len(found) > 1 or node in edges[node]:
                        yield found


def sample_loop(listing: Listing) -> tuple[set[int], list[set[int]]]:
    """The instructions of the largest loop, and all loops within it; raises ValueError for none."""
    edges = successors(listing)
    loops = list(components(edges, set(range(len(edges)))))
    if not loops:
        raise ValueError("the kernel has no loop")
    inner = [max(loops, key=len)]
    for loop in inner:
        outside = (after for node in set(range(len(edges))) - loop for after in edges[node])
        inner.extend(components(edges, loop - set(outside)))
    return inner[0], inner[1:]


def count(listing: Listing, nodes: set[int]) -> Counter[str]:
    """How many of the instructions are of each of KINDS."""
    counts: Counter[str] = Counter()
    for node in nodes:
        _, _, name, operands = listing.instructions[node]
        whole = f"{name} {operands}"
        counts.update(kind for kind, pattern in KINDS.items() if re.match(pattern, whole))
    return counts


def _run(name: str, *arguments: str) -> str:
    done = subprocess.run([tool(name), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def measure(cubin: bytes, dynamic: int, reserved: int = 0) -> Code:
    """Takes a cubin apart; `dynamic` bytes of shared memory are asked for when it is launched.

    `reserved` are bytes of shared memory that the system counts as the kernel's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _run("cuobjdump", "--dump-resource-usage", str(path))
        listing = parse(_run("nvdisasm", "-c", str(path)))
    uses = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
    loop, inner = sample_loop(listing)
    polls = []
    for nodes in inner:
        counts = count(listing, nodes)
        loads = sum(counts[kind] for kind in ("LDG.STRONG", "LD", "ATOM"))
        # one that multiplies reads weights past the first-level cache
        if loads and not sum(counts[kind] for kind in ("FFMA", "HFMA2", "HMMA", "HGMMA")):
            polls.append(Poll(len(nodes), loads, counts["LDG"], counts["BAR"]))
    counts = count(listing, loop)
    return Code(
        registers=uses["REG"],
        stack=uses["STACK"],
        # a kernel without any reserves none
        shared=max(uses["SHARED"] - reserved, 0) + dynamic,
        instructions=len(loop),
        counts={kind: counts[kind] for kind in KINDS},
        polls=tuple(polls),
    )
