"""SASRec's encoder on the rows of a batch, forward and backward: `layers.py` put together.

What it computes is what `model.py` says in torch; the tests hold one to the other.

Shapes: T tokens of all rows, L tokens of one row, D units, N blocks, H heads, E = D / H units of a
head.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tune_srs.kernels.layers import (
    ONE,
    ZERO,
    Array,
    Scratch,
    Words,
    add_bias,
    add_product,
    add_sums,
    add_to,
    attend,
    attend_back,
    causal_powers,
    clear,
    compiled,
    copy_to,
    measure,
    multiply,
    normalise,
    normalise_back,
    num_attention_words,
    num_pairs,
    num_words,
    spread,
)

Integers = npt.NDArray[np.int64]


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
    copy_to(residual, normed)
    add_bias(residual, weights.output_bias[block])
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
        embed(
            items[start:stop], places[start:stop], table, positions, of_x, scale, scratch, x
        )
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
    words: Words,
    saved: Saved,
    scratch: Scratch,
    features: Array,
) -> None:
    """Without dropout: rows of `items` (B, L), aligned left → `features` (B, D) of the last token.

    `words` has 1s only.
    """
    blocks, _, units = weights.query.shape[:3]
    most = len(positions)
    for row in range(first, last):
        length = lengths[row]
        count = num_words(length * units)
        x, places = saved.x[0, :length], np.arange(most - length, most)
        embed(items[row, :length], places, table, positions, words[:count], ONE, scratch, x)
        for block in range(blocks - 1):
            attention_block(block, 0, length, 0, words, ONE, weights, saved, scratch)
            feed_forward_block(block, 0, length, words[: 2 * count], ONE, weights, saved, scratch)
        attention_block_last(blocks - 1, length, weights, turned, saved, scratch)
        count = num_words(units)
        feed_forward_block(blocks - 1, 0, 1, words[: 2 * count], ONE, weights, saved, scratch)
        moments = saved.last_moments[:1]
        measure(saved.x[blocks, :1], moments)
        normalise(saved.x[blocks, :1], moments, weights.norm, features[row : row + 1])
