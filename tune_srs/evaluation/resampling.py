"""Resampling: how far a mean over a sample can be trusted. Pure functions.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: chapter 13 for the percentile
interval, chapter 15 for permutation tests.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
RESAMPLES = 9_999  # with the sample itself 10,000
ROWS = 256  # resamples, or rows of random signs, at once


def bootstrap(values: Array, seed: int = 0) -> tuple[Array, Array]:
    """Return the ends of the interval of the mean of each column of `values` (U, M): (M,) each.

    Percentiles of the means of resampled rows, which of a mean over hundreds of users are what
    corrected intervals are. Rows are drawn with replacement, the same for all columns, so that
    these stay paired.
    """
    random = np.random.default_rng(seed)
    means = [_resampled_means(values, count, random) for count in _chunks(RESAMPLES)]
    low, high = np.quantile(np.concatenate(means), TAILS, axis=0)
    return low, high


def _resampled_means(values: Array, count: int, random: np.random.Generator) -> Array:
    """Return means (count, M) of as many resamples of the rows of `values` (U, M)."""
    users = len(values)
    drawn = random.integers(users, size=(count, users)) + np.arange(count)[:, None] * users
    times = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
    means: Array = times @ values / users
    return means


def sign_flip(values: Array, seed: int = 0) -> Array:
    """Return the p value of the mean of `values` (..., n) being 0: the paired permutation test.

    The share of all 2^n signs of the values that give a mean as far from 0; where these are more
    than `RESAMPLES`, of so many random ones, the signs that were seen included (Davison and
    Hinkley's Monte Carlo p). It assumes that differences are as likely as their opposites, and no
    normal distribution.
    """
    rows = values.reshape(-1, values.shape[-1])
    size = rows.shape[-1]
    exact = 2**size <= RESAMPLES
    seen = np.abs(rows.sum(axis=-1)) * (1 - 1e-12)  # sums of equal sets of numbers are ties
    as_far = np.zeros(len(rows), dtype=np.int64)
    for signs in [_all_signs(size)] if exact else _random_signs(size, seed):
        as_far += (np.abs(signs @ rows.T) >= seen).sum(axis=0)
    p = as_far / 2**size if exact else (1 + as_far) / (1 + RESAMPLES)
    return p.reshape(values.shape[:-1])


def _all_signs(size: int) -> Array:
    """Return the (2^size, size) combinations of 1 and -1."""
    bits = np.arange(2**size)[:, None] >> np.arange(size) & 1
    return np.where(bits, -1.0, 1.0)


def _random_signs(size: int, seed: int) -> Iterator[Array]:
    """Yield rows of random signs (B, size), together `RESAMPLES`."""
    random = np.random.default_rng(seed)
    for count in _chunks(RESAMPLES):
        yield np.where(random.integers(0, 2, (count, size), dtype=np.int8), 1.0, -1.0)


def _chunks(total: int) -> list[int]:
    """Return sizes of at most `ROWS` that add up to `total`."""
    return [min(ROWS, total - done) for done in range(0, total, ROWS)]
