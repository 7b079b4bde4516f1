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

FEWEST = 3  # least number of seeds for a statement about other seeds: 2 leave 1 degree of freedom
CAUTION = 0.9  # confidence of the limit that stands for the luck of seeds in degrees of freedom
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
        """Both ends of the confidence interval, at `CONFIDENCE`.

        NaN where nothing varies, as in a metric that is 0 for everybody: that does not tell how far
        others would.
        """
        reach = np.where(self.error == 0, np.nan, self.reach)
        return self.mean - reach, self.mean + reach

    @property
    def reach(self) -> Array:
        """Half the length of the interval."""
        return np.asarray(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error)

    @property
    def p(self) -> Array:
        """The two-sided p value of the mean being 0.

        1 where nothing differs at all; NaN where everything differs alike.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = 2 * stats.t.sf(np.abs(self.mean / self.error), self.freedom)
        return np.where(self.error == 0, np.where(self.mean == 0, 1.0, np.nan), value)


@dataclass(frozen=True)
class MeanSquares:
    """What the two-way table of S seeds and U users says of its mean; (...) each."""

    seeds: int
    users: int
    mean: Array
    of_seeds: Array
    of_users: Array
    rest: Array

    @classmethod
    def of(cls, values: Array) -> "MeanSquares":
        """Return the mean squares of `values` (..., S, U), with S and U at least 2."""
        seeds, users = values.shape[-2:]
        mean = values.mean(axis=(-2, -1))
        of_seed, of_user = values.mean(axis=-1), values.mean(axis=-2)
        rest = values - of_seed[..., None] - of_user[..., None, :] + mean[..., None, None]
        return cls(
            seeds,
            users,
            mean,
            users * of_seed.var(axis=-1, ddof=1),
            seeds * of_user.var(axis=-1, ddof=1),
            (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (users - 1)),
        )

    def estimate(self) -> Estimate:
        """Return the mean for other seeds and users, see `crossed`."""
        cells = self.seeds * self.users
        more = np.maximum(self.of_users - self.rest, 0)
        cautious = np.maximum(self._upper_limit_of_seeds(), self.rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = ((cautious + more) / cautious) ** 2 * (self.seeds - 1)
        freedom = np.where(cautious == 0, self.seeds - 1, freedom)
        both = Estimate(self.mean, np.sqrt((self.of_seeds + more) / cells), freedom)
        of_users = np.full_like(self.mean, self.users - 1)
        alone = Estimate(self.mean, np.sqrt(self.of_users / cells), of_users)
        shorter = both.reach < alone.reach
        error = np.where(shorter, alone.error, both.error)
        return Estimate(self.mean, error, np.where(shorter, alone.freedom, both.freedom))

    def _upper_limit_of_seeds(self) -> Array:
        """Return the upper limit of what the mean square of the seeds expects, at `CAUTION`."""
        freedom = self.seeds - 1
        return np.asarray(self.of_seeds * freedom / stats.chi2.ppf(1 - CAUTION, freedom))


def crossed(values: Array) -> Estimate:
    """Return the mean of `values` (..., S, U) for other seeds and users.

    Its error is NaN for fewer than `FEWEST` seeds or 2 users. Seeds and users are crossed random
    effects. With the mean squares of the two-way table, and more = max(MS_users - MS_rest, 0), the
    variance of the mean is (MS_seeds + more) / (S U), and it has
    (MS_seeds + more)^2 / (MS_seeds^2 / (S - 1)) degrees of freedom: Hillis, Statistics in Medicine
    26 (2007), where readers are what seeds are here, and cases what users are.

    In the degrees of freedom, MS_seeds stands at the upper end of its one-sided 90 % interval,
    MS_seeds (S - 1) / chi2_0.1(S - 1), and at no less than MS_rest, its least possible expectation.
    Otherwise a few seeds that agree by chance would shorten the interval twice, by the error and by
    the degrees of freedom, and a family of comparisons would find something in null data in up to
    13 % of cases instead of 5 % (`benchmarks/significance.py`). For the same reason the interval is
    never shorter than the one for other users alone, from MS_users / (S U) with U - 1 degrees of
    freedom.
    """
    seeds, users = values.shape[-2:]
    if seeds < FEWEST or users < 2:
        return _unknown(values.mean(axis=(-2, -1)))
    return MeanSquares.of(values).estimate()


def over_seeds(values: Array) -> Estimate:
    """Return the mean of `values` (..., S, U) for other seeds, same users: a t test of S means.

    Its error is NaN for fewer than `FEWEST` seeds. The t test of two means has the right level, but
    its critical value of 12.7 errors, and the difference of just two trainings as the error, make
    an interval whose length is itself a matter of luck.
    """
    means = values.mean(axis=-1)
    seeds = means.shape[-1]
    mean = means.mean(axis=-1)
    if seeds < FEWEST:
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


def holm(p: Array, size: int) -> Array:
    """Return the p values (n,) of a family, adjusted (Holm, Scand. J. Statistics 6, 1979).

    Rejecting everything below 0.05 rejects any true hypothesis of the family in at most 5 % of
    cases, however the tests depend on each other. The family has `size` tests, also those that are
    still to come or have failed, whose p is NaN and stays NaN.
    """
    adjusted = np.full_like(p, np.nan)
    (tested,) = np.nonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * (size - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _unknown(mean: Array) -> Estimate:
    """Return an estimate without an error: too few trainings, or one user, do not tell."""
    return Estimate(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
