"""Intervals and tests, held to scipy, to full enumeration, and to simulated data without effect."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from significance import LUCKS, Family, families, family_error, mean_squares, tables_of

from tune_srs.evaluation.resampling import Array, sign_flip
from tune_srs.studies import significance
from tune_srs.studies.significance import Estimate, MeanSquares

LEVEL = 0.05
TABLES = 2000


def table(seed: int = 0, seeds: int = 5, users: int = 40) -> Array:
    """(S, U) differences with effects of both."""
    random = np.random.default_rng(seed)
    effects = 0.1 * random.normal(size=(seeds, 1)) + 0.3 * random.normal(size=users)
    return np.asarray(0.1 + effects + 0.2 * random.normal(size=(seeds, users)))


def test_crossed_is_the_two_way_table_in_plain_loops() -> None:
    values = table()
    seeds, users = values.shape
    mean = sum(values.flat) / values.size
    rows = [sum(row) / users for row in values]
    columns = [sum(column) / seeds for column in values.T]
    ms_seeds = users * sum((row - mean) ** 2 for row in rows) / (seeds - 1)
    ms_users = seeds * sum((column - mean) ** 2 for column in columns) / (users - 1)
    square = sum((x - mean) ** 2 for x in values.flat)
    rest = square - ms_seeds * (seeds - 1) - ms_users * (users - 1)
    ms_rest = rest / ((seeds - 1) * (users - 1))
    assert ms_seeds > ms_rest  # the case of the paper
    total = ms_seeds + ms_users - ms_rest
    estimate = significance.crossed(values)
    assert estimate.mean == pytest.approx(mean)
    assert estimate.error**2 == pytest.approx(total / (seeds * users))
    upper = ms_seeds * (seeds - 1) / stats.chi2.ppf(0.1, seeds - 1)
    more = ms_users - ms_rest
    assert estimate.freedom == pytest.approx((upper + more) ** 2 / (upper**2 / (seeds - 1)))


def test_crossed_is_a_t_test_where_only_seeds_differ_or_only_users() -> None:
    of_seed, of_user = np.array([0.1, 0.4, 0.2, -0.1]), np.arange(30) % 7 - 2.5
    seeds_only = significance.crossed(np.repeat(of_seed[:, None], 30, axis=1))
    same(seeds_only, stats.ttest_1samp(of_seed, 0))
    users_only = significance.crossed(np.repeat(of_user[None], 4, axis=0))
    same(users_only, stats.ttest_1samp(of_user, 0))


def test_seeds_that_agree_by_luck_make_nothing_surer_than_the_users_do() -> None:
    values = table(users=30, seeds=3)
    values = values - values.mean(axis=1, keepdims=True) + 0.1  # all trainings have one mean
    low, high = significance.crossed(values).interval
    alone = stats.ttest_1samp(values.mean(axis=0), 0).confidence_interval(0.95)
    assert low <= alone.low + 1e-12
    assert high >= alone.high - 1e-12


def test_over_seeds_is_the_t_test_of_scipy() -> None:
    same(significance.over_seeds(table()), stats.ttest_1samp(table().mean(axis=1), 0))


def same(estimate: Estimate, expected: Any) -> None:
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_unpaired_is_welchs_test_of_scipy() -> None:
    tables = table(1, seeds=4), table(2, seeds=7)
    estimate = significance.unpaired(*map(significance.over_seeds, tables))
    means = [one.mean(axis=1) for one in tables]
    same(estimate, stats.ttest_ind(*means, equal_var=False))


def test_relative_to_a_constant_is_the_difference_over_it() -> None:
    values = table()
    relative = significance.relative(values, np.full_like(values, 0.5))
    plain = significance.crossed(values / 0.5 - 1)
    assert relative.mean == pytest.approx(plain.mean)
    assert relative.interval == pytest.approx(plain.interval)


@pytest.mark.parametrize("seeds", [6, 8])
def test_the_exact_test_enumerates_all_signs(seeds: int) -> None:
    means = table(seeds=seeds).mean(axis=1)
    signs = np.array(list(itertools.product([-1, 1], repeat=seeds)))
    as_far = np.abs(signs @ means) >= abs(means.sum()) - 1e-12
    assert significance.exact_over_seeds(table(seeds=seeds)) == pytest.approx(as_far.mean())
    assert np.isnan(significance.exact_over_seeds(table(seeds=5)))


def test_equal_configurations_do_not_differ() -> None:
    nothing = np.zeros((3, 10))
    assert significance.crossed(nothing).p == significance.over_seeds(nothing).p == 1
    assert np.isnan(significance.crossed(nothing).interval).all()  # it says nothing of others
    alike = significance.crossed(np.ones((3, 10)))
    assert alike.mean == 1
    assert np.isnan(alike.p)


@pytest.mark.parametrize("seeds", [1, 2])
def test_so_few_trainings_say_nothing_of_others(seeds: int) -> None:
    few = table(seeds=seeds)
    for estimate in (significance.crossed(few), significance.over_seeds(few)):
        assert np.isnan([estimate.p, *estimate.interval]).all()
        assert estimate.mean == pytest.approx(few.mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p: list[float]) -> None:
    adjusted = significance.holm(np.array(p), len(p))
    for level in (0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for number, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[place] * (len(p) - number) > level:
                break
            rejected.add(place)
        assert rejected == {place for place, value in enumerate(adjusted) if value <= level}


def test_holm_counts_what_is_still_to_be_tested() -> None:
    adjusted = significance.holm(np.array([0.01, np.nan, 0.04]), 4)
    np.testing.assert_allclose(adjusted, [0.04, np.nan, 0.12])


def scores(seeds: int, luck: float, tables: int = 1500, configurations: int = 2) -> Array:
    """(tables, configurations, S, 120) like NDCG of equal configurations: mostly 0, and skewed.

    Users differ in how predictable they are, to all and to each configuration; `luck` is how much
    a training differs from others for all users alike.
    """
    random = np.random.default_rng(0)
    users = 120
    able = 1.5 * random.normal(size=(tables, 1, 1, users))
    own = 0.5 * random.normal(size=(tables, configurations, 1, users))
    lucky = luck * random.normal(size=(tables, configurations, seeds, 1))
    shape = (tables, configurations, seeds, users)
    hit = random.random(shape) < 1 / (1 + np.exp(1 - able - own - lucky))
    return np.asarray(hit * random.beta(0.8, 2.5, shape))


def differences(seeds: int, luck: float) -> Array:
    both = scores(seeds, luck)
    return np.asarray(both[:, 1] - both[:, 0])


def holds(p: Array, least: float = LEVEL) -> None:
    """As many are below 0.05 as chance allows for, between a rate of `least` and the nominal."""
    rejected = int((p < LEVEL).sum())
    assert rejected <= stats.binom.ppf(0.999, len(p), LEVEL)
    assert rejected >= stats.binom.ppf(0.001, len(p), least)


@pytest.mark.parametrize(("seeds", "luck"), [(3, 0.1), (5, 0.0), (5, 0.3), (10, 0.1)])
def test_the_headline_holds_its_level_whatever_varies(seeds: int, luck: float) -> None:
    holds(significance.crossed(differences(seeds, luck)).p, least=0.01)


def test_intervals_of_the_ratio_cover_it() -> None:
    both = scores(5, 0.1)
    low, high = significance.relative(both[:, 1], both[:, 0]).interval
    holds(np.where((low > 0) | (high < 0), 0.0, 1.0), least=0.01)


def test_the_permutation_test_holds_its_level_over_users() -> None:
    holds(sign_flip(differences(5, 0.0).mean(axis=1)))


def test_the_permutation_test_takes_luck_of_trainings_for_a_difference() -> None:
    """Why it is not the headline: it asks of these very trainings."""
    assert (sign_flip(differences(5, 0.5).mean(axis=1)) < LEVEL).mean() > 0.15


def test_tests_over_seeds_hold_their_level_with_users_fixed() -> None:
    random = np.random.default_rng(0)
    fixed = differences(8, 0.0)[:1, :1]
    fixed = fixed - fixed.mean()  # without effect on these users
    values = fixed + 0.05 * random.normal(size=(1500, 8, 1)) + np.zeros((1500, 8, 120))
    holds(significance.over_seeds(values).p)
    exact = significance.exact_over_seeds(values[:300])
    assert (exact < LEVEL).sum() <= stats.binom.ppf(0.999, 300, LEVEL)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_family_finds_something_in_nothing_in_a_twentieth_of_cases_at_most(seeds: int) -> None:
    several = scores(seeds, 0.1, configurations=7)
    p = significance.crossed(several[:, 1:] - several[:, :1]).p  # six against one reference
    smallest = np.array([significance.holm(family, len(family)).min() for family in p])
    holds(smallest, least=0.005)
    assert (p.min(axis=1) < LEVEL).mean() > 0.07  # what it corrects


@pytest.mark.parametrize("family", list(families()), ids=str)
@pytest.mark.parametrize("luck", LUCKS)
def test_families_hold_their_level_at_the_sizes_of_movielens(family: Family, luck: float) -> None:
    squares = mean_squares(replace(family, luck=luck), TABLES, np.random.default_rng(0))
    assert family_error(squares.estimate().p) <= stats.binom.ppf(0.999, TABLES, 0.055) / TABLES


def test_mean_squares_are_drawn_as_tables_have_them() -> None:
    family, random = Family(50, 4, 2, user=0.8, luck=0.3), np.random.default_rng(0)
    drawn = mean_squares(family, TABLES, random)
    tables = MeanSquares.of(tables_of(family, TABLES, random, tuning=0, per=1)[..., 0, :])
    for name in ("of_seeds", "of_users", "rest"):
        one, other = getattr(drawn, name), getattr(tables, name)
        for moment in (np.mean, np.std):
            assert moment(one) == pytest.approx(moment(other), rel=0.1)
        ours, theirs = (np.corrcoef(values.T)[0, 1] for values in (one, other))
        assert ours == pytest.approx(theirs, abs=0.1)  # they share the reference
    assert drawn.mean.std() == pytest.approx(tables.mean.std(), rel=0.1)


def test_tunings_hold_their_level_where_runs_or_one_tuning_would_not() -> None:
    family = Family(users=100, seeds=3, comparisons=3)
    values = tables_of(family, TABLES, np.random.default_rng(0), tuning=0.3, per=2)
    p = significance.crossed(values.mean(axis=-2)).p
    assert family_error(p) <= stats.binom.ppf(0.999, TABLES, LEVEL) / TABLES
    runs = values.reshape(*values.shape[:2], -1, family.users)
    assert family_error(significance.crossed(runs).p) > 0.2


def test_what_differs_is_found() -> None:
    values = differences(5, 0.1) + 0.05
    assert (significance.crossed(values).p < LEVEL).mean() > 0.8
