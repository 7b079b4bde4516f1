"""Confidence intervals of metrics: of means over users, for other users and the same model."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

from tune_srs.evaluation.resampling import CONFIDENCE, Array

# Squared deviation that is added to what was seen: as of one user more, the furthest from the mean
# that a metric allows. Where hits are rare, those that were seen say little of their spread.
UNSEEN = 1.0

PerUser = Mapping[str, npt.ArrayLike]
Intervals = dict[str, tuple[float, float]]


def mean_intervals(per_user: PerUser) -> Intervals:
    """Return the 95 % interval (low, high) of each metric's mean, from its values (U,) in [0, 1].

    Wilson's score interval (JASA 22, 1927) with the effective number of users in place of their
    number (Korn and Graubard, Survey Methodology 24, 1998): the interval of as many users with hits
    and misses alone as would know the mean as well. It is U mean (1 - mean) / variance, at least U,
    with `UNSEEN` in both sums of squares. The interval lies within [0, 1], and has a length also
    where every user has the same value.

    >>> low, high = mean_intervals({"hit@10": np.arange(100) % 2})["hit@10"]
    >>> 0.40 < low < 0.41 and 0.59 < high < 0.60
    True
    >>> low, high = mean_intervals({"hit@10": np.zeros(30)})["hit@10"]
    >>> low == 0 and 0.11 < high < 0.13
    True
    """
    values = _columns(per_user)
    users, mean = len(values), values.mean(axis=0)
    binary = users * mean * (1 - mean) + UNSEEN
    effective = users * np.maximum(binary / (_squares(values) + UNSEEN), 1)
    share = _quantile(users) ** 2 / effective
    middle = (mean + share / 2) / (1 + share)
    reach = np.sqrt(share * mean * (1 - mean) + share**2 / 4) / (1 + share)
    return _named(per_user, np.maximum(middle - reach, 0), np.minimum(middle + reach, 1))


def difference_intervals(per_user: PerUser) -> Intervals:
    """Return the 95 % interval of each mean, from differences (U,) of a metric, in [-1, 1].

    That of the paired t test, with `UNSEEN` in the sum of squares. Of hits
    alone that is nearly the interval of Agresti and Min (Statistics in Medicine 24, 2005), who add
    half a user to each of the four outcomes of a pair, of which two differ.

    >>> low, high = difference_intervals({"hit@10": np.zeros(30)})["hit@10"]
    >>> 0.06 < high < 0.08 and low == -high
    True
    """
    values = _columns(per_user)
    users, mean = len(values), values.mean(axis=0)
    reach = _quantile(users) * np.sqrt(_squares(values) + UNSEEN) / users
    return _named(per_user, np.maximum(mean - reach, -1), np.minimum(mean + reach, 1))


def _columns(per_user: PerUser) -> Array:
    """Return the values (U, M) of all metrics."""
    return np.stack([np.asarray(values, float) for values in per_user.values()], axis=1)


def _squares(values: Array) -> Array:
    """Return the sum of squares (M,) of deviations from the mean."""
    return np.asarray(((values - values.mean(axis=0)) ** 2).sum(axis=0))


def _quantile(users: int) -> float:
    """Return how many standard errors an interval reaches to either side, by Student's t."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, max(users - 1, 1)))


def _named(per_user: PerUser, low: Array, high: Array) -> Intervals:
    return {name: (float(a), float(b)) for name, a, b in zip(per_user, low, high, strict=True)}
