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
    step: np.uint32  # odd
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
    lane: Array  # (TILE,)
    other_lane: Array


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
def fill(x: Array, value: np.float32) -> None:
    """`x[:] = value`, which itself takes five times as long."""
    for i in range(len(x)):
        x[i] = value


@compiled
def draw(mask: Mask, first: int, factors: Array) -> None:
    """Write dropout's factors: `scale` with the chance to be kept, otherwise 0.

    Word n = `first` + i decides on element i and on i + half the (even) number of them, by 16 bits
    each: the hash lowbias32 (C. Wellons, hash-prospector) of key + n step. Where nothing is dropped,
    `factors` stay as they are.
    """
    half = len(factors) // 2
    low, high = factors[:half], factors[half:]
    if mask.kept == ALL:
        return
    start = np.uint32(np.uint32(first) * mask.step + (mask.key ^ np.uint32(first >> 32)))
    for i in range(half):
        x = np.uint32(start + np.uint32(np.uint32(i) * mask.step))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
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
    parts, _, tiles, pieces, inverse, top = room
    units = pieces.shape[1] // TILE
    for row in range(first, last):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        at, kept = (starts[row], 1) if len(starts) else (0, 0)
        q = parts[0, : length * units].reshape(length, units)
        k = parts[1, : length * units].reshape(length, units)
        v = parts[2, : length * units].reshape(length, units)
        for head in range(mixed.shape[1] // units):
            load_head(given, head, start, q, k, v)
            for low in range(0, length, TILE):
                stop = min(low + TILE, length)
                count = stop - low
                size = count * stop
                q_t = pieces[0, : units * count].reshape(units, count)
                seen = pieces[1, : units * count].reshape(count, units)
                weights = pairs[at : at + size].reshape(stop, count)
                transpose(q[low:stop], q_t)
                np.dot(k[:stop], q_t, weights)
                causal_powers(weights, low, inverse, top)
                dropped = drop(mask, at, tiles[0, : size + size % 2], weights, inverse)
                np.dot(dropped.T, v[:stop], seen)
                for i in range(count):
                    result = mixed[start + low + i, head * units : (head + 1) * units]
                    for e in range(units):
                        result[e] = seen[i, e]
                at += kept * size


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
    parts, slopes, tiles, pieces, sums, _ = room
    units, angles = pieces.shape[1] // TILE, given.angles
    d_query, d_key_value, key, d_bias, _ = d_given
    width, root = d_bias.shape[1], ONE / np.sqrt(np.float32(units))
    for row in range(first, last):
        start, length, at = offsets[row], offsets[row + 1] - offsets[row], starts[row]
        q = parts[0, : length * units].reshape(length, units)
        k = parts[1, : length * units].reshape(length, units)
        v = parts[2, : length * units].reshape(length, units)
        d_q = slopes[0, : length * units].reshape(length, units)
        d_k = slopes[1, : length * units].reshape(length, units)
        d_v = slopes[2, : length * units].reshape(length, units)
        for head in range(width // units):
            column, own = head * units, slice(head * units, (head + 1) * units)
            load_head(given, head, start, q, k, v)
            fill(slopes[1, : length * units], ZERO)
            fill(slopes[2, : length * units], ZERO)
            for low in range(0, length, TILE):
                stop = min(low + TILE, length)
                count = stop - low
                size = count * stop
                d_seen = pieces[0, : units * count].reshape(count, units)
                d_seen_t = pieces[1, : units * count].reshape(units, count)
                part = slopes[3, : stop * units].reshape(stop, units)
                weights = pairs[at : at + size].reshape(stop, count)
                slope = tiles[1, :size].reshape(stop, count)
                for i in range(count):
                    result, grad = mixed[start + low + i, own], d_mixed[start + low + i, own]
                    total = ZERO
                    for e in range(units):
                        d_seen[i, e] = grad[e]
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
            store(d_q, root, start, d_query, column, d_bias[0, own])
            store(d_k, ONE, start, d_key_value, key + column, d_bias[1, own])
            store(d_v, ONE, start, d_key_value, key + width + column, d_bias[2, own])


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
def join(first: int, last: int, given: Sublayer, mask: Mask, normed: Array) -> None:
    """base + dropped(added + bias) * sigmoid(gate + bias) → `given.total`, its norm → `normed`."""
    base, added, bias, gate, gate_bias, norm, total, moments = given
    units, gain, shift = len(bias), norm[0], norm[1]
    half, share = (units + 1) // 2, ONE / np.float32(units)
    factors = np.ones(2 * half, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        for d in range(units if len(gate) else 0):
            factors[d] *= sigmoid(gate[t, d] + gate_bias[d])
        for d in range(units):
            total[t, d] = base[t, d] + (added[t, d] + bias[d]) * factors[d]
        mean, squares = ZERO, ZERO
        for d in range(units):
            mean += total[t, d] * share
        for d in range(units):
            squares += (total[t, d] - mean) * (total[t, d] - mean)
        inverse = ONE / np.sqrt(squares * share + EPSILON)
        moments[t, 0], moments[t, 1] = mean, inverse
        for d in range(units):
            normed[t, d] = (total[t, d] - mean) * inverse * gain[d] + shift[d]
        if mask.kept == ALL and len(gate):
            fill(factors, ONE)


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
    """Backward of `join`, from gradients (T, D) of both results; that of the sum may be (0, D).

    In `d_given`, those of `base`, `added` (unless it is (0, D)) and `gate` are written; those of
    `bias`, `gate_bias` and `norm` are added to.
    """
    _, added, bias, gate, gate_bias, norm, total, moments = given
    d_base, d_added, d_bias, d_gate, d_gate_bias, d_norm, _, _ = d_given
    units, gain, d_gain, d_shift = len(bias), norm[0], d_norm[0], d_norm[1]
    half, share = (units + 1) // 2, ONE / np.float32(units)
    factors, gates = np.ones(2 * half, np.float32), np.ones(units, np.float32)
    slope, along = np.empty(units, np.float32), np.empty(units, np.float32)
    for t in range(first, last):
        mean, inverse = moments[t, 0], moments[t, 1]
        mean_slope, mean_along = ZERO, ZERO
        for d in range(units):
            along[d] = (total[t, d] - mean) * inverse
            slope[d] = d_normed[t, d] * gain[d]
        for d in range(units):
            d_gain[d] += d_normed[t, d] * along[d]
            d_shift[d] += d_normed[t, d]
        for d in range(units):
            mean_slope += slope[d] * share
            mean_along += slope[d] * along[d] * share
        for d in range(units):
            slope[d] = inverse * (slope[d] - mean_slope - along[d] * mean_along)
        for d in range(units if len(d_total) else 0):
            slope[d] += d_total[t, d]
        for d in range(units):
            d_base[t, d] = slope[d]
        if len(d_added):
            draw(mask, t * half, factors)
            for d in range(units if len(gate) else 0):
                gates[d] = sigmoid(gate[t, d] + gate_bias[d])
            for d in range(units):
                slope[d] *= factors[d] * gates[d]
            for d in range(units):
                d_added[t, d] = slope[d]
        for d in range(units):
            d_bias[d] += slope[d]
        for d in range(units if len(gate) else 0):
            slope[d] *= (added[t, d] + bias[d]) * (ONE - gates[d])
            d_gate[t, d] = slope[d]
            d_gate_bias[d] += slope[d]


@compiled
def below(x: np.float32) -> np.float32:
    """The chance that a normal number is below x, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    t = ONE / (ONE + np.float32(0.3275911 * 2**-0.5) * abs(x))
    series = t * np.float32(1.061405429) + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    series = (series * t + np.float32(0.254829592)) * t * HALF * exponential(-HALF * x * x)
    return ONE - series if x > ZERO else series


@compiled
def activate(
    first: int, last: int, x: Array, bias: Array, kind: int, mask: Mask, result: Array
) -> None:
    """Activation `kind` of `x` (T, F) + `bias` (F,), dropped → `result` (T, F).

    SwiGLU's result is (T, F / 2): swish of the first half times the second half.
    """
    units = result.shape[1]
    half, own_bias, other_bias = (units + 1) // 2, bias[:units], bias[-units:]
    factors = np.ones(2 * half, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        own, other, out = x[t, :units], x[t, -units:], result[t]
        if kind == RELU:
            for d in range(units):
                z = own[d] + own_bias[d]
                out[d] = (ZERO if z < ZERO else z) * factors[d]
        elif kind == GELU:
            for d in range(units):
                z = own[d] + own_bias[d]
                out[d] = z * below(z) * factors[d]
        else:
            for d in range(units):
                z = own[d] + own_bias[d]
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
    half, own_bias, other_bias = (units + 1) // 2, bias[:units], bias[-units:]
    factors, slope = np.ones(2 * half, np.float32), np.empty(units, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        own, other, d_own, d_other = x[t, :units], x[t, -units:], d_x[t, :units], d_x[t, -units:]
        for d in range(units):
            slope[d] = d_result[t, d] * factors[d]
        if kind == RELU:
            for d in range(units):
                d_own[d] = slope[d] if own[d] + own_bias[d] > ZERO else ZERO
        elif kind == GELU:
            for d in range(units):
                z = own[d] + own_bias[d]
                density = np.float32(0.3989422804014327) * exponential(-HALF * z * z)
                d_own[d] = slope[d] * (below(z) + z * density)
        else:
            for d in range(units):
                z = own[d] + own_bias[d]
                open_ = sigmoid(z)
                d_other[d] = slope[d] * z * open_
                slope[d] *= open_ + z * open_ * (ONE - open_)
            for d in range(units):
                d_own[d] = slope[d] * (other[d] + other_bias[d])
        for d in range(len(bias)):
            d_bias[d] += d_x[t, d]


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
    """Item embeddings times `scale`, plus positions unless they are (0, D), dropped → `x` (T, D)."""
    units = x.shape[1]
    half = (units + 1) // 2
    factors, nowhere = np.ones(2 * half, np.float32), np.zeros(units, np.float32)
    for t in range(len(x)):
        draw(mask, t * half, factors)
        item, position = table[items[t]], positions[places[t]] if len(positions) else nowhere
        for d in range(units):
            x[t, d] = (item[d] * scale + position[d]) * factors[d]


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
    factors = np.ones(2 * half, np.float32)
    for t in range(len(d_x)):
        draw(mask, t * half, factors)
        d_item = d_table[items[t]]
        for d in range(units):
            d_item[d] += d_x[t, d] * factors[d] * scale
        if len(d_positions):
            d_position = d_positions[places[t]]
            for d in range(units):
                d_position[d] += d_x[t, d] * factors[d]
