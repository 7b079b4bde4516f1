"""Causal attention on packed rows, forward and backward, row by row and head by head.

`model/padded.py` says the same in torch; the tests hold one to the other. Products are `np.dot`
into an existing array, which is BLAS; its quick cases are both factors as they are and the first
one transposed, so everything is brought into one of them.

Shapes: T tokens of all rows, L tokens of one row, D units, H heads, E = D / H units per head.
"""

from typing import NamedTuple

import numpy as np

from tune_srs.kernels.arithmetic import ALL, ONE, ZERO, Mask, draw, exponential, fill
from tune_srs.kernels.compiled import Array, Integers, compiled

TILE = 32  # queries that attention takes at a time


class Attention(NamedTuple):
    """Attention on packed rows: what the matrix products leave, and what the kernels make of it."""

    offsets: Integers  # (B + 1,) where each row's tokens begin
    starts: Integers  # (B + 1,) where each row's weights begin, of all heads
    query: Array  # (T, D or more) the queries first
    key_value: Array  # (T, 2 D or more) keys from column `key` on, then values
    key: int
    bias: Array  # (3, D) of queries, keys, values
    angles: Array  # (2, longest row, E / 2) cosine and sine of rotary positions, or (2, 0, 0)
    pairs: Array  # attention weights before dropout, (keys, queries) of each tile; see `num_pairs`
    keeps: int  # 1: pairs has all of them; 0: it has room for one tile, for what needs no gradient
    mixed: Array  # (T, D)


class Slopes(NamedTuple):
    """Gradients of `Attention`."""

    mixed: Array  # (T, D), which is given
    query: Array  # as wide as the queries
    key_value: Array
    bias: Array  # (3, D), which is added to


class Room(NamedTuple):
    """Memory for one row and head; each thread has its own."""

    parts: Array  # (3, L * E) queries / root of E, keys, values
    slopes: Array  # (4, L * E) their gradients, and a share of one
    tiles: Array  # (2, L * TILE)
    pieces: Array  # (2, TILE * E)
    lane: Array  # (TILE,)
    other_lane: Array


@compiled
def view(memory: Array, rows: int, units: int) -> Array:
    return memory[: rows * units].reshape(rows, units)


@compiled
def transpose(x: Array, x_t: Array) -> None:
    """`x` (n, E) → `x_t` (E, n)"""
    for e in range(x.shape[1]):
        for i in range(x.shape[0]):
            x_t[e, i] = x[i, e]


@compiled
def add_to(total: Array, part: Array) -> None:
    for j in range(part.shape[0]):
        for e in range(part.shape[1]):
            total[j, e] += part[j, e]


@compiled
def turn(x: Array, angles: Array, direction: np.float32) -> None:
    """Turn each pair of units of `x` (L, E) by its angle, in place."""
    half = angles.shape[2]
    for t in range(len(x) if half else 0):
        one, other, cosine, sine = x[t, :half], x[t, half:], angles[0, t], angles[1, t]
        for e in range(half):
            first, second, rise = one[e], other[e], direction * sine[e]
            one[e] = first * cosine[e] - second * rise
            other[e] = first * rise + second * cosine[e]


@compiled
def load(source: Array, column: int, start: int, bias: Array, scale: np.float32, x: Array) -> None:
    """A row's and head's share of `source`, plus `bias` (E,), times `scale` → `x` (L, E)."""
    for t in range(len(x)):
        share, result = source[start + t, column : column + len(bias)], x[t]
        for e in range(len(bias)):
            result[e] = (share[e] + bias[e]) * scale


@compiled
def store(
    d_x: Array, column: int, start: int, d_bias: Array, scale: np.float32, into: Array
) -> None:
    """Gradients of `load`: its share of `into` is written, `d_bias` added to."""
    for t in range(len(d_x)):
        slope, share = d_x[t], into[start + t, column : column + len(d_bias)]
        for e in range(len(d_bias)):
            share[e] = slope[e] * scale
        for e in range(len(d_bias)):
            d_bias[e] += share[e]


@compiled
def root_of(units: int) -> np.float32:
    """1 / the root of E, by which scores are scaled."""
    return np.float32(ONE / np.sqrt(np.float32(units)))


@compiled
def load_head(given: Attention, head: int, start: int, q: Array, k: Array, v: Array) -> None:
    """The queries / root of E, keys and values of a row and head, (L, E) each."""
    column, own = head * q.shape[1], slice(head * q.shape[1], (head + 1) * q.shape[1])
    key, width = given.key + column, given.bias.shape[1]
    load(given.query, column, start, given.bias[0, own], root_of(q.shape[1]), q)
    load(given.key_value, key, start, given.bias[1, own], ONE, k)
    load(given.key_value, key + width, start, given.bias[2, own], ONE, v)
    turn(q, given.angles, ONE)
    turn(k, given.angles, ONE)


@compiled
def causal_powers(scores: Array, start: int, inverse: Array, top: Array) -> None:
    """Softmax before its division, in place: `scores` (m keys, n queries from `start` on).

    A lane is a query, so that all is one operation for `TILE` of them. What each is to be
    multiplied with is left in `inverse`.
    """
    keys, queries = scores.shape
    for i in range(queries):
        top[i] = -np.inf
        inverse[i] = ZERO
    for j in range(start, keys):
        for i in range(min(j - start, queries)):  # these do not see this key
            scores[j, i] = -np.inf
    for j in range(keys):
        for i in range(queries):
            top[i] = scores[j, i] if scores[j, i] > top[i] else top[i]
    for j in range(keys):
        for i in range(queries):
            power = exponential(scores[j, i] - top[i])
            scores[j, i] = power
            inverse[i] += power
    for i in range(queries):
        inverse[i] = ONE / inverse[i]


@compiled
def drop(mask: Mask, first: int, factors: Array, weights: Array, inverse: Array) -> Array:
    """`weights` (m, n), times `inverse` (n,) unless it is empty, in place; returned: dropped."""
    keys, queries = weights.shape
    for j in range(keys if len(inverse) else 0):
        for i in range(queries):
            weights[j, i] *= inverse[i]
    if mask.kept == ALL:
        return weights
    draw(mask, first, factors)
    kept = weights.reshape(-1)
    for i in range(len(kept)):
        factors[i] *= kept[i]
    return factors[: len(kept)].reshape(keys, queries)


@compiled
def attend(first: int, last: int, given: Attention, mask: Mask, room: Room) -> None:
    """Write softmax(q k^T / root of E, causal), dropped, times v to `given.mixed`."""
    offsets, starts, pairs, mixed = given.offsets, given.starts, given.pairs, given.mixed
    parts, _, tiles, pieces, inverse, top = room
    units = pieces.shape[1] // TILE
    for row in range(first, last):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        at = starts[row]
        q, k = view(parts[0], length, units), view(parts[1], length, units)
        v = view(parts[2], length, units)
        for head in range(mixed.shape[1] // units):
            load_head(given, head, start, q, k, v)
            for low in range(0, length, TILE):
                stop, count = min(low + TILE, length), min(TILE, length - low)
                size = count * stop
                q_t, seen = view(pieces[0], units, count), view(pieces[1], count, units)
                weights = view(pairs[at * given.keeps :], stop, count)
                transpose(q[low:stop], q_t)
                np.dot(k[:stop], q_t, weights)
                causal_powers(weights, low, inverse, top)
                dropped = drop(mask, at, tiles[0, : size + size % 2], weights, inverse)
                np.dot(dropped.T, v[:stop], seen)
                for i in range(count):
                    result = mixed[start + low + i, head * units : (head + 1) * units]
                    for e in range(units):
                        result[e] = seen[i, e]
                at += size


@compiled
def attend_back(
    first: int, last: int, given: Attention, mask: Mask, room: Room, slopes: Slopes
) -> None:
    """Backward of `attend`, from `slopes.mixed` to the others.

    With g = v d_mixed^T and weights w, d_scores = dropped (x) g - w (x) sum(d_mixed (x) mixed),
    where (x) goes element by element.
    """
    offsets, starts, _, _, key, bias, angles, pairs, _, mixed = given
    d_mixed, d_query, d_key_value, d_bias = slopes
    parts, d_parts, tiles, pieces, sums, _ = room
    units, width = pieces.shape[1] // TILE, bias.shape[1]
    for row in range(first, last):
        start, length, at = offsets[row], offsets[row + 1] - offsets[row], starts[row]
        q, k = view(parts[0], length, units), view(parts[1], length, units)
        v, d_q = view(parts[2], length, units), view(d_parts[0], length, units)
        d_k, d_v = view(d_parts[1], length, units), view(d_parts[2], length, units)
        for head in range(width // units):
            column, own = head * units, slice(head * units, (head + 1) * units)
            load_head(given, head, start, q, k, v)
            fill(d_k.reshape(-1), ZERO)
            fill(d_v.reshape(-1), ZERO)
            for low in range(0, length, TILE):
                stop, count = min(low + TILE, length), min(TILE, length - low)
                size = count * stop
                d_seen, d_seen_t = view(pieces[0], count, units), view(pieces[1], units, count)
                part, weights = view(d_parts[3], stop, units), view(pairs[at:], stop, count)
                slope = view(tiles[1], stop, count)
                for i in range(count):
                    result, grad = mixed[start + low + i, own], d_mixed[start + low + i, own]
                    d_seen[i, :] = grad
                    total = ZERO
                    for e in range(units):  # alone: see `compiled`
                        total += grad[e] * result[e]
                    sums[i] = total
                transpose(d_seen, d_seen_t)
                np.dot(v[:stop], d_seen_t, slope)
                dropped = drop(mask, at, tiles[0, : size + size % 2], weights, sums[:0])
                for j in range(stop):
                    for i in range(count):
                        slope[j, i] = slope[j, i] * dropped[j, i] - weights[j, i] * sums[i]
                np.dot(slope.T, k[:stop], d_q[low:stop])
                np.dot(slope, q[low:stop], part)
                add_to(d_k, part)
                np.dot(dropped, d_seen, part)
                add_to(d_v, part)
                at += size
            turn(d_q, angles, -ONE)
            turn(d_k, angles, -ONE)
            store(d_q, column, start, d_bias[0, own], root_of(units), d_query)
            store(d_k, key + column, start, d_bias[1, own], ONE, d_key_value)
            store(d_v, key + width + column, start, d_bias[2, own], ONE, d_key_value)


@compiled
def attend_last(
    first: int, last: int, given: Attention, x: Array, room: Room, mixed: Array
) -> None:
    """What the last token of each row sees of `x` (T, D), for each head: `mixed` (B, H, D).

    `given.query` is (B, D), the keys stand alone in (T, D). `x` is mixed instead of values, which
    are linear in it: a mean of them is what is left to project.
    """
    offsets, query, keys, angles = given.offsets, given.query, given.key_value, given.angles
    bias, parts, tiles = given.bias, room.parts, room.tiles
    heads, units = mixed.shape[1], x.shape[1] // mixed.shape[1]
    for row in range(first, last):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        k, q = view(parts[0], length, units), view(parts[1], 1, units)
        weights = view(tiles[0], heads, length)
        for head in range(heads):
            own, scores = slice(head * units, (head + 1) * units), weights[head]
            load(query, head * units, row, bias[0, own], root_of(units), q)
            load(keys, head * units, start, bias[1, own], ONE, k)
            turn(q, angles[:, length - 1 :], ONE)
            turn(k, angles, ONE)
            np.dot(k, q[0], scores)
            top, total = scores.max(), ZERO
            for j in range(length):
                scores[j] = exponential(scores[j] - top)
                total += scores[j]
            for j in range(length):
                scores[j] /= total
        np.dot(weights, x[start : start + length], mixed[row])
