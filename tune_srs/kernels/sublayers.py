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

TOKENS = 16  # whose dropout is drawn at a time
RELU, GELU, SWIGLU = range(3)  # each has loops of its own: a choice within one is not vectorised
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
def factors_of(mask: Mask, t: int, first: int, factors: Array) -> Array:
    """Dropout's factors (D,) of token t; the next ones are drawn when `TOKENS` of them are used."""
    if t == first or t % TOKENS == 0:
        draw(mask, t // TOKENS * (factors.size // 2), factors.reshape(-1))
    factor: Array = factors[t % TOKENS]
    return factor


@compiled
def join(first: int, last: int, given: Sublayer, mask: Mask, normed: Array) -> None:
    """Write base + dropped(added + bias) * sigmoid(gate + bias), and its norm to `normed`."""
    base, added, bias, gate, gate_bias, norm, total, moments = given
    units, gain, shift = len(bias), norm[0], norm[1]
    share = ONE / np.float32(units)
    factors = np.ones((TOKENS, units), np.float32)
    for t in range(first, last):
        factor = factors_of(mask, t, first, factors)
        for d in range(units if len(gate) else 0):
            factor[d] *= sigmoid(gate[t, d] + gate_bias[d])
        for d in range(units):
            total[t, d] = base[t, d] + (added[t, d] + bias[d]) * factor[d]
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
            fill(factor, ONE)


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
    share = ONE / np.float32(units)
    factors, gates = np.ones((TOKENS, units), np.float32), np.ones(units, np.float32)
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
            factor = factors_of(mask, t, first, factors)
            for d in range(units if len(gate) else 0):
                gates[d] = sigmoid(gate[t, d] + gate_bias[d])
            for d in range(units):
                slope[d] *= factor[d] * gates[d]
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
    own_bias, other_bias = bias[:units], bias[-units:]
    factors = np.ones((TOKENS, units), np.float32)
    for t in range(first, last):
        factor = factors_of(mask, t, first, factors)
        own, other, row = x[t, :units], x[t, -units:], result[t]
        if kind == RELU:
            for d in range(units):
                z = own[d] + own_bias[d]
                row[d] = (ZERO if z < ZERO else z) * factor[d]
        elif kind == GELU:
            for d in range(units):
                z = own[d] + own_bias[d]
                row[d] = z * below(z) * factor[d]
        else:
            for d in range(units):
                z = own[d] + own_bias[d]
                row[d] = z * sigmoid(z) * (other[d] + other_bias[d]) * factor[d]


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
    own_bias, other_bias = bias[:units], bias[-units:]
    factors, slope = np.ones((TOKENS, units), np.float32), np.empty(units, np.float32)
    for t in range(first, last):
        factor = factors_of(mask, t, first, factors)
        own, other, d_own, d_other = x[t, :units], x[t, -units:], d_x[t, :units], d_x[t, -units:]
        for d in range(units):
            slope[d] = d_result[t, d] * factor[d]
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
                share = sigmoid(z)
                d_other[d] = slope[d] * z * share
                slope[d] *= share + z * share * (ONE - share)
            for d in range(units):
                d_own[d] = slope[d] * (other[d] + other_bias[d])
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
    factors, nowhere = np.ones((TOKENS, units), np.float32), np.zeros(units, np.float32)
    for t in range(len(x)):
        factor = factors_of(mask, t, 0, factors)
        item, position = table[where[0, t]], positions[where[1, t]] if len(positions) else nowhere
        for d in range(units):
            x[t, d] = (item[d] * scale + position[d]) * factor[d]


@compiled
def embed_back(
    where: Integers, d_table: Array, d_positions: Array, scale: np.float32, mask: Mask, d_x: Array
) -> None:
    """Backward of `embed`: `d_table` and `d_positions` are added to."""
    units = d_x.shape[1]
    factors, nowhere = np.ones((TOKENS, units), np.float32), np.zeros(units, np.float32)
    for t in range(len(d_x)):
        factor = factors_of(mask, t, 0, factors)
        d_item = d_table[where[0, t]]
        d_position = d_positions[where[1, t]] if len(d_positions) else nowhere
        for d in range(units):
            d_item[d] += d_x[t, d] * factor[d] * scale
        for d in range(units):
            d_position[d] += d_x[t, d] * factor[d]
