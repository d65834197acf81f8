"""Where each weight of the resident kernel lies: the thread that holds it, the order in memory.

A matrix is cut into groups of 16 rows; a group keeps K columns. A tile is [G, 8, K] words, each of
two neighbouring rows. A thread holds two words, hence four rows, of K / lanes_k columns of a group:
few enough loads of the vector's elements, few enough sums across lanes, and none across warps.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.constexpr_function
def bits(number):
    """The logarithm of a power of two."""
    return number.bit_length() - 1


@gluon.constexpr_function
def spread(groups, split):
    """How groups go over warps, lanes and registers; `split` of them follow each other in a vector.

    Gives warps and lanes over groups, and lanes over columns.
    """
    warps = min(8, split)
    lanes = min(8, split // warps)
    return warps, lanes, 8 // lanes


@gluon.constexpr_function
def word_tile(groups, columns, split):
    """The layout of a tile [G, 8, K] of words."""
    warps, lanes, lanes_k = spread(groups, split)
    held = columns // lanes_k
    register = [[0, 0, 1 << i] for i in range(bits(held))] + [[0, 1, 0]]
    register += [[warps * lanes << i, 0, 0] for i in range(bits(groups // (warps * lanes)))]
    lane = [[0, 0, held << i] for i in range(bits(lanes_k))] + [[0, 2, 0], [0, 4, 0]]
    lane += [[1 << i, 0, 0] for i in range(bits(lanes))]
    # a matrix of few groups is held by each warp
    warp = [[lanes << i, 0, 0] for i in range(bits(warps))] + [[0, 0, 0]] * (3 - bits(warps))
    return gl.DistributedLinearLayout(register, lane, warp, [], [groups, 8, columns])


@gluon.constexpr_function
def index_tile(groups, columns, split):
    """The layout of indices [G * K], with the columns where `word_tile` has them."""
    warps, lanes, lanes_k = spread(groups, split)
    held = columns // lanes_k
    register = [[1 << i] for i in range(bits(held))]
    register += [[columns * warps * lanes << i] for i in range(bits(groups // (warps * lanes)))]
    lane = [[held << i] for i in range(bits(lanes_k))] + [[0], [0]]
    lane += [[columns << i] for i in range(bits(lanes))]
    warp = [[columns * lanes << i] for i in range(bits(warps))] + [[0]] * (3 - bits(warps))
    return gl.DistributedLinearLayout(register, lane, warp, [], [groups * columns])


@gluon.constexpr_function
def vector(size):
    """The layout of a vector: its rows lie in the warp that sums them up."""
    return gl.BlockedLayout([max(1, size // 256)], [32], [8], [0])
