"""Runs the programs of an interpreted Triton kernel side by side, one memory access at a time.

Triton's interpreter runs program after program, so that one which waits for a later one never
ends. Here each program has a thread, and a baton: after a load, a store or an atomic its holder
hands it on to a program chosen by chance from a seed. An access is therefore indivisible and seen
by all at once: orders of accesses are searched, weak memory isn't.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

from triton.runtime import interpreter

Index = tuple[int, int, int]
ACCESSES = ("create_masked_load", "create_masked_store", "create_atomic_rmw", "create_atomic_cas")
LANGUAGES = ("triton.language", "triton.language.core")
# accesses until the speeds of the programs are drawn anew
STRETCH = 64


class Livelock(RuntimeError):
    """The programs made more accesses than they were allowed."""


class _Left(BaseException):
    """Ends a program because another failed; no `except Exception` takes it for its own."""


class Lockstep:
    """The programs of one launch after another; `accesses` counts those of all launches."""

    def __init__(self, seed: int, limit: int) -> None:
        self.chance, self.limit, self.accesses = random.Random(seed), limit, 0
        self.here = threading.local()
        self.error: BaseException | None = None
        self.turns: dict[Index, threading.Semaphore] = {}
        self.speeds: dict[Index, float] = {}

    def run(self, programs: dict[Index, Callable[[], object]]) -> None:
        """Runs programs by grid index until all have ended; raises the first error of any."""
        self.error = None
        self.turns = {index: threading.Semaphore(0) for index in programs}
        self._draw_speeds()
        with ThreadPoolExecutor(len(programs)) as pool:
            for item in programs.items():
                # it keeps the error of a program, which is `self.error` or a consequence
                pool.submit(self._live, *item)
            self._choose().release()
        if self.error is not None:
            raise self.error

    def _live(self, index: Index, program: Callable[[], object]) -> None:
        self.here.index = index
        self.turns[index].acquire()
        try:
            if self.error is None:
                program()
        finally:
            self.error = self.error or sys.exception()
            del self.turns[index]
            if self.turns:
                self._choose().release()

    def _draw_speeds(self) -> None:
        # a program that lags far behind is what finds a missing wait
        self.speeds = {index: 10 ** self.chance.uniform(-2, 0) for index in self.turns}

    def _choose(self) -> threading.Semaphore:
        weights = [self.speeds[index] for index in self.turns]
        return self.chance.choices(list(self.turns.values()), weights)[0]

    def accessed(self) -> None:
        """Counts an access of the running program and hands the baton on."""
        if not hasattr(self.here, "index"):
            return
        self.accesses += 1
        if self.accesses > self.limit and self.error is None:
            self.error = Livelock(f"the programs didn't end within {self.limit} accesses")
        if self.accesses % STRETCH == 0:
            self._draw_speeds()
        mine, next_turn = self.turns[self.here.index], self._choose()
        if next_turn is not mine:
            next_turn.release()
            mine.acquire()
        if self.error is not None:
            raise _Left

    def launch(self, executor: Any, *args: Any, **kwargs: Any) -> None:
        """Stands in for `GridExecutor.__call__`."""
        names = inspect.getfullargspec(executor.fn).args
        kwargs = {name: value for name, value in kwargs.items() if name in names}
        host_args, host_kwargs = executor._init_args_hst(args, kwargs)
        with _patched_once(executor.fn):
            bound = inspect.getcallargs(executor.fn, *host_args, **host_kwargs)
            for name in set(bound) - set(executor.constexprs):
                bound[name] = interpreter._implicit_cvt(bound[name])
            grid = executor.grid(bound) if callable(executor.grid) else executor.grid
            grid = (*grid, 1, 1)[:3]
            interpreter.interpreter_builder.set_grid_dim(*grid)
            run = functools.partial(executor.fn, **bound)
            self.run(dict.fromkeys(itertools.product(*map(range, grid)), run))
        executor._restore_args_dev(args, host_args, kwargs, host_kwargs)


@contextmanager
def _patched_once(fn: Any) -> Iterator[None]:
    """Makes the language an interpreted one, once a launch instead of at each call: it is slow."""
    patch, seen = interpreter._patch_lang, set()

    def once(inner: Any) -> Any:
        modules = (value for value in inner.__globals__.values() if inspect.ismodule(value))
        known = frozenset(value.__name__ for value in modules if value.__name__ in LANGUAGES)
        if known in seen:
            return None
        seen.add(known)
        return patch(inner)

    with mock.patch.object(interpreter, "_patch_lang", once):
        scope = once(fn)
        try:
            yield
        finally:
            scope.restore()


@contextmanager
def lockstep(seed: int = 0, limit: int = 1_000_000) -> Iterator[Lockstep]:
    """Runs every launch of an interpreted kernel inside the block in lockstep.

    Raises the first error of a program at the launch, and Livelock after `limit` accesses.
    """
    run = Lockstep(seed, limit)
    builder = interpreter.InterpreterBuilder

    def handing_on(access: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = access(*args, **kwargs)
            run.accessed()
            return result

        return call

    changed: dict[str, Any] = {name: handing_on(getattr(builder, name)) for name in ACCESSES}
    # what `set_grid_idx` of the stock interpreter writes
    changed["grid_idx"] = property(lambda _: run.here.index)
    with (
        mock.patch.multiple(builder, create=True, **changed),
        mock.patch.object(
            interpreter.GridExecutor,
            "__call__",
            lambda *args, **kwargs: run.launch(*args, **kwargs),
        ),
    ):
        yield run
