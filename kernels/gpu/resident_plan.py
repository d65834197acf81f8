"""Where the resident kernel holds each matrix: in registers, or streamed from a cache.

Only columns in which a group of 16 rows has a weight are kept; groups with fewer of them than the
fullest are filled up with zeros. So balanced pruning, which gives all groups as many, wastes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import accumulate

NAMES = ("R_u", "R_r", "R_e", "O1", "O2", "O3", "O4")
# rows of a group
GROUP = 16
# registers of a thread that weights and columns may take; the rest is what the loop works with
REGISTERS = 200
# the same where some matrices are streamed: two tiles are on their way, and the more elements of a
# vector a thread has (H / 2 / 256), the less is left
STREAMED_REGISTERS = 130
REGISTERS_AN_ELEMENT = 25
# bytes of the first-level cache that streamed weights may count on
FIRST_LEVEL_BYTES = 128 * 1024
# words of a thread in a tile that is streamed
STREAMED_WORDS = 16
# a column of a group: 16 weights and half a word of index
BYTES_OF_COLUMN = 34


def padded(size: int) -> int:
    """The next power of two, at least GROUP."""
    return max(GROUP, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Matrix:
    """A matrix in tiles of so many columns of each group."""

    groups: int
    # columns of the first tile
    first: int
    # columns of a second tile, or the number of tiles that are streamed
    second: int
    # words before it
    offset: int
    # 0 for registers, 1 and 2 for the cache of that level
    place: int
    # groups of its first part: a matrix R has one for each half
    split: int

    @property
    def parts(self) -> list[int]:
        """The columns of each tile."""
        if self.place:
            return [self.first] * self.second
        return [self.first, self.second] if self.second else [self.first]

    @property
    def words(self) -> int:
        """Words of two weights."""
        return 8 * self.groups * sum(self.parts)


@dataclass(frozen=True)
class Plan:
    """Where the matrices of NAMES are held."""

    units: int
    projection: int
    matrices: tuple[Matrix, ...]

    @property
    def constants(self) -> tuple[tuple[int, ...], ...]:
        """The matrices as the kernel's MATRICES."""
        return tuple(astuple(matrix) for matrix in self.matrices)

    @property
    def words(self) -> int:
        """The size of the weights, in words of two."""
        return sum(matrix.words for matrix in self.matrices)

    @property
    def streamed_bytes(self) -> int:
        """What a sample reads again from the caches, columns included."""
        columns = [m.groups * sum(m.parts) for m in self.matrices if m.place]
        return BYTES_OF_COLUMN * sum(columns)


def plan_of(columns: Sequence[int], units: int, projection: int) -> Plan:
    """Places the matrices of NAMES, given the columns of the fullest group of each."""
    HP, PP = padded(units), padded(projection)
    # groups, and those of its first part
    recurrent, one, two = (2 * HP // GROUP, HP // GROUP), (PP // GROUP,) * 2, (16, 16)
    shapes = (*(recurrent,) * 3, one, two, one, two)
    wanted = [Matrix(g, max(k, 1), 0, 0, 0, s) for (g, s), k in zip(shapes, columns, strict=True)]
    matrices = _placed(wanted, REGISTERS)
    if any(matrix.place for matrix in matrices):
        matrices = _placed(wanted, STREAMED_REGISTERS - REGISTERS_AN_ELEMENT * HP / 256)
    offsets = accumulate((matrix.words for matrix in matrices), initial=0)
    placed = [replace(m, offset=offset) for m, offset in zip(matrices, offsets, strict=False)]
    return Plan(units, projection, tuple(placed))


def _placed(wanted: list[Matrix], registers: float) -> list[Matrix]:
    """Gives each matrix tiles and a place; the last first, so that heads have registers."""
    made, cached = [], FIRST_LEVEL_BYTES
    for matrix in reversed(wanted):
        columns, split = matrix.first, matrix.split
        # a lane holds two columns at least, which share a word
        least = 16 // min(8, split // min(8, split))
        first, second = _powers(columns, least)
        tiles = replace(matrix, first=first, second=second)
        # a register a word, and a quarter more for the columns, which four threads share
        cost = tiles.words / 256 * 1.25
        if cost <= registers:
            registers -= cost
            made.append(tiles)
            continue
        widest = max(least, STREAMED_WORDS * 256 // matrix.groups // 8)
        # narrow tiles waste less, wide ones wait less often
        width = min(
            (k for k in (widest, widest // 2) if k >= least), key=lambda k: -(-columns // k) * k
        )
        tiles = replace(matrix, first=width, second=-(-columns // width), place=1)
        size = BYTES_OF_COLUMN * tiles.words // 8
        if size > cached:
            tiles = replace(tiles, place=2)
        else:
            cached -= size
        made.append(tiles)
    return made[::-1]


def _powers(columns: int, least: int) -> tuple[int, int]:
    """One or two powers of two of at least `least` whose sum holds so many columns."""
    one = max(least, 1 << (columns - 1).bit_length())
    first = max(least, one // 2)
    second = max(least, 1 << max(columns - first - 1, 0).bit_length())
    return (first, second) if columns > first and first + second < one else (one, 0)
