"""Intervals: held to textbook formulas, to their laws, and to how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from intervals import METRICS, Metric, coverage
from scipy import stats

from tune_srs.evaluation.intervals import difference_intervals, mean_intervals


@pytest.mark.parametrize("hits", [0, 1, 7, 200])
def test_of_hits_it_is_wilsons_but_for_students_t(hits: int) -> None:
    users = 2000
    low, high = mean_intervals({"hit@10": np.arange(users) < hits})["hit@10"]
    wilson = stats.binomtest(hits, users).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wilson.low, wilson.high), rel=2e-3, abs=1e-12)


def test_of_many_users_it_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(0).beta(2, 3, 5000)
    found = mean_intervals({"ndcg@10": values})["ndcg@10"]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found == pytest.approx((low, high), abs=0.02 * float(high - low))


def test_of_differences_it_is_that_of_the_t_test_but_for_what_was_not_seen() -> None:
    values = np.random.default_rng(0).normal(0, 0.2, 5000)
    found = difference_intervals({"ndcg@10": values})["ndcg@10"]
    assert found == pytest.approx(
        tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95)), rel=0.01
    )


values_of_users = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


@given(values_of_users)
def test_it_holds_the_mean_has_a_length_and_stays_between_0_and_1(values: np.ndarray) -> None:
    low, high = mean_intervals({"ndcg@10": values})["ndcg@10"]
    assert 0 <= low <= values.mean() + 1e-12
    assert values.mean() - 1e-12 <= high <= 1
    assert high - low > 1e-3


@given(values_of_users)
def test_misses_are_to_hits_what_hits_are_to_misses(values: np.ndarray) -> None:
    found = mean_intervals({"hit": values, "miss": 1 - values})
    assert found["miss"] == pytest.approx((1 - found["hit"][1], 1 - found["hit"][0]))


def test_of_one_user_nothing_is_known() -> None:
    low, high = mean_intervals({"hit@10": np.ones(1)})["hit@10"]
    assert low < 0.01
    assert high == 1
    assert difference_intervals({"hit@10": np.zeros(1)}) == {"hit@10": (-1, 1)}


@pytest.mark.parametrize("users", [30, 100, 911])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_nineteen_of_twenty_hold_the_true_mean(metric: Metric, users: int, rate: float) -> None:
    held = coverage(metric, users, rate, samples=500)["ours"].held
    assert held >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 500)


def test_where_hits_are_rare_the_bootstrap_does_not() -> None:
    cells = coverage(METRICS["ndcg"], 30, 0.02, samples=500, methods=("bootstrap", "ours"))
    assert cells["bootstrap"].held < 0.6
    assert cells["bootstrap"].length < cells["ours"].length
