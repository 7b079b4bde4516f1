"""How far a mean over users and seeds can be trusted, and when a difference is significant.

`values` (..., S, U) holds the difference of a metric between two configurations, for S trainings
with different seeds and for U users. Both are samples: of all possible trainings, and of all
possible users. So there are three questions:

- `crossed`: would the difference hold for other users *and* other seeds? This is the main one.
  Treating either as fixed gives intervals that are too short, since a lucky training shifts all
  users alike.
- `sign_flip` and `bootstrap` in `resampling`, on means over seeds: would it hold for other users
  of the same models?
- `over_seeds` and `exact_over_seeds`, on means over users: would it hold for other trainings and
  the same users?

Leading dimensions are independent tables. Everything is a pure function.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tune_srs.evaluation.resampling import CONFIDENCE, Array, sign_flip

RESOLUTION = 6  # least number of seeds for which an exact test can fall below 0.05: 2 / 2^6


@dataclass(frozen=True)
class Estimate:
    """An estimated mean, which follows a t distribution around the true one."""

    mean: Array
    error: Array  # standard error
    freedom: Array  # degrees of freedom

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""
        return Estimate(factor * self.mean, factor * self.error, self.freedom)

    @property
    def interval(self) -> tuple[Array, Array]:
        """Both ends of the confidence interval, at `CONFIDENCE`."""
        return self.mean - self.reach, self.mean + self.reach

    @property
    def reach(self) -> Array:
        """Half the length of the interval."""
        return np.asarray(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error)

    @property
    def p(self) -> Array:
        """The two-sided p value of the mean being 0; 1 where nothing differs at all."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = 2 * stats.t.sf(np.abs(self.mean / self.error), self.freedom)
        return np.where((self.mean == 0) & (self.error == 0), 1.0, value)


def crossed(values: Array) -> Estimate:
    """Return the mean of `values` (..., S, U) for other seeds and users; its error is NaN if S < 2.

    Seeds and users are crossed random effects. With the mean squares of the two-way table, and
    more = max(MS_users - MS_rest, 0), the variance of the mean is (MS_seeds + more) / (S U), and it
    has (MS_seeds + more)^2 / (MS_seeds^2 / (S - 1)) degrees of freedom: Hillis, Statistics in
    Medicine 26 (2007), where readers are what seeds are here, and cases what users are.

    In the degrees of freedom, MS_seeds counts as at least MS_rest, its least possible expectation.
    Otherwise seeds that agree by chance would shorten the interval twice, and a family of
    comparisons of three seeds would find something in null data in 11 % of cases instead of at
    most 5 % (the tests simulate this). For the same reason the interval is never shorter than the
    one for other users alone, from MS_users / (S U) with U - 1 degrees of freedom.
    """
    seeds, users = values.shape[-2:]
    mean = values.mean(axis=(-2, -1))
    if seeds < 2 or users < 2:
        return _unknown(mean)
    of_seed, of_user = values.mean(axis=-1), values.mean(axis=-2)
    rest = values - of_seed[..., None] - of_user[..., None, :] + mean[..., None, None]
    ms_seeds = users * of_seed.var(axis=-1, ddof=1)
    ms_users = seeds * of_user.var(axis=-1, ddof=1)
    ms_rest = (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (users - 1))
    more = np.maximum(ms_users - ms_rest, 0)
    floored = np.maximum(ms_seeds, ms_rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = ((floored + more) / floored) ** 2 * (seeds - 1)
    freedom = np.where(floored == 0, seeds - 1, freedom)
    both = Estimate(mean, np.sqrt((ms_seeds + more) / (seeds * users)), freedom)
    alone = Estimate(mean, np.sqrt(ms_users / (seeds * users)), np.full_like(mean, users - 1))
    shorter = both.reach < alone.reach
    error = np.where(shorter, alone.error, both.error)
    return Estimate(mean, error, np.where(shorter, alone.freedom, both.freedom))


def over_seeds(values: Array) -> Estimate:
    """Return the mean of `values` (..., S, U) for other seeds, same users: a t test of S means."""
    means = values.mean(axis=-1)
    seeds = means.shape[-1]
    mean = means.mean(axis=-1)
    if seeds < 2:
        return _unknown(mean)
    error = means.std(axis=-1, ddof=1) / np.sqrt(seeds)
    return Estimate(mean, error, np.full_like(mean, seeds - 1))


def exact_over_seeds(values: Array) -> Array:
    """Return the p value of the same question by a test of the signs of S means.

    It is NaN where there are too few seeds to fall below 0.05. See `resampling.sign_flip`.
    """
    means = values.mean(axis=-1)
    if means.shape[-1] < RESOLUTION:
        return np.full(means.shape[:-1], np.nan)
    return sign_flip(means)


def relative(values: Array, reference: Array) -> Estimate:
    """Return the relative difference of `values` (..., S, U) from the reference; 0.01 is 1 %.

    It is a ratio of two means, for other seeds and users. Its error comes from the delta method,
    since both means are uncertain.
    """
    scale = reference.mean(axis=(-2, -1))[..., None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values.mean(axis=(-2, -1))[..., None, None] / scale
        deviations = crossed((values - ratio * reference) / scale)
    return Estimate(ratio[..., 0, 0] - 1, deviations.error, deviations.freedom)


def unpaired(one: Estimate, other: Estimate) -> Estimate:
    """Return `one` minus `other`, which share neither users nor trainings: Welch's t test."""
    variances = one.error**2, other.error**2
    total = variances[0] + variances[1]
    parts = variances[0] ** 2 / one.freedom + variances[1] ** 2 / other.freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(total == 0, one.freedom + other.freedom, total**2 / parts)
    return Estimate(one.mean - other.mean, np.sqrt(total), freedom)


def holm(p: Array) -> Array:
    """Return the p values (n,) of a family, adjusted (Holm, Scand. J. Statistics 6, 1979).

    Rejecting everything below 0.05 rejects any true hypothesis of the family in at most 5 % of
    cases, however the tests depend on each other. NaN stays NaN and does not count.
    """
    adjusted = np.full_like(p, np.nan)
    (tested,) = np.nonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _unknown(mean: Array) -> Estimate:
    """Return an estimate without an error: one training, or one user, shows no variation."""
    return Estimate(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
