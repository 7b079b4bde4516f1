"""SASRec's encoder on the rows of a batch, forward and backward, layer by layer.

What it computes is what `model.py` says in torch; the tests hold one to the other. Products are
`np.dot` into an existing array, which is BLAS; its quick cases are both factors as they are and the
first one turned, so everything here is brought into one of them.

Shapes: T tokens of all rows, L tokens of one row, D units, N blocks, H heads, E = D / H units of a
head.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tune_srs.kernels.compiled import Array, Integers, Words, compiled

TILE = 32  # queries that attention takes at a time; as many as a word has bits
EPSILON = np.float32(1e-8)  # of the layer norms
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class Weights(NamedTuple):
    """The encoder's weights of all blocks, matrices as (in, out), or their gradients."""

    attention_norm: Array  # (N, 2, D) gain and bias
    query: Array  # (N, H, D, E)
    query_bias: Array  # (N, H, E)
    key_value: Array  # (N, H, D, 2 E)
    key_value_bias: Array  # (N, H, 2 E)
    output: Array  # (N, H, E, D)
    output_bias: Array  # (N, D)
    feed_forward_norm: Array  # (N, 2, D)
    inner: Array  # (N, D, D)
    inner_bias: Array  # (N, D)
    outer: Array  # (N, D, D)
    outer_bias: Array  # (N, D)
    norm: Array  # (2, D)


class Turned(NamedTuple):
    """The matrices as (out, in), which going back multiplies with."""

    query: Array  # (N, H, E, D)
    key_value: Array  # (N, H, 2 E, D)
    output: Array  # (N, H, D, E)
    inner: Array  # (N, D, D)
    outer: Array  # (N, D, D)


class Saved(NamedTuple):
    """What going back needs of T tokens; who only goes forward needs room for one row."""

    x: Array  # (N + 1, T, D) what enters each block, and what leaves the last
    query: Array  # (N, H, T, E) divided by the root of E
    key: Array  # (N, H, T, E)
    value: Array  # (N, H, T, E)
    mixed: Array  # (N, H, T, E)
    residual: Array  # (N, T, D) what the second norm gets
    inner: Array  # (N, T, D) after dropout and ReLU
    pairs: Array  # (N, H, all that `num_pairs` counts) attention before dropout
    moments: Array  # (N, 2, T, 2) of what both norms get
    last_moments: Array  # (T, 2)


class Scratch(NamedTuple):
    """Room for one row; each thread has its own."""

    rows: Array  # (5, L, D)
    heads: Array  # (5, L * E)
    both: Array  # (L * 2 E,)
    tiles: Array  # (2, L * TILE)
    turned: Array  # (E * TILE,)
    lanes: Array  # (3, TILE)
    exponents: npt.NDArray[np.int32]  # (TILE,)
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
    """Dropout's factors, (words, 32): `scale` where a bit is 1, otherwise 0.

    Without words nothing is dropped and `mask`, which holds 1s, stays.
    """
    for w in range(len(words)):
        word = words[w]
        for bit in range(mask.shape[1]):
            mask[w, bit] = scale * np.float32((word >> np.uint32(bit)) & np.uint32(1))


@compiled
def drop_pairs(
    weights: Array, words: Words, scale: np.float32, factors: Array, dropped: Array
) -> None:
    """`weights` (m, n) times `factors` (n,), then `dropped` of it, by one word for each key."""
    for j in range(weights.shape[0]):
        word = words[j]
        for i in range(weights.shape[1]):
            bit = np.float32((word >> np.uint32(i)) & np.uint32(1))
            weights[j, i] *= factors[i]
            dropped[j, i] = weights[j, i] * (scale * bit)


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
def causal_powers(scores: Array, start: int, scratch: Scratch) -> None:
    """Softmax before its division, in place: `scores` (m keys, n queries from `start` on).

    A lane is a query, so that all is one operation for 32 of them. What each is to be multiplied
    with is left in `scratch.lanes[1]`. e^x is 2^k, made of the bits of its exponent, times 2^f of
    x / ln 2 = k + f, which is the Taylor series of e^(f ln 2), right to the last digit but one.
    """
    keys, queries = scores.shape
    top, total, exponents = scratch.lanes[0], scratch.lanes[1], scratch.exponents
    powers = exponents.view(np.float32)
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
            x = (scores[j, i] - top[i]) * np.float32(1.4426950408889634)
            x = np.float32(-127) if x < np.float32(-127) else x  # 2^-127 is 0 here
            whole = np.floor(x + HALF)
            f = (x - whole) * np.float32(0.6931471805599453)
            series = f * np.float32(1 / 720) + np.float32(1 / 120)
            series = series * f + np.float32(1 / 24)
            series = series * f + np.float32(1 / 6)
            series = series * f + HALF
            series = series * f + ONE
            scores[j, i] = series * f + ONE
            exponents[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        for i in range(queries):
            power = scores[j, i] * powers[i]
            scores[j, i] = power
            total[i] += power
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
    """softmax(query key^T, causal), dropped, times value: (L, E) each → `mixed` and `pairs`.

    Without words nothing is dropped and `pairs` is only used.
    """
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
        if len(words):
            drop_pairs(weights, words[first_word : first_word + stop], scale, inverse, dropped)
            np.dot(dropped.T, value[:stop], mixed[start:stop])
            at += size
            first_word += stop
        else:
            np.dot(weights.T, value[:stop], mixed[start:stop])
            for i in range(count):
                for e in range(units):
                    mixed[start + i, e] *= inverse[i]


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


@compiled
def row_starts(lengths: Integers, units: int, blocks: int, heads: int) -> Integers:
    """(B + 1, 3) where each row's tokens, attention weights and random words begin.

    A row's words are for its embeddings, then block by block for attention and feed-forward.
    """
    starts = np.zeros((len(lengths) + 1, 3), np.int64)
    for row in range(len(lengths)):
        length = lengths[row]
        tokens = num_words(length * units)
        words = tokens + blocks * (heads * num_attention_words(length) + 2 * tokens)
        starts[row + 1, 0] = starts[row, 0] + length
        starts[row + 1, 1] = starts[row, 1] + num_pairs(length)
        starts[row + 1, 2] = starts[row, 2] + words
    return starts


@compiled
def attend_rows(
    first: int,
    last: int,
    starts: Integers,
    query: Array,
    key: Array,
    value: Array,
    words: Words,
    scale: np.float32,
    pairs: Array,
    mixed: Array,
    scratch: Scratch,
) -> None:
    """`attend` for each head of rows `first` to `last`: (H, T, E) each, `pairs` (H, all pairs)."""
    heads = len(query)
    for row in range(first, last):
        start, stop, first_pair = starts[row, 0], starts[row + 1, 0], starts[row, 1]
        count = num_attention_words(stop - start)
        for h in range(heads):
            at = starts[row, 2] + h * count
            attend(
                query[h, start:stop],
                key[h, start:stop],
                value[h, start:stop],
                words[at : at + count],
                scale,
                pairs[h, first_pair:],
                mixed[h, start:stop],
                scratch,
            )


@compiled
def attend_rows_back(
    first: int,
    last: int,
    starts: Integers,
    query: Array,
    key: Array,
    value: Array,
    words: Words,
    scale: np.float32,
    pairs: Array,
    mixed: Array,
    scratch: Scratch,
    grad: Array,
    of_query: Array,
    of_key: Array,
    of_value: Array,
) -> None:
    """`attend_back` for the same: `grad` (H, T, E) of `mixed` → gradients of the other three."""
    heads = len(query)
    for row in range(first, last):
        start, stop, first_pair = starts[row, 0], starts[row + 1, 0], starts[row, 1]
        count = num_attention_words(stop - start)
        for h in range(heads):
            at = starts[row, 2] + h * count
            attend_back(
                grad[h, start:stop],
                query[h, start:stop],
                key[h, start:stop],
                value[h, start:stop],
                mixed[h, start:stop],
                pairs[h, first_pair:],
                words[at : at + count],
                scale,
                of_query[h, start:stop],
                of_key[h, start:stop],
                of_value[h, start:stop],
                scratch,
            )


@compiled
def attention_starts(lengths: Integers, heads: int) -> Integers:
    """(B + 1, 3) where each row's tokens, attention weights and random words begin."""
    starts = np.zeros((len(lengths) + 1, 3), np.int64)
    for row in range(len(lengths)):
        starts[row + 1, 0] = starts[row, 0] + lengths[row]
        starts[row + 1, 1] = starts[row, 1] + num_pairs(lengths[row])
        starts[row + 1, 2] = starts[row, 2] + heads * num_attention_words(lengths[row])
    return starts


@compiled
def attention_block(
    block: int,
    start: int,
    stop: int,
    first_pair: int,
    words: Words,
    scale: np.float32,
    weights: Weights,
    saved: Saved,
    scratch: Scratch,
) -> None:
    """First half of a block: what enters it → `saved.residual`, the queries' norm in between."""
    x, residual = saved.x[block, start:stop], saved.residual[block, start:stop]
    length, heads, units = stop - start, weights.query.shape[1], weights.query.shape[3]
    root = ONE / np.sqrt(np.float32(units))
    normed, part = scratch.rows[0][:length], scratch.rows[1][:length]
    both = scratch.both[: length * 2 * units].reshape(length, 2 * units)
    moments = saved.moments[block, 0, start:stop]
    measure(x, moments)
    normalise(x, moments, weights.attention_norm[block], normed)
    for t in range(length):
        for d in range(residual.shape[1]):
            residual[t, d] = normed[t, d] + weights.output_bias[block, d]
    count = num_attention_words(length)
    for h in range(heads):
        query, mixed = saved.query[block, h, start:stop], saved.mixed[block, h, start:stop]
        key, value = saved.key[block, h, start:stop], saved.value[block, h, start:stop]
        np.dot(normed, weights.query[block, h], query)
        for t in range(length):
            for e in range(units):
                query[t, e] = (query[t, e] + weights.query_bias[block, h, e]) * root
        np.dot(x, weights.key_value[block, h], both)
        for t in range(length):
            for e in range(units):
                key[t, e] = both[t, e] + weights.key_value_bias[block, h, e]
            for e in range(units):
                value[t, e] = both[t, units + e] + weights.key_value_bias[block, h, units + e]
        of_head, pairs = words[h * count : (h + 1) * count], saved.pairs[block, h, first_pair:]
        attend(query, key, value, of_head, scale, pairs, mixed, scratch)
        np.dot(mixed, weights.output[block, h], part)
        add_to(residual, part)


@compiled
def attention_block_back(
    grad: Array,
    block: int,
    start: int,
    stop: int,
    first_pair: int,
    words: Words,
    scale: np.float32,
    weights: Weights,
    turned: Turned,
    saved: Saved,
    of: Weights,
    scratch: Scratch,
    of_x: Array,
) -> None:
    """`grad` (L, D) of the residual → `of_x` (L, D), and the gradients of the weights in `of`."""
    x = saved.x[block, start:stop]
    length, heads, units = stop - start, weights.query.shape[1], weights.query.shape[3]
    root = ONE / np.sqrt(np.float32(units))
    normed, of_normed = scratch.rows[0][:length], scratch.rows[1][:length]
    part, square = scratch.rows[2][:length], scratch.square
    of_mixed = scratch.heads[0][: length * units].reshape(length, units)
    of_query = scratch.heads[1][: length * units].reshape(length, units)
    of_key = scratch.heads[2][: length * units].reshape(length, units)
    of_value = scratch.heads[3][: length * units].reshape(length, units)
    of_both = scratch.both[: length * 2 * units].reshape(length, 2 * units)
    moments = saved.moments[block, 0, start:stop]
    normalise(x, moments, weights.attention_norm[block], normed)
    add_sums(of.output_bias[block], grad)
    copy_to(of_normed, grad)
    clear(of_x)
    count = num_attention_words(length)
    for h in range(heads):
        query, mixed = saved.query[block, h, start:stop], saved.mixed[block, h, start:stop]
        key, value = saved.key[block, h, start:stop], saved.value[block, h, start:stop]
        of_head, pairs = words[h * count : (h + 1) * count], saved.pairs[block, h, first_pair:]
        add_product(of.output[block, h], mixed, grad, square)
        np.dot(grad, turned.output[block, h], of_mixed)
        attend_back(
            of_mixed,
            query,
            key,
            value,
            mixed,
            pairs,
            of_head,
            scale,
            of_query,
            of_key,
            of_value,
            scratch,
        )
        for t in range(length):
            for e in range(units):
                of_both[t, e] = of_key[t, e]
            for e in range(units):
                of_both[t, units + e] = of_value[t, e]
        multiply(of_query, root)
        add_sums(of.query_bias[block, h], of_query)
        add_product(of.query[block, h], normed, of_query, square)
        np.dot(of_query, turned.query[block, h], part)
        add_to(of_normed, part)
        add_sums(of.key_value_bias[block, h], of_both)
        add_product(of.key_value[block, h], x, of_both, square)
        np.dot(of_both, turned.key_value[block, h], part)
        add_to(of_x, part)
    norm, of_norm = weights.attention_norm[block], of.attention_norm[block]
    normalise_back(of_normed, x, moments, norm, of_norm, part)
    add_to(of_x, part)


@compiled
def attention_block_last(
    block: int, length: int, weights: Weights, turned: Turned, saved: Saved, scratch: Scratch
) -> None:
    """`attention_block` for the last token of a row alone; its residual is put at place 0.

    One query needs no keys and values of its own for every x: q (W x + b)^T = (q W) x^T + c, and c
    is the same for all x; a mean of W x + b is W times the mean, + b.
    """
    heads, units = weights.query.shape[1], weights.query.shape[3]
    root = ONE / np.sqrt(np.float32(units))
    x, residual = saved.x[block, :length], saved.residual[block, :1]
    normed, folded = scratch.rows[0][:1], scratch.rows[1][:1]
    seen, part = scratch.rows[2][:1], scratch.rows[3][:1]
    scores, inverse = scratch.tiles[0][:length].reshape(length, 1), scratch.lanes[1]
    moments = saved.moments[block, 0, :1]
    measure(x[length - 1 :], moments)
    normalise(x[length - 1 :], moments, weights.attention_norm[block], normed)
    copy_to(residual, normed)
    add_bias(residual, weights.output_bias[block])
    for h in range(heads):
        query, mixed = saved.query[block, h, :1], saved.mixed[block, h, :1]
        np.dot(normed, weights.query[block, h], query)
        add_bias(query, weights.query_bias[block, h])
        np.dot(query, turned.key_value[block, h, :units], folded)
        multiply(folded, root)
        np.dot(x, folded.reshape(-1, 1), scores)
        causal_powers(scores, length - 1, scratch)
        np.dot(scores.T, x, seen)
        multiply(seen, inverse[0])
        np.dot(seen, turned.key_value[block, h, units:].T, mixed)
        add_bias(mixed, weights.key_value_bias[block, h, units:])
        np.dot(mixed, weights.output[block, h], part)
        add_to(residual, part)


@compiled
def feed_forward_block(
    block: int,
    start: int,
    stop: int,
    words: Words,
    scale: np.float32,
    weights: Weights,
    saved: Saved,
    scratch: Scratch,
) -> None:
    """Second half of a block: `saved.residual` → what enters the next one."""
    residual, result = saved.residual[block, start:stop], saved.x[block + 1, start:stop]
    length, units = residual.shape
    normed, inner = scratch.rows[0][:length], saved.inner[block, start:stop]
    moments, count = saved.moments[block, 1, start:stop], num_words(length * units)
    mask = scratch.mask.reshape(-1)[: length * units].reshape(length, units)
    measure(residual, moments)
    normalise(residual, moments, weights.feed_forward_norm[block], normed)
    np.dot(normed, weights.inner[block], inner)
    spread(words[:count], scale, scratch.mask)
    for t in range(length):
        for d in range(units):
            z = inner[t, d] + weights.inner_bias[block, d]
            inner[t, d] = ZERO if z < ZERO else z * mask[t, d]
    np.dot(inner, weights.outer[block], result)
    spread(words[count:], scale, scratch.mask)
    for t in range(length):
        for d in range(units):
            dropped = (result[t, d] + weights.outer_bias[block, d]) * mask[t, d]
            result[t, d] = normed[t, d] + dropped


@compiled
def feed_forward_block_back(
    grad: Array,
    block: int,
    start: int,
    stop: int,
    words: Words,
    scale: np.float32,
    weights: Weights,
    turned: Turned,
    saved: Saved,
    of: Weights,
    scratch: Scratch,
    of_residual: Array,
) -> None:
    """`grad` (L, D) of the block's result → `of_residual`, and the weights' gradients in `of`."""
    residual, inner = saved.residual[block, start:stop], saved.inner[block, start:stop]
    length, units = residual.shape
    normed, slope = scratch.rows[0][:length], scratch.rows[1][:length]
    of_inner, square = scratch.rows[2][:length], scratch.square
    moments, count = saved.moments[block, 1, start:stop], num_words(length * units)
    norm, of_norm = weights.feed_forward_norm[block], of.feed_forward_norm[block]
    normalise(residual, moments, norm, normed)
    spread(words[count:], scale, scratch.mask)
    slopes, grads, masks = slope.reshape(-1), grad.reshape(-1), scratch.mask.reshape(-1)
    for i in range(length * units):
        slopes[i] = grads[i] * masks[i]
    add_sums(of.outer_bias[block], slope)
    add_product(of.outer[block], inner, slope, square)
    np.dot(slope, turned.outer[block], of_inner)
    slopes, inners = of_inner.reshape(-1), inner.reshape(-1)
    for i in range(length * units):
        slopes[i] = slopes[i] * scale if inners[i] > ZERO else ZERO
    add_sums(of.inner_bias[block], of_inner)
    add_product(of.inner[block], normed, of_inner, square)
    np.dot(of_inner, turned.inner[block], slope)
    add_to(slope, grad)
    normalise_back(slope, residual, moments, norm, of_norm, of_residual)


@compiled
def embed(
    items: Integers,
    places: Integers,
    table: Array,
    positions: Array,
    words: Words,
    scale: np.float32,
    scratch: Scratch,
    x: Array,
) -> None:
    """Item embeddings times the root of D, plus positions, dropped → `x` (L, D)."""
    length, units = x.shape
    root = np.sqrt(np.float32(units))
    mask = scratch.mask.reshape(-1)[: length * units].reshape(length, units)
    spread(words, scale, scratch.mask)
    for t in range(length):
        item, position = table[items[t]], positions[places[t]]
        for d in range(units):
            x[t, d] = (item[d] * root + position[d]) * mask[t, d]


@compiled
def encode_rows(
    first: int,
    last: int,
    starts: Integers,
    items: Integers,
    places: Integers,
    table: Array,
    positions: Array,
    weights: Weights,
    words: Words,
    scale: np.float32,
    saved: Saved,
    scratch: Scratch,
    features: Array,
) -> None:
    """Rows `first` to `last` of a batch: `items` (T,) at `places` (T,) → `features` (T, D)."""
    blocks, heads, units = weights.query.shape[:3]
    for row in range(first, last):
        start, stop, first_pair = starts[row, 0], starts[row + 1, 0], starts[row, 1]
        of_row = words[starts[row, 2] : starts[row + 1, 2]]
        tokens, attention = (
            num_words((stop - start) * units),
            heads * num_attention_words(stop - start),
        )
        x = saved.x[0, start:stop]
        of_x = of_row[:tokens]
        embed(items[start:stop], places[start:stop], table, positions, of_x, scale, scratch, x)
        at = tokens
        for block in range(blocks):
            of_block = of_row[at : at + attention + 2 * tokens]
            at += attention + 2 * tokens
            attention_block(
                block,
                start,
                stop,
                first_pair,
                of_block[:attention],
                scale,
                weights,
                saved,
                scratch,
            )
            feed_forward_block(
                block, start, stop, of_block[attention:], scale, weights, saved, scratch
            )
        moments = saved.last_moments[start:stop]
        measure(saved.x[blocks, start:stop], moments)
        normalise(saved.x[blocks, start:stop], moments, weights.norm, features[start:stop])


@compiled
def encode_rows_back(
    first: int,
    last: int,
    starts: Integers,
    items: Integers,
    places: Integers,
    weights: Weights,
    turned: Turned,
    words: Words,
    scale: np.float32,
    saved: Saved,
    scratch: Scratch,
    grad: Array,
    of_table: Array,
    of_positions: Array,
    of: Weights,
) -> None:
    """From `grad` (T, D) of the features: added to `of_table`, `of_positions` and `of`."""
    blocks, heads, units = weights.query.shape[:3]
    root = np.sqrt(np.float32(units))
    for row in range(first, last):
        start, stop, first_pair = starts[row, 0], starts[row + 1, 0], starts[row, 1]
        of_row = words[starts[row, 2] : starts[row + 1, 2]]
        length = stop - start
        tokens, attention = num_words(length * units), heads * num_attention_words(length)
        of_x, of_residual = scratch.rows[3][:length], scratch.rows[4][:length]
        moments, x = saved.last_moments[start:stop], saved.x[blocks, start:stop]
        normalise_back(grad[start:stop], x, moments, weights.norm, of.norm, of_x)
        at = len(of_row)
        for block in range(blocks - 1, -1, -1):
            at -= attention + 2 * tokens
            of_block = of_row[at : at + attention + 2 * tokens]
            feed_forward_block_back(
                of_x,
                block,
                start,
                stop,
                of_block[attention:],
                scale,
                weights,
                turned,
                saved,
                of,
                scratch,
                of_residual,
            )
            attention_block_back(
                of_residual,
                block,
                start,
                stop,
                first_pair,
                of_block[:attention],
                scale,
                weights,
                turned,
                saved,
                of,
                scratch,
                of_x,
            )
        mask = scratch.mask.reshape(-1)[: length * units].reshape(length, units)
        spread(of_row[:tokens], scale, scratch.mask)
        for t in range(length):
            of_item, of_position = of_table[items[start + t]], of_positions[places[start + t]]
            for d in range(units):
                slope = of_x[t, d] * mask[t, d]
                of_position[d] += slope
                of_item[d] += slope * root


@compiled
def encode_last_rows(
    first: int,
    last: int,
    items: Integers,
    lengths: Integers,
    table: Array,
    positions: Array,
    weights: Weights,
    turned: Turned,
    saved: Saved,
    scratch: Scratch,
    features: Array,
) -> None:
    """Without dropout: rows of `items` (B, L), aligned left → `features` (B, D) of the last token.

    `scratch.mask` holds 1s.
    """
    no_words = np.empty(0, np.uint32)
    blocks, most = len(weights.query), len(positions)
    for row in range(first, last):
        length = lengths[row]
        x, places = saved.x[0, :length], np.arange(most - length, most)
        embed(items[row, :length], places, table, positions, no_words, ONE, scratch, x)
        for block in range(blocks - 1):
            attention_block(block, 0, length, 0, no_words, ONE, weights, saved, scratch)
            feed_forward_block(block, 0, length, no_words, ONE, weights, saved, scratch)
        attention_block_last(blocks - 1, length, weights, turned, saved, scratch)
        feed_forward_block(blocks - 1, 0, 1, no_words, ONE, weights, saved, scratch)
        moments = saved.last_moments[:1]
        measure(saved.x[blocks, :1], moments)
        normalise(saved.x[blocks, :1], moments, weights.norm, features[row : row + 1])
