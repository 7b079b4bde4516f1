"""Bootstrap intervals against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from tune_srs.evaluation import intervals
from tune_srs.evaluation.intervals import mean_intervals


def metrics_of(users: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"ndcg@10": random.beta(1, 5, users), "mrr@10": random.beta(0.5, 0.5, users)}


@pytest.mark.parametrize("users", [20, 400, intervals.MANY_USERS])
def test_they_are_those_of_scipy_but_for_the_draw(users: int) -> None:
    values = metrics_of(users)
    found = mean_intervals(values)
    for name, of_users in values.items():
        reference = stats.bootstrap(
            (of_users,), np.mean, n_resamples=5_000, method="percentile", batch=100, rng=1
        ).confidence_interval
        width = reference.high - reference.low
        assert found[name] == pytest.approx((reference.low, reference.high), abs=0.07 * width)


def test_nineteen_of_twenty_hold_the_true_mean() -> None:
    held = 0
    for seed in range(200):
        low, high = mean_intervals(metrics_of(150, seed))["ndcg@10"]
        held += low < 1 / 6 < high
    assert 180 <= held <= 198


def test_a_metric_without_variation_has_no_width() -> None:
    assert mean_intervals({"jaccard@10": np.ones(9)}) == {"jaccard@10": (1.0, 1.0)}
