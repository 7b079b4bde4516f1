"""The bootstrap and the permutation test, held to scipy and to full enumeration."""

import numpy as np
import pytest
from scipy import stats

from tune_srs.evaluation import resampling
from tune_srs.evaluation.resampling import RESAMPLES, Array, bootstrap, sign_flip


def drawn(rows: int, columns: int) -> Array:
    return 0.1 + np.random.default_rng(0).normal(size=(rows, columns))


def test_the_bootstrap_agrees_with_that_of_scipy() -> None:
    values = drawn(200, 2)
    low, high = bootstrap(values)
    for column in range(2):
        expected = stats.bootstrap(
            (values[:, column],), np.mean, method="percentile", rng=1
        ).confidence_interval
        found, width = [low[column], high[column]], expected.high - expected.low
        assert found == pytest.approx([expected.low, expected.high], abs=0.03 * width)


def test_how_many_are_drawn_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(30, 2)
    whole = bootstrap(values)
    monkeypatch.setattr(resampling, "ROWS", 7)
    np.testing.assert_allclose(bootstrap(values), whole)


@pytest.mark.parametrize("size", [5, 12, 40])
def test_signs_flipped_give_the_p_of_scipy(size: int) -> None:
    """All signs where these are few, and otherwise so many that both are close."""
    values = drawn(3, size)
    found = sign_flip(values)
    for p, one in zip(found, values, strict=True):
        expected = stats.permutation_test(
            (one,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=1
        ).pvalue
        error = np.sqrt(2 * expected * (1 - expected) / RESAMPLES) if size > 13 else 0
        assert p == pytest.approx(expected, abs=5 * error + 1e-12)


def test_nothing_is_as_far_from_nothing_as_anything() -> None:
    assert sign_flip(np.zeros((3, 10))).tolist() == [1, 1, 1]
    assert sign_flip(np.zeros((2, 2, 40))).tolist() == [[1, 1], [1, 1]]
