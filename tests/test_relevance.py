"""Relevance by hand, and what the two normalisations promise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tune_srs.relevance import loss_weights, relevance

NAMES = ("fixed", "linear", "power", "exponential")


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [
        ("fixed", None, [1, 1, 1]),
        ("linear", None, [3, 2, 1]),
        ("power", None, [9, 4, 1]),
        ("power", 0.5, [math.sqrt(3), math.sqrt(2), 1]),
        ("exponential", None, [math.exp(3), math.exp(2), math.exp(1)]),
        ("exponential", 0.1, [math.exp(0.3), math.exp(0.2), math.exp(0.1)]),
    ],
)
def test_values_by_hand(name: str, rate: float | None, expected: list[float]) -> None:
    assert relevance(name, 3, rate).tolist() == pytest.approx(expected, rel=1e-12)


def test_an_unknown_name_is_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="unknown relevance quadratic"):
        relevance("quadratic", 3)


@given(
    name=st.sampled_from(NAMES),
    count=st.integers(1, 50),
    rate=st.floats(0.01, 5) | st.none(),
)
def test_mean_normalisation_leaves_the_balance_and_the_order(
    name: str, count: int, rate: float | None
) -> None:
    weights = loss_weights(name, count, rate, "mean").double()
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    assert (weights >= 0).all()
    assert (weights.diff() <= 0).all()


@pytest.mark.parametrize(
    ("name", "total"), [("fixed", 10), ("linear", 1), ("power", 7), ("exponential", 633)]
)
def test_the_original_normalisation_shifts_the_balance(name: str, total: int) -> None:
    assert int(loss_weights(name, 10, None, "original").sum().item() + 0.001) == total


@pytest.mark.parametrize("name", NAMES)
def test_one_positive_weighs_1_under_mean(name: str) -> None:
    assert torch.equal(loss_weights(name, 1, None, "mean"), torch.ones(1))
