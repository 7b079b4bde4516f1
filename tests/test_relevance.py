"""Relevance by hand, and what the two normalisations promise."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_srs.errors import ConfigError
from tune_srs.relevance import (
    LearnedRelevance,
    gradient_only,
    loss_weights,
    relevance,
    time_weights,
    with_gradient_scaled,
)
from tune_srs.report.relevance_plot import relevance_figure, write_relevance_plot
from tune_srs.training.losses import pair_weights

NAMES = ("fixed", "linear", "power", "exponential", "reciprocal", "gaussian")


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [
        ("fixed", None, [1, 1, 1]),
        ("linear", None, [3, 2, 1]),
        ("power", None, [9, 4, 1]),
        ("power", 0.5, [math.sqrt(3), math.sqrt(2), 1]),
        ("exponential", None, [math.exp(3), math.exp(2), math.exp(1)]),
        ("exponential", 0.1, [math.exp(0.3), math.exp(0.2), math.exp(0.1)]),
        ("reciprocal", None, [1, 1 / 2, 1 / 3]),
        ("reciprocal", 2.0, [1, 1 / 4, 1 / 9]),
        ("gaussian", None, [1, math.exp(-2 / 9), math.exp(-8 / 9)]),
        ("gaussian", 3.0, [1, math.exp(-1 / 2), math.exp(-2)]),
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


def test_the_original_normalisation_gives_the_weights_of_the_papers_code() -> None:
    """P = 10, to the last digit of a float32."""
    closeness = torch.arange(10, 0, -1, dtype=torch.float64)
    for name, raw in (
        ("linear", closeness),
        ("power", closeness**2),
        ("exponential", closeness.exp()),
    ):
        assert torch.equal(loss_weights(name, 10, None, "original"), (raw / 55).float())


@pytest.mark.parametrize(
    ("name", "total"), [("fixed", 10), ("linear", 1), ("power", 7), ("exponential", 633)]
)
def test_the_original_normalisation_shifts_the_balance(name: str, total: int) -> None:
    assert int(loss_weights(name, 10, None, "original").sum().item() + 0.001) == total


@pytest.mark.parametrize("name", NAMES)
def test_one_positive_weighs_1_under_mean(name: str) -> None:
    assert torch.equal(loss_weights(name, 1, None, "mean"), torch.ones(1))


def test_the_longer_the_wait_the_less_the_weight() -> None:
    days = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 9.0], [5.0, 0.0, 0.0]])
    exists = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    weights = time_weights(days, exists, 0.7, "mean")
    raw = [math.exp(-0.7 * d) for d in (0, 1, 2)]
    expected = [3 * value / sum(raw) for value in raw]
    assert weights[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert weights[1].tolist() == pytest.approx([1, 1, 0], rel=1e-6)  # both come after as long
    assert weights[2].tolist() == [0, 0, 0]
    original = time_weights(days, exists, 0.7, "original")
    assert original[0].tolist() == pytest.approx([value / 6 for value in raw], rel=1e-6)
    assert original[2].tolist() == [0, 0, 0]


def test_a_wait_of_years_does_not_divide_by_nothing() -> None:
    weights = time_weights(torch.tensor([[1e6, 2e6]]), torch.ones(1, 2).bool(), None, "mean")
    assert weights.tolist() == [[2, 0]]


def test_waits_before_now_count_as_none() -> None:
    weights = time_weights(torch.tensor([[-4.0, 0.0]]), torch.ones(1, 2).bool(), None, "mean")
    assert weights.tolist() == [[1, 1]]


@settings(max_examples=50)
@given(
    name=st.sampled_from(NAMES),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=20),
    count=st.integers(1, 10),
)
def test_the_weights_of_the_pairs_that_exist_have_mean_1(
    name: str, lengths: list[int], count: int
) -> None:
    """Whatever the lengths; `lengths` counts the positives of each position."""
    exists = torch.arange(count) < torch.tensor(lengths)[:, None]
    weights = loss_weights(name, count, None, "mean")
    pairs = pair_weights(weights, exists, "mean") * exists.sum()
    assert pairs[exists].double().mean().item() == pytest.approx(1, rel=1e-6)
    assert (pairs[~exists] == 0).all()


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_learned_weights_come_to_where_their_criterion_is_least(rate: float) -> None:
    """w_j = rate / (l_j + c), of mean 1, however many pairs a place has, whatever the factor."""
    exists = torch.arange(4) <= torch.tensor([3, 3, 2, 1, 1, 0, 0, 0])[:, None]  # 8, 5, 3, 2
    lost = torch.tensor([0.2, 0.5, 0.9, 1.0])
    learned = LearnedRelevance(4, rate)
    assert learned.weights().tolist() == [1, 1, 1, 1]
    optimizer = torch.optim.Adam(learned.parameters(), 0.05)
    for _ in range(600):
        optimizer.zero_grad()
        weights, penalty = learned(exists, factor=7)
        assert penalty.item() == 0  # the loss reported is that of the model
        pairs = pair_weights(weights, exists, "mean")
        (7 * (pairs * lost).sum() + penalty).backward()
        optimizer.step()
    weights = learned.weights().detach()
    offsets = rate / weights - lost
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    assert offsets.tolist() == pytest.approx([offsets[0].item()] * 4, abs=1e-3)
    assert weights.diff().max() < 0


def test_a_scaled_gradient_leaves_the_values_and_a_gradient_alone_leaves_nothing() -> None:
    values = torch.tensor([3.0, 5.0], requires_grad=True)
    scaled = with_gradient_scaled(values, torch.tensor([2.0, 0.5]))
    assert scaled.tolist() == [3, 5]
    assert torch.autograd.grad(scaled.sum(), values)[0].tolist() == [2, 0.5]
    nothing = gradient_only((values**2).sum())
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, values)[0].tolist() == [6, 10]


def test_places_that_do_not_occur_take_no_weight_from_the_others() -> None:
    learned = LearnedRelevance(3, None)
    weights, penalty = learned(torch.tensor([[True, True, False], [True, False, False]]))
    assert weights.tolist() == pytest.approx([1, 1, 0])
    (weights.sum() + penalty).backward()
    assert learned.logits.grad is not None
    assert learned.logits.grad.isfinite().all()
    assert learned.logits.grad[2] == 0


def test_the_picture_shows_the_weights_of_both_normalisations() -> None:
    figure = relevance_figure(5, {"exponential": 0.3})
    for axes, normalization in zip(figure.axes, ("mean", "original"), strict=True):
        lines = {str(line.get_label()).split(",")[0].split(" (")[0]: line for line in axes.lines}
        assert set(lines) == set(NAMES)
        for name, line in lines.items():
            rate = 0.3 if name == "exponential" else None
            expected = loss_weights(name, 5, rate, normalization)
            assert list(line.get_ydata()) == pytest.approx(expected.tolist())  # type: ignore[arg-type]
    plt.close(figure)


@pytest.mark.parametrize(
    ("name", "rates", "reason"),
    [
        ("x.gif", {}, r"end its name with \.png"),
        ("nowhere/x.png", {}, "there is no folder"),
        ("x.png", {"linear": 2.0}, "no relevance that a rate bends"),
        ("x.png", {"gaussian": -1.0}, "greater than 0"),
        ("x.png", {"gaussian": "wide"}, "valid number"),
        ("x.png", {"exponential": 9.0}, "overflows"),
    ],
)
def test_a_picture_that_cannot_be_is_refused(
    tmp_path: Path, name: str, rates: dict[str, float], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        write_relevance_plot(tmp_path / name, 10, rates)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_taken_for_a_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ConfigError, match=r"x\.png is a folder; name a file"):
        write_relevance_plot(tmp_path / "x.png", 10, {})
