"""What stands around an encoder's matrix products, forward and backward, token by token.

Biases, activations, dropout, gates, residuals, layer norms, embeddings; `model/padded.py` says the
same in torch, and the tests hold one to the other. Tuples are unpacked before a loop: in it, Numba
would count the references of all their arrays for each token.

Shapes: T tokens of all rows, D units, F inner units, I items.
"""

from typing import NamedTuple

import numpy as np

from tune_srs.kernels.arithmetic import ALL, HALF, ONE, ZERO, Mask, draw, exponential, fill, sigmoid
from tune_srs.kernels.compiled import Array, Integers, compiled

RELU, GELU, SWIGLU = range(3)
EPSILON = np.float32(1e-8)  # of the layer norms


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
def join(first: int, last: int, given: Sublayer, mask: Mask, normed: Array) -> None:
    """Write base + dropped(added + bias) * sigmoid(gate + bias), and its norm to `normed`."""
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
def active(x: np.float32, kind: int) -> np.float32:
    if kind == RELU:
        return ZERO if x < ZERO else x
    return x * (below(x) if kind == GELU else sigmoid(x))


@compiled
def slope_of(x: np.float32, kind: int) -> np.float32:
    """The derivative of `active`."""
    if kind == RELU:
        return ONE if x > ZERO else ZERO
    if kind == GELU:
        return below(x) + x * np.float32(0.3989422804014327) * exponential(-HALF * x * x)
    share = sigmoid(x)
    return share + x * share * (ONE - share)


@compiled
def activate(
    first: int, last: int, x: Array, bias: Array, kind: int, mask: Mask, result: Array
) -> None:
    """Activation `kind` of `x` (T, F) + `bias` (F,), dropped → `result` (T, F).

    SwiGLU's result is (T, F / 2): swish of the first half times the second half.
    """
    units = result.shape[1]
    half, other_bias = (units + 1) // 2, bias[-units:]
    factors = np.ones(2 * half, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        other = x[t, -units:]
        for d in range(units):
            result[t, d] = active(x[t, d] + bias[d], kind) * factors[d]
        for d in range(units if kind == SWIGLU else 0):
            result[t, d] *= other[d] + other_bias[d]


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
    half, other_bias = (units + 1) // 2, bias[-units:]
    factors, slope = np.ones(2 * half, np.float32), np.empty(units, np.float32)
    for t in range(first, last):
        draw(mask, t * half, factors)
        other, d_other = x[t, -units:], d_x[t, -units:]
        for d in range(units):
            slope[d] = d_result[t, d] * factors[d]
        for d in range(units if kind == SWIGLU else 0):
            d_other[d] = slope[d] * active(x[t, d] + bias[d], kind)
            slope[d] *= other[d] + other_bias[d]
        for d in range(units):
            d_x[t, d] = slope[d] * slope_of(x[t, d] + bias[d], kind)
        for d in range(len(bias)):
            d_bias[d] += d_x[t, d]


@compiled
def embed(
    where: Integers, table: Array, positions: Array, scale: np.float32, mask: Mask, x: Array
) -> None:
    """Rows of `table` (I, D) times `scale`, plus rows of `positions`, dropped → `x` (T, D).

    Which rows: `where` (2, T). Without positions, these are (0, D).
    """
    units = x.shape[1]
    half, nowhere = (units + 1) // 2, np.zeros(units, np.float32)
    factors = np.ones(2 * half, np.float32)
    for t in range(len(x)):
        draw(mask, t * half, factors)
        item, position = table[where[0, t]], positions[where[1, t]] if len(positions) else nowhere
        for d in range(units):
            x[t, d] = (item[d] * scale + position[d]) * factors[d]


@compiled
def embed_back(
    where: Integers, d_table: Array, d_positions: Array, scale: np.float32, mask: Mask, d_x: Array
) -> None:
    """Backward of `embed`: `d_table` and `d_positions` are added to."""
    units = d_x.shape[1]
    half, nowhere = (units + 1) // 2, np.zeros(units, np.float32)
    factors = np.ones(2 * half, np.float32)
    for t in range(len(d_x)):
        draw(mask, t * half, factors)
        d_item = d_table[where[0, t]]
        d_position = d_positions[where[1, t]] if len(d_positions) else nowhere
        for d in range(units):
            d_item[d] += d_x[t, d] * factors[d] * scale
        for d in range(units):
            d_position[d] += d_x[t, d] * factors[d]
