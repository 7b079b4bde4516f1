"""SASRec's layers on one row, forward and backward.

Products are `np.dot` into an existing array, which is BLAS; its quick cases are both factors as
they are and the first one turned, so everything here is brought into one of them.

Shapes: L tokens of one row, D units, E = D / heads units of one head.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]
Function = TypeVar("Function", bound=Callable[..., object])

TILE = 32  # queries that attention takes at a time; as many as a word has bits
EPSILON = np.float32(1e-8)  # of the layer norms
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


def compiled(function: Function) -> Function:
    """Compiled when first called and kept on disk; runs without Python's lock.

    Sums may be reordered, but unlike under full fast-math a score that is no number stays one.
    """
    fastmath = {"contract", "reassoc", "arcp", "nsz"}
    compiler = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath)
    return compiler(function)  # type: ignore[no-any-return]


class Scratch(NamedTuple):
    """Room for one row; each thread has its own."""

    rows: Array  # (5, L, D)
    heads: Array  # (5, L * E)
    both: Array  # (L * 2 E,)
    tiles: Array  # (2, L * TILE)
    turned: Array  # (E * TILE,)
    lanes: Array  # (3, TILE)
    exponents: npt.NDArray[np.int32]  # (L * TILE,)
    mask: Array  # (words of L * D, 32)
    square: Array  # (2 D * D,)


@compiled
def num_pairs(length: int) -> int:
    """Attention weights that a row and head take: each tile of queries with all keys so far."""
    tiles = length // TILE
    return TILE * TILE * tiles * (tiles + 1) // 2 + length % TILE * length


@compiled
def num_attention_words(length: int) -> int:
    """Words of random bits for them: one for each key and tile."""
    tiles = length // TILE
    return TILE * tiles * (tiles + 1) // 2 + (length if length % TILE else 0)


@compiled
def num_words(size: int) -> int:
    """Words of 32 random bits for `size` elements."""
    return (size + 31) // 32


@compiled
def spread(words: Words, scale: np.float32, mask: Array) -> None:
    """Dropout's factors, (words, 32): `scale` where a bit is 1, otherwise 0."""
    for w in range(len(words)):
        word = words[w]
        for bit in range(mask.shape[1]):
            mask[w, bit] = scale * np.float32((word >> np.uint32(bit)) & np.uint32(1))


@compiled
def clear(x: Array) -> None:
    flat = x.reshape(-1)
    for i in range(len(flat)):
        flat[i] = ZERO


@compiled
def copy_to(copy: Array, x: Array) -> None:
    """`copy[:] = x`, which itself takes five times as long."""
    copy_flat, x_flat = copy.reshape(-1), x.reshape(-1)
    for i in range(len(x_flat)):
        copy_flat[i] = x_flat[i]


@compiled
def add_to(total: Array, part: Array) -> None:
    total_flat, part_flat = total.reshape(-1), part.reshape(-1)
    for i in range(len(part_flat)):
        total_flat[i] += part_flat[i]


@compiled
def multiply(x: Array, factor: np.float32) -> None:
    flat = x.reshape(-1)
    for i in range(len(flat)):
        flat[i] *= factor


@compiled
def add_bias(x: Array, bias: Array) -> None:
    for t in range(x.shape[0]):
        for d in range(x.shape[1]):
            x[t, d] += bias[d]


@compiled
def add_sums(total: Array, x: Array) -> None:
    """The gradient of a bias: `total` (D,) plus the sum of `x` (L, D) over its tokens."""
    for t in range(x.shape[0]):
        for d in range(x.shape[1]):
            total[d] += x[t, d]


@compiled
def add_product(total: Array, x: Array, grad: Array, square: Array) -> None:
    """The gradient of a matrix (in, out): `total` plus x^T grad."""
    part = square[: total.size].reshape(total.shape)
    np.dot(x.T, grad, part)
    add_to(total, part)


@compiled
def measure(x: Array, moments: Array) -> None:
    """Of each token the mean and 1 / deviation: `x` (L, D) → `moments` (L, 2)."""
    share = ONE / np.float32(x.shape[1])
    for t in range(x.shape[0]):
        total = ZERO
        for d in range(x.shape[1]):
            total += x[t, d]
        mean = total * share
        squares = ZERO
        for d in range(x.shape[1]):
            away = x[t, d] - mean
            squares += away * away
        moments[t, 0] = mean
        moments[t, 1] = ONE / np.sqrt(squares * share + EPSILON)


@compiled
def normalise(x: Array, moments: Array, norm: Array, result: Array) -> None:
    """Layer norm by moments that were measured: `norm` (2, D) is gain and bias."""
    for t in range(x.shape[0]):
        mean, inverse = moments[t, 0], moments[t, 1]
        for d in range(x.shape[1]):
            result[t, d] = (x[t, d] - mean) * inverse * norm[0, d] + norm[1, d]


@compiled
def normalise_back(
    grad: Array, x: Array, moments: Array, norm: Array, of_norm: Array, of_x: Array
) -> None:
    """The layer norm's gradient: `of_norm` is added to, `of_x` (L, D) written."""
    share = ONE / np.float32(x.shape[1])
    for t in range(x.shape[0]):
        mean, inverse = moments[t, 0], moments[t, 1]
        total, along = ZERO, ZERO
        for d in range(x.shape[1]):
            normed = (x[t, d] - mean) * inverse
            slope = grad[t, d] * norm[0, d]
            of_norm[0, d] += grad[t, d] * normed
            of_norm[1, d] += grad[t, d]
            total += slope
            along += slope * normed
        total, along = total * share, along * share
        for d in range(x.shape[1]):
            normed = (x[t, d] - mean) * inverse
            of_x[t, d] = inverse * (grad[t, d] * norm[0, d] - total - normed * along)


@compiled
def turn(x: Array, turned: Array) -> None:
    """`x` (n, E) → `turned` (E, n)"""
    for e in range(x.shape[1]):
        for i in range(x.shape[0]):
            turned[e, i] = x[i, e]


@compiled
def power_of_two(x: Array, exponents: npt.NDArray[np.int32]) -> None:
    """2^x in place, `x` (n,) <= 0: 2^k, made of the bits of its exponent, times 2^f of x = k + f.

    2^f is the Taylor series of e^(f ln 2), |f| <= 1/2: right to the last digit but one.
    """
    powers = exponents.view(np.float32)
    for i in range(len(x)):
        z = np.float32(-127) if x[i] < np.float32(-127) else x[i]  # 2^-127 is 0 here
        whole = np.floor(z + HALF)
        f = (z - whole) * np.float32(0.6931471805599453)
        series = f * np.float32(1 / 720) + np.float32(1 / 120)
        series = series * f + np.float32(1 / 24)
        series = series * f + np.float32(1 / 6)
        series = series * f + HALF
        series = series * f + ONE
        x[i] = series * f + ONE
        exponents[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for i in range(len(x)):
        x[i] *= powers[i]


@compiled
def causal_powers(scores: Array, start: int, scratch: Scratch) -> None:
    """Softmax before its division, in place: `scores` (m keys, n queries from `start` on).

    A lane is a query, so that all is one operation for 32 of them. What each is to be multiplied
    with is left in `scratch.lanes[1]`.
    """
    keys, queries = scores.shape
    top, total = scratch.lanes[0], scratch.lanes[1]
    for i in range(queries):
        top[i] = -np.inf
        total[i] = ZERO
    for j in range(start, keys):
        for i in range(min(j - start, queries)):  # these do not see this key
            scores[j, i] = -np.inf
    for j in range(keys):
        for i in range(queries):
            top[i] = scores[j, i] if scores[j, i] > top[i] else top[i]
    for j in range(keys):
        for i in range(queries):
            scores[j, i] = (scores[j, i] - top[i]) * np.float32(1.4426950408889634)
    power_of_two(scores.reshape(-1), scratch.exponents)
    for j in range(keys):
        for i in range(queries):
            total[i] += scores[j, i]
    for i in range(queries):
        total[i] = ONE / total[i]


@compiled
def attend(
    query: Array,
    key: Array,
    value: Array,
    words: Words,
    scale: np.float32,
    pairs: Array,
    mixed: Array,
    scratch: Scratch,
) -> None:
    """softmax(query key^T, causal), dropped, times value: (L, E) each → `mixed` and `pairs`."""
    length, units = query.shape
    inverse = scratch.lanes[1]
    at, first_word = 0, 0
    for start in range(0, length, TILE):
        stop = min(start + TILE, length)
        count = stop - start
        size = count * stop
        turned = scratch.turned[: units * count].reshape(units, count)
        dropped = scratch.tiles[0][:size].reshape(stop, count)
        weights = pairs[at : at + size].reshape(stop, count)
        turn(query[start:stop], turned)
        np.dot(key[:stop], turned, weights)
        causal_powers(weights, start, scratch)
        for j in range(stop):
            word = words[first_word + j]
            for i in range(count):
                bit = np.float32((word >> np.uint32(i)) & np.uint32(1))
                weights[j, i] *= inverse[i]
                dropped[j, i] = weights[j, i] * (scale * bit)
        np.dot(dropped.T, value[:stop], mixed[start:stop])
        at += size
        first_word += stop


@compiled
def attend_back(
    grad: Array,
    query: Array,
    key: Array,
    value: Array,
    mixed: Array,
    pairs: Array,
    words: Words,
    scale: np.float32,
    of_query: Array,
    of_key: Array,
    of_value: Array,
    scratch: Scratch,
) -> None:
    """The gradient: of the scores it is dropped (x) g - weights (x) sum(grad (x) mixed),

    of g = value grad^T, where (x) goes element by element.
    """
    length, units = query.shape
    sums = scratch.lanes[2]
    clear(of_key)
    clear(of_value)
    at, first_word = 0, 0
    for start in range(0, length, TILE):
        stop = min(start + TILE, length)
        count = stop - start
        size = count * stop
        turned = scratch.turned[: units * count].reshape(units, count)
        dropped = scratch.tiles[0][:size].reshape(stop, count)
        slope = scratch.tiles[1][:size].reshape(stop, count)
        part = scratch.heads[4][: stop * units].reshape(stop, units)
        weights = pairs[at : at + size].reshape(stop, count)
        for i in range(count):
            total = ZERO
            for e in range(units):
                total += grad[start + i, e] * mixed[start + i, e]
            sums[i] = total
        turn(grad[start:stop], turned)
        np.dot(value[:stop], turned, slope)
        for j in range(stop):
            word = words[first_word + j]
            for i in range(count):
                bit = np.float32((word >> np.uint32(i)) & np.uint32(1))
                dropped[j, i] = weights[j, i] * (scale * bit)
                slope[j, i] = slope[j, i] * dropped[j, i] - weights[j, i] * sums[i]
        np.dot(slope.T, key[:stop], of_query[start:stop])
        np.dot(slope, query[start:stop], part)
        add_to(of_key[:stop], part)
        np.dot(dropped, grad[start:stop], part)
        add_to(of_value[:stop], part)
        at += size
        first_word += stop
