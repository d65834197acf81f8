"""Loads modules that are written in Gluon so that Triton's interpreter runs them.

Gluon has no interpreter. Its operations are Triton's with a layout more, which says where a value
lies and never what it is; so in test mode `gl` is Triton's own language, which ignores layouts.
What layouts may not do is refused by the compiler, without a GPU as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import triton
import triton.experimental
import triton.language as tl

PACKAGE = "wavernn.kernels.gpu"
# what is written in Gluon, or imports it
TAGGED = ("tagged_exchange", "tagged_step", "tagged_kernel", "tagged")
RESIDENT = ("resident_tiles", "resident_step", "resident_kernel", "resident")


class Shared:
    """A piece of shared memory: the value that was stored last."""

    def __init__(self, start: int = 0, length: int | None = None, whole: Shared | None = None):
        self.start, self.length, self.whole = start, length, whole or self
        self.value: Any = None

    def store(self, value: Any) -> None:
        self.value = value

    def slice(self, start: int, length: int) -> Shared:
        return Shared(self.start + start, length, self.whole)

    def load(self, layout: object) -> Any:
        handle = self.whole.value.handle
        if self.length is None:
            return self.whole.value
        data = handle.data[self.start : self.start + self.length]
        piece = type(handle)(data, handle.dtype)
        return tl.tensor(piece, tl.block_type(self.whole.value.dtype, [self.length]))


class Language:
    """Stands in for `triton.experimental.gluon.language`."""

    def __getattr__(self, name: str) -> Any:
        # looked up late: the interpreter replaces functions of the language at each launch
        return getattr(tl, name)

    def arange(self, start: int, end: int, layout: object = None) -> Any:
        return tl.arange(start, end)

    def full(self, shape: Sequence[int], value: Any, dtype: Any, layout: object = None) -> Any:
        return tl.full(shape, value, dtype)

    def convert_layout(self, value: Any, layout: object) -> Any:
        return value

    def allocate_shared_memory(self, dtype: Any, shape: Sequence[int], layout: object) -> Shared:
        return Shared()

    def _layout(self, *args: object) -> str:
        return "ignored"

    BlockedLayout = SliceLayout = DistributedLinearLayout = SwizzledSharedLayout = _layout


def load(
    folder: Path, changes: Mapping[str, str] | None = None, names: Sequence[str] = TAGGED
) -> dict[str, ModuleType]:
    """Modules of the GPU engine by name, each after those it imports, with Gluon replaced.

    `changes` maps pieces of their sources, each of which occurs in all once, to others. The
    modules don't stay in Python's list; their sources lie in `folder` as long as they are run.
    """
    gluon = ModuleType("triton.experimental.gluon")
    gluon.jit, gluon.language = triton.jit, Language()
    gluon.constexpr_function = lambda function: function
    replaced = {gluon.__name__: gluon, f"{gluon.__name__}.language": gluon.language}
    package = importlib.import_module(PACKAGE)
    sources = {name: Path(package.__file__).with_name(f"{name}.py").read_text() for name in names}
    for old, new in (changes or {}).items():
        (name,) = (name for name in names if sources[name].count(old) == 1)
        sources[name] = sources[name].replace(old, new)
    full = {name: f"{PACKAGE}.{name}" for name in names}
    before = {key: sys.modules.get(key) for key in (*replaced, *full.values())}
    sys.modules.update(replaced)
    try:
        # `from triton.experimental import gluon` asks the package before the list
        with mock.patch.object(triton.experimental, "gluon", gluon, create=True):
            for name in names:
                path = folder / f"{name}.py"
                path.write_text(sources[name])
                spec = importlib.util.spec_from_file_location(full[name], path)
                module = sys.modules[full[name]] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
        return {name: sys.modules[full[name]] for name in names}
    finally:
        for key, module in before.items():
            if module is None:
                del sys.modules[key]
            else:
                sys.modules[key] = module
