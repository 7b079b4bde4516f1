"""What an encoder computes between its matrix products, forward and backward, row by row.

`model/padded.py` says the same in torch; the tests hold one to the other. Dropout's factors are
not stored: they are hashed from an element's place and two keys, and again in the backward pass.

Shapes: T tokens of all rows, L tokens of one row, D units, H heads, E = D / H units per head.
"""

from typing import NamedTuple

import numpy as np

from tune_srs.kernels.compiled import Array, Integers, compiled

TILE = 32  # queries that attention takes at a time
ALL = 2**16  # `Mask.kept` where nothing is dropped
RELU, GELU, SWIGLU = range(3)
EPSILON = np.float32(1e-8)  # of the layer norms
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class Mask(NamedTuple):
    """Dropout of one call: an element is kept with chance `kept` / 2^16, times `scale`."""

    key: np.uint32
    other_key: np.uint32
    kept: np.uint32
    scale: np.float32


class Projected(NamedTuple):
    """Queries, keys and values as matrix products leave them; or the gradients of these."""

    query: Array  # (T, D or more) the queries first
    key_value: Array  # (T, 2 D or more) keys from column `key` on, then values
    key: int
    bias: Array  # (3, D) of queries, keys, values
    angles: Array  # (2, longest row, E / 2) cosine and sine of rotary positions, or (2, 0, 0)


class Room(NamedTuple):
    """Memory for one row and head; each thread has its own."""

    parts: Array  # (3, L * E) queries / root of E, keys, values
    slopes: Array  # (4, L * E) their gradients, and a share of one
    tiles: Array  # (2, L * TILE)
    pieces: Array  # (2, TILE * E)
    lanes: Array  # (2, TILE)


class Sublayer(NamedTuple):
    """What a sublayer adds to the residual stream, and the layer norm of the sum."""

    base: Array  # (T, D) that it is added to
    added: Array  # (T, D) before `bias` and dropout
    bias: Array  # (D,)
    gate: Array  # (T, D) before `gate_bias` and sigmoid; (0, D) where there is none
    gate_bias: Array  # (D,)
    norm: Array  # (2, D) gain and bias
    total: Array  # (T, D) the sum
    moments: Array  # (T, 2) its mean and 1 / deviation


@compiled
def draw(mask: Mask, first: int, factors: Array) -> None:
    """Write dropout's factors: `scale` with the chance to be kept, otherwise 0.

    Word `first` + i decides on element i and on i + half the (even) number of them, by 16 bits
    each. It is hashed from its number and both keys, after lowbias32 (C. Wellons, hash-prospector).
    """
    half = len(factors) // 2
    low, high = factors[:half], factors[half:]
    if mask.kept == ALL:
        factors[:] = ONE
        return
    start, other = np.uint32(first), np.uint32(mask.other_key ^ np.uint32(first >> 32))
    for i in range(half):
        x = np.uint32(np.uint32(start + np.uint32(i)) ^ mask.key)
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(15)) ^ other) * np.uint32(0x846CA68B))
        x = np.uint32(x ^ (x >> np.uint32(16)))
        low[i] = mask.scale if np.uint32(x & np.uint32(0xFFFF)) < mask.kept else ZERO
        high[i] = mask.scale if np.uint32(x >> np.uint32(16)) < mask.kept else ZERO


@compiled
def exponential(x: np.float32) -> np.float32:
    """e^x, right to the last digit but one, and 0 below -88.

    It is 2^k, made of the bits of its exponent, times 2^f of x / ln 2 = k + f, which is the Taylor
    series of e^(f ln 2).
    """
    x = x * np.float32(1.4426950408889634)
    x = np.float32(-127) if x < np.float32(-127) else x
    x = np.float32(127) if x > np.float32(127) else x
    whole = np.floor(x + HALF)
    f = (x - whole) * np.float32(0.6931471805599453)
    series = f * np.float32(1 / 720) + np.float32(1 / 120)
    series = series * f + np.float32(1 / 24)
    series = series * f + np.float32(1 / 6)
    series = series * f + HALF
    series = series * f + ONE
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return (series * f + ONE) * power.view(np.float32)


@compiled
def sigmoid(x: np.float32) -> np.float32:
    return ONE / (ONE + exponential(-x))


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
    d_x: Array, scale: np.float32, start: int, d_source: Array, column: int, d_bias: Array
) -> None:
    """The gradients of `load`: its share of `d_source` is written, `d_bias` added to."""
    for t in range(len(d_x)):
        slope, share = d_x[t], d_source[start + t, column : column + len(d_bias)]
        for e in range(len(d_bias)):
            share[e] = slope[e] * scale
        for e in range(len(d_bias)):
            d_bias[e] += share[e]


@compiled
def load_head(given: Projected, head: int, start: int, q: Array, k: Array, v: Array) -> None:
    """The queries / root of E, keys and values of a row and head, (L, E) each."""
    units, width = q.shape[1], given.bias.shape[1]
    column, root = head * units, ONE / np.sqrt(np.float32(q.shape[1]))
    own, key = slice(column, column + units), given.key + column
    load(given.query, column, start, given.bias[0, own], root, q)
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
def attend(
    first: int,
    last: int,
    offsets: Integers,
    starts: Integers,
    given: Projected,
    mask: Mask,
    pairs: Array,
    room: Room,
    mixed: Array,
) -> None:
    """softmax(q k^T / root of E, causal), dropped, times v, in rows `first` to `last`.

    Row b's tokens begin at `offsets[b]`, its weights in `pairs` at `starts[b]`, for all heads; with
    empty `starts` they are not kept. `mixed` is (T, D).
    """
    units = room.pieces.shape[1] // TILE
    for row in range(first, last):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        at = starts[row] if len(starts) else 0
        q = room.parts[0, : length * units].reshape(length, units)
        k = room.parts[1, : length * units].reshape(length, units)
        v = room.parts[2, : length * units].reshape(length, units)
        for head in range(mixed.shape[1] // units):
            load_head(given, head, start, q, k, v)
            for low in range(0, length, TILE):
                stop = min(low + TILE, length)
                count = stop - low
                q_t = room.pieces[0, : units * count].reshape(units, count)
                seen = room.pieces[1, : units * count].reshape(count, units)
                weights = pairs[at : at + count * stop].reshape(stop, count)
                dropped = room.tiles[0, : count * stop].reshape(stop, count)
                transpose(q[low:stop], q_t)
                np.dot(k[:stop], q_t, weights)
                causal_powers(weights, low, room.lanes[0], room.lanes[1])
                draw(mask, at, room.tiles[0, : count * stop + count * stop % 2])
                for j in range(stop):
                    for i in range(count):
                        weights[j, i] *= room.lanes[0, i]
                        dropped[j, i] *= weights[j, i]
                np.dot(dropped.T, v[:stop], seen)
                for i in range(count):
                    result = mixed[start + low + i, head * units : (head + 1) * units]
                    for e in range(units):
                        result[e] = seen[i, e]
                at += count * stop if len(starts) else 0


@compiled
def attend_back(
    first: int,
    last: int,
    offsets: Integers,
    starts: Integers,
    given: Projected,
    mask: Mask,
    pairs: Array,
    room: Room,
    mixed: Array,
    d_mixed: Array,
    d_given: Projected,
) -> None:
    """Backward of `attend`: the gradients of `given`; that of the bias is added to.

    With g = v d_mixed^T and weights w, d_scores = dropped (x) g - w (x) sum(d_mixed (x) mixed),
    where (x) goes element by element.
    """
    units, sums = room.pieces.shape[1] // TILE, room.lanes[0]
    width, root = given.bias.shape[1], ONE / np.sqrt(np.float32(room.pieces.shape[1] // TILE))
    for row in range(first, last):
        start, length, at = offsets[row], offsets[row + 1] - offsets[row], starts[row]
        q = room.parts[0, : length * units].reshape(length, units)
        k = room.parts[1, : length * units].reshape(length, units)
        v = room.parts[2, : length * units].reshape(length, units)
        d_q = room.slopes[0, : length * units].reshape(length, units)
        d_k = room.slopes[1, : length * units].reshape(length, units)
        d_v = room.slopes[2, : length * units].reshape(length, units)
        for head in range(width // units):
            column, own = head * units, slice(head * units, (head + 1) * units)
            load_head(given, head, start, q, k, v)
            room.slopes[1:3] = ZERO
            for low in range(0, length, TILE):
                stop = min(low + TILE, length)
                count = stop - low
                d_seen = room.pieces[0, : units * count].reshape(count, units)
                d_seen_t = room.pieces[1, : units * count].reshape(units, count)
                part = room.slopes[3, : stop * units].reshape(stop, units)
                weights = pairs[at : at + count * stop].reshape(stop, count)
                dropped = room.tiles[0, : count * stop].reshape(stop, count)
                slope = room.tiles[1, : count * stop].reshape(stop, count)
                for i in range(count):
                    result, grad = mixed[start + low + i, own], d_mixed[start + low + i, own]
                    total = ZERO
                    for e in range(units):
                        d_seen[i, e] = grad[e]
                        total += grad[e] * result[e]
                    sums[i] = total
                transpose(d_seen, d_seen_t)
                np.dot(v[:stop], d_seen_t, slope)
                draw(mask, at, room.tiles[0, : count * stop + count * stop % 2])
                for j in range(stop):
                    for i in range(count):
                        dropped[j, i] *= weights[j, i]
                        slope[j, i] = slope[j, i] * dropped[j, i] - weights[j, i] * sums[i]
                np.dot(slope.T, k[:stop], d_q[low:stop])
                np.dot(slope, q[low:stop], part)
                add_to(d_k, part)
                np.dot(dropped, d_seen, part)
                add_to(d_v, part)
                at += count * stop
            turn(d_q, given.angles, -ONE)
            turn(d_k, given.angles, -ONE)
            key = given.key + column
            store(d_q, root, start, d_given.query, column, d_given.bias[0, own])
            store(d_k, ONE, start, d_given.key_value, key, d_given.bias[1, own])
            store(d_v, ONE, start, d_given.key_value, key + width, d_given.bias[2, own])


@compiled
def attend_last(
    first: int,
    last: int,
    offsets: Integers,
    query: Array,
    keys: Array,
    bias: Array,
    angles: Array,
    x: Array,
    room: Room,
    mixed: Array,
) -> None:
    """What the last token of each row sees of `x` (T, D), for each head: `mixed` (B, H, D).

    `query` (B, D) has its bias, `keys` (T, D) have not. `x` is mixed instead of values, which are
    linear in it: projecting the mean once is all that is left to do.
    """
    heads = mixed.shape[1]
    units = x.shape[1] // heads
    nothing = np.zeros(units, np.float32)
    for row in range(first, last):
        start, stop = offsets[row], offsets[row + 1]
        length = stop - start
        k = room.parts[0, : length * units].reshape(length, units)
        q = room.parts[1, :units].reshape(1, units)
        weights = room.tiles[0, : heads * length].reshape(heads, length)
        for head in range(heads):
            own = slice(head * units, (head + 1) * units)
            load(keys, head * units, start, bias[own], ONE, k)
            turn(k, angles, ONE)
            load(query, head * units, row, nothing, ONE / np.sqrt(np.float32(units)), q)
            turn(q, angles[:, length - 1 :], ONE)
            scores, top, total = weights[head], np.float32(-np.inf), ZERO
            for j in range(length):
                score = ZERO
                for e in range(units):
                    score += k[j, e] * q[0, e]
                scores[j] = score
                top = max(top, score)
            for j in range(length):
                scores[j] = exponential(scores[j] - top)
                total += scores[j]
            for j in range(length):
                scores[j] /= total
        np.dot(weights, x[start:stop], mixed[row])


@compiled
def gates_of(given: Sublayer, t: int, gates: Array) -> None:
    """sigmoid(gate + bias) of token t, or 1 without a gate, → `gates` (D,)"""
    if not len(given.gate):
        gates[:] = ONE
        return
    row = given.gate[t]
    for d in range(len(row)):
        gates[d] = sigmoid(row[d] + given.gate_bias[d])


@compiled
def join(first: int, last: int, given: Sublayer, mask: Mask, normed: Array) -> None:
    """base + dropped(added + bias) * sigmoid(gate + bias) → `given.total`, its norm → `normed`."""
    units = len(given.bias)
    half, share = (units + 1) // 2, ONE / np.float32(units)
    factors, gates = np.empty(2 * half, np.float32), np.empty(units, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        gates_of(given, t, gates)
        total, added, base, result = given.total[t], given.added[t], given.base[t], normed[t]
        sum_, squares = ZERO, ZERO
        for d in range(units):
            total[d] = base[d] + (added[d] + given.bias[d]) * factors[d] * gates[d]
            sum_ += total[d]
        mean = sum_ * share
        for d in range(units):
            squares += (total[d] - mean) * (total[d] - mean)
        inverse = ONE / np.sqrt(squares * share + EPSILON)
        given.moments[t, 0], given.moments[t, 1] = mean, inverse
        for d in range(units):
            result[d] = (total[d] - mean) * inverse * given.norm[0, d] + given.norm[1, d]


@compiled
def join_back(
    first: int,
    last: int,
    given: Sublayer,
    mask: Mask,
    d_total: Array,
    d_normed: Array,
    d_given: Sublayer,
) -> None:
    """Backward of `join`, from gradients (T, D) of both results; either may be (0, D).

    In `d_given`, those of `added` (if it is not (0, D)), `gate` and `base` are written; those of
    `bias`, `gate_bias` and `norm` are added to.
    """
    units = len(given.bias)
    half, share = (units + 1) // 2, ONE / np.float32(units)
    factors, gates = np.empty(2 * half, np.float32), np.empty(units, np.float32)
    scaled, along = np.empty(units, np.float32), np.empty(units, np.float32)
    d_gain, d_shift, d_bias = d_given.norm[0], d_given.norm[1], d_given.bias
    for t in range(first, last):
        mean, inverse = given.moments[t, 0], given.moments[t, 1]
        total, grad, d_base = given.total[t], d_normed[t], d_given.base[t]
        mean_slope, mean_along = ZERO, ZERO
        for d in range(units):
            along[d] = (total[d] - mean) * inverse
        for d in range(units):
            d_gain[d] += grad[d] * along[d]
            d_shift[d] += grad[d]
        for d in range(units):
            scaled[d] = grad[d] * given.norm[0, d]
            mean_slope += scaled[d]
            mean_along += scaled[d] * along[d]
        mean_slope, mean_along = mean_slope * share, mean_along * share
        for d in range(units):
            d_base[d] = inverse * (scaled[d] - mean_slope - along[d] * mean_along)
        if len(d_total):
            for d in range(units):
                d_base[d] += d_total[t, d]
        slope = d_base
        if len(d_given.added):
            draw(mask, t * half, factors)
            gates_of(given, t, gates)
            slope = d_given.added[t]
            for d in range(units):
                slope[d] = d_base[d] * factors[d] * gates[d]
        for d in range(units):
            d_bias[d] += slope[d]
        if len(given.gate):
            added, d_gate, d_gate_bias = given.added[t], d_given.gate[t], d_given.gate_bias
            for d in range(units):
                d_gate[d] = slope[d] * (added[d] + given.bias[d]) * (ONE - gates[d])
            for d in range(units):
                d_gate_bias[d] += d_gate[d]


@compiled
def above(x: np.float32) -> np.float32:
    """The chance that a normal number exceeds |x|, to 1e-7, over e^(-x^2 / 2).

    Abramowitz and Stegun 1964, 7.1.26.
    """
    t = ONE / (ONE + np.float32(0.3275911 * 2**-0.5) * abs(x))
    series = t * np.float32(1.061405429) + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    return (series * t + np.float32(0.254829592)) * t * HALF


@compiled
def activate(
    first: int, last: int, x: Array, bias: Array, kind: int, mask: Mask, result: Array
) -> None:
    """Activation `kind` of `x` (T, F) + `bias` (F,), dropped → `result` (T, F), SwiGLU's (T, F / 2)."""
    units = result.shape[1]
    half = (units + 1) // 2
    factors = np.empty(2 * half, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        own, other, out = x[t, :units], x[t, -units:], result[t]
        other_bias = bias[-units:]
        if kind == RELU:
            for d in range(units):
                z = own[d] + bias[d]
                out[d] = (ZERO if z < ZERO else z) * factors[d]
        elif kind == GELU:
            for d in range(units):
                z = own[d] + bias[d]
                tail = above(z) * exponential(-HALF * z * z)
                out[d] = z * (ONE - tail if z > ZERO else tail) * factors[d]
        else:
            for d in range(units):
                z = own[d] + bias[d]
                out[d] = z * sigmoid(z) * (other[d] + other_bias[d]) * factors[d]


@compiled
def activate_back(
    first: int,
    last: int,
    x: Array,
    bias: Array,
    kind: int,
    mask: Mask,
    d_result: Array,
    d_x: Array,
    d_bias: Array,
) -> None:
    """Backward of `activate`: `d_x` is written, `d_bias` added to."""
    units = d_result.shape[1]
    half = (units + 1) // 2
    factors = np.empty(2 * half, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        own, other, slope, d_own, d_other = x[t, :units], x[t, -units:], d_result[t], d_x[t, :units], d_x[t, -units:]
        other_bias = bias[-units:]
        for d in range(units):
            factors[d] *= slope[d]
        if kind == RELU:
            for d in range(units):
                d_own[d] = factors[d] if own[d] + bias[d] > ZERO else ZERO
        elif kind == GELU:
            for d in range(units):
                z = own[d] + bias[d]
                power = exponential(-HALF * z * z)
                tail = above(z) * power
                density = z * power * np.float32(0.3989422804014327)
                d_own[d] = factors[d] * ((ONE - tail if z > ZERO else tail) + density)
        else:
            for d in range(units):
                z = own[d] + bias[d]
                open_ = sigmoid(z)
                d_other[d] = factors[d] * z * open_
                d_own[d] = factors[d] * (other[d] + other_bias[d]) * open_ * (ONE + z * (ONE - open_))
        row = d_x[t]
        for d in range(len(row)):
            d_bias[d] += row[d]


@compiled
def embed(
    items: Integers,
    places: Integers,
    table: Array,
    positions: Array,
    scale: np.float32,
    mask: Mask,
    x: Array,
) -> None:
    """Item embeddings times `scale`, plus positions if (places, D) has any, dropped → `x` (T, D)."""
    units = x.shape[1]
    half = (units + 1) // 2
    factors, nowhere = np.empty(2 * half, np.float32), np.zeros(units, np.float32)
    for t in range(len(x)):
        draw(mask, t * half, factors)
        item, result = table[items[t]], x[t]
        position = positions[places[t]] if len(positions) else nowhere
        for d in range(units):
            result[d] = (item[d] * scale + position[d]) * factors[d]


@compiled
def embed_back(
    items: Integers,
    places: Integers,
    scale: np.float32,
    mask: Mask,
    d_x: Array,
    d_table: Array,
    d_positions: Array,
) -> None:
    """Backward of `embed`: `d_table` and `d_positions`, which may be (0, D), are added to."""
    units = d_x.shape[1]
    half = (units + 1) // 2
    factors = np.empty(2 * half, np.float32)
    for t in range(len(d_x)):
        draw(mask, t * half, factors)
        slope, d_item = d_x[t], d_table[items[t]]
        for d in range(units):
            factors[d] *= slope[d]
            d_item[d] += factors[d] * scale
        if len(d_positions):
            d_position = d_positions[places[t]]
            for d in range(units):
                d_position[d] += factors[d]
