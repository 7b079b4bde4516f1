"""Confidence intervals of means over users, by the bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile interval.
"""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 2000
DRAWS = 2**22  # users drawn at once
MANY_USERS = 10_000  # from here on the normal distribution, which resampled means tend to


def mean_intervals(
    per_user: Mapping[str, npt.ArrayLike], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Of each metric's mean its 95 % interval (low, high), from values (U,) a user.

    Users are drawn with replacement, the same for all metrics, so that these stay paired.

    >>> low, high = mean_intervals({"hit@10": np.arange(100) % 2})["hit@10"]
    >>> 0.38 < low < 0.42 and 0.58 < high < 0.62
    True
    """
    values = np.stack([np.asarray(value, float) for value in per_user.values()], axis=1)  # (U, M)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    if len(values) < MANY_USERS:
        low, high = np.quantile(_bootstrapped(values, np.random.default_rng(seed)), tails, axis=0)
    else:
        error = values.std(axis=0) / np.sqrt(len(values))
        low, high = (values.mean(axis=0) + NormalDist().inv_cdf(tail) * error for tail in tails)
    return {name: (float(a), float(b)) for name, a, b in zip(per_user, low, high, strict=True)}


def _bootstrapped(
    values: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means (RESAMPLES, M) of resampled users of `values` (U, M)."""
    at_once = max(1, DRAWS // len(values))
    sizes = [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]
    return np.concatenate([_resampled_means(values, size, random) for size in sizes])


def _resampled_means(
    values: npt.NDArray[np.float64], size: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means (size, M) of as many resamples of the rows of `values` (U, M)."""
    users = len(values)
    drawn = random.integers(users, size=(size, users)) + np.arange(size)[:, None] * users
    times = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
    means: npt.NDArray[np.float64] = times @ values / users
    return means
