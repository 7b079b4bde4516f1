"""Confidence intervals of metrics: of means over users, by the bootstrap."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tune_srs.evaluation.resampling import FEW_RESAMPLES, TAILS, bootstrap

MANY_USERS = 10_000  # from here on the normal distribution, which resampled means tend to


def mean_intervals(
    per_user: Mapping[str, npt.ArrayLike], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval (low, high) of each metric's mean, from its values (U,) per user.

    >>> low, high = mean_intervals({"hit@10": np.arange(100) % 2})["hit@10"]
    >>> 0.38 < low < 0.42 and 0.58 < high < 0.62
    True
    """
    values = np.stack([np.asarray(value, float) for value in per_user.values()], axis=1)  # (U, M)
    if len(values) < MANY_USERS:
        low, high = bootstrap(values, FEW_RESAMPLES, seed)
    else:
        error = values.std(axis=0) / np.sqrt(len(values))
        low, high = (values.mean(axis=0) + NormalDist().inv_cdf(tail) * error for tail in TAILS)
    return {name: (float(a), float(b)) for name, a, b in zip(per_user, low, high, strict=True)}
