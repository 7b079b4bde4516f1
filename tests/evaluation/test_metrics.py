"""Metrics three ways: by hand, by brute force, and against ir-measures."""

import math
from typing import Any

import ir_measures
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tune_srs.errors import ConfigError
from tune_srs.evaluation.metrics import MISSED, per_user
from tune_srs.metric_names import ORDER_NAMES, RANKING_NAMES, check_metric, names
from tune_srs.relevance import relevance


def values_of(
    ranks: list[int], k: int, counted: list[bool] | None = None, gains: list[float] | None = None
) -> dict[str, float]:
    """Metrics of one user at one cutoff, without the cutoff in their names."""
    futures = len(ranks)
    values = per_user(
        torch.tensor([ranks]),
        torch.tensor([counted or [True] * futures]),
        (k,),
        torch.tensor(gains) if gains else relevance("linear", futures),
    )
    return {name.partition("@")[0]: value.item() for name, value in values.items()}


def discount(place: int) -> float:
    return 1 / math.log2(place + 1)


BY_HAND: list[tuple[list[int], int, dict[str, float]]] = [
    # the future at place 51 misses the cutoff; those behind it still count
    (
        [50, 0, 1],
        10,
        {
            "ndcg": (discount(1) + discount(2)) / (discount(1) + discount(2) + discount(3)),
            "ndcg_rel": (2 * discount(1) + 1 * discount(2))
            / (3 * discount(1) + 2 * discount(2) + 1 * discount(3)),
            "hr": 2 / 3,
            "recall": 2 / 3,
            "hit": 1,
            "mrr": 1,
        },
    ),
    ([0, 1, 2], 10, dict.fromkeys((*RANKING_NAMES, *ORDER_NAMES), 1)),
    # three futures, two places: the ideal has two terms, and hr cannot reach 1
    ([0, 1, 2], 2, {"ndcg": 1, "ndcg_rel": 1, "hr": 2 / 3, "recall": 1, "hit": 1, "mrr": 1}),
    ([3, 9, 7], 3, dict.fromkeys(RANKING_NAMES, 0)),
    ([2, 8], 5, {"ndcg": discount(3) / (discount(1) + discount(2)), "mrr": 1 / 3, "hr": 1 / 2}),
    # predicted order 2, 1, 3: the first place differs, two and three places agree as sets
    (
        [5, 4, 6],
        3,
        {"order_rbo": (0 / 1 + 0.9 * 2 / 2 + 0.81 * 3 / 3) / (1 + 0.9 + 0.81), "order_jaccard": 1},
    ),
    ([5, 4, 6], 2, {"order_rbo": (0 / 1 + 0.9 * 2 / 2) / (1 + 0.9), "order_jaccard": 1}),
    ([5, 4, 6], 1, {"order_rbo": 0, "order_jaccard": 0}),
    # predicted order 1, 3, 2: of the first two, one is shared and three are in either
    ([0, 9, 8], 2, {"order_rbo": (1 / 1 + 0.9 * 1 / 2) / (1 + 0.9), "order_jaccard": 1 / 3}),
    # all tied: nobody is in the first two places
    ([9, 9, 9], 2, {"order_rbo": 0, "order_jaccard": 0}),
    # among all candidates the first is where it should be, the others are not in the first three
    ([0, 9, 8], 5, {"rbo": (1 + 0.9 / 2 + 0.81 / 3) / (1 + 0.9 + 0.81), "jaccard": 1 / 5}),
    # two of the first three, but in each other's place
    ([1, 0, 7], 3, {"rbo": (0 + 0.9 * 2 / 2 + 0.81 * 2 / 3) / (1 + 0.9 + 0.81), "jaccard": 2 / 4}),
    (
        [4, MISSED],
        5,
        {"ndcg": discount(5) / (discount(1) + discount(2)), "mrr": 1 / 5, "hr": 1 / 2},
    ),
    ([MISSED, MISSED], 10**6, dict.fromkeys((*RANKING_NAMES, "rbo", "jaccard"), 0)),
]


@pytest.mark.parametrize(("ranks", "k", "expected"), BY_HAND)
def test_values_by_hand(ranks: list[int], k: int, expected: dict[str, float]) -> None:
    values = values_of(ranks, k)
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_the_defect_of_the_original_is_gone() -> None:
    assert values_of([50, 0, 1], 10)["ndcg"] == pytest.approx(0.765, abs=0.0005)


def test_a_repeated_future_counts_once() -> None:
    once, twice = values_of([4, 0], 5, gains=[3, 1]), values_of([4, 4, 0], 5, [True, False, True])
    assert twice == pytest.approx(once)


def brute_force(ranks: list[int], gains: list[float], k: int) -> dict[str, float]:
    """Of the counted futures alone, nearest first, with their ranks and gains."""
    n = len(ranks)

    def ndcg_of(gain: list[float]) -> float:
        found = sum(g / math.log2(r + 2) for g, r in zip(gain, ranks, strict=True) if r < k)
        best = sorted(gain, reverse=True)[:k]
        return found / sum(g / math.log2(place + 2) for place, g in enumerate(best))

    hits = [r for r in ranks if r < k]
    depths = range(1, min(k, n) + 1)
    norm = sum(0.9 ** (depth - 1) for depth in depths)

    def overlap(places: list[int]) -> float:
        total = 0.0
        for depth in depths:
            first = {j for j, place in enumerate(places) if place < depth}
            total += 0.9 ** (depth - 1) * len(first & set(range(depth))) / depth
        return total / norm

    places = [place_of(ranks, j) for j in range(n)]
    nearest = set(range(depths[-1]))
    ranked = {j for j in range(n) if places[j] < depths[-1]}
    found = {j for j in nearest if ranks[j] < depths[-1]}
    return {
        "ndcg": ndcg_of([1.0] * n),
        "ndcg_rel": ndcg_of(gains),
        "hr": len(hits) / n,
        "recall": len(hits) / min(k, n),
        "hit": 1.0 if hits else 0.0,
        "mrr": 1 / (min(hits) + 1) if hits else 0.0,
        "rbo": overlap(ranks),
        "jaccard": len(found) / (2 * len(nearest) - len(found)),
        "order_rbo": overlap(places),
        "order_jaccard": len(nearest & ranked) / len(nearest | ranked),
    }


def place_of(ranks: list[int], j: int) -> int:
    """Among the futures, ties against the model."""
    return sum(1 for other in range(len(ranks)) if other != j and ranks[other] <= ranks[j])


@settings(max_examples=200)
@given(data=st.data(), futures=st.integers(1, 6), k=st.integers(1, 12))
def test_brute_force_agrees(data: st.DataObject, futures: int, k: int) -> None:
    ranks = data.draw(st.lists(st.integers(0, 14), min_size=futures, max_size=futures))
    counted = [
        True,
        *data.draw(st.lists(st.booleans(), min_size=futures - 1, max_size=futures - 1)),
    ]
    gains = [float(gain) for gain in relevance("linear", futures)]
    kept = [j for j in range(futures) if counted[j]]
    expected = brute_force([ranks[j] for j in kept], [gains[j] for j in kept], k)
    assert values_of(ranks, k, counted) == pytest.approx(expected)


@settings(max_examples=60)
@given(
    ranks=st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True), k=st.integers(1, 20)
)
def test_ir_measures_agrees(ranks: list[int], k: int) -> None:
    # the run lists place by place, so that no score is tied
    run = {"user": {f"item {place}": -float(place) for place in range(40)}}
    binary = {"user": {f"item {rank}": 1 for rank in ranks}}
    graded = {"user": {f"item {rank}": len(ranks) - j for j, rank in enumerate(ranks)}}

    def measured(measure: Any, judgements: dict[str, dict[str, int]]) -> float:
        return float(ir_measures.calc_aggregate([measure], judgements, run)[measure])

    values = values_of(ranks, k)
    assert values["ndcg"] == pytest.approx(measured(ir_measures.nDCG @ k, binary))
    assert values["ndcg_rel"] == pytest.approx(measured(ir_measures.nDCG @ k, graded))
    assert values["hr"] == pytest.approx(measured(ir_measures.R @ k, binary))
    assert values["hit"] == pytest.approx(measured(ir_measures.Success @ k, binary))
    assert values["mrr"] == pytest.approx(measured(ir_measures.RR @ k, binary))


@settings(max_examples=100)
@given(
    ranks=st.lists(st.integers(0, 20), min_size=2, max_size=6, unique=True),
    k=st.integers(1, 12),
    better=st.integers(0, 5),
)
def test_a_better_rank_never_costs(ranks: list[int], k: int, better: int) -> None:
    better %= len(ranks)
    improved = [max(0, rank - 3) if j == better else rank for j, rank in enumerate(ranks)]
    before, after = values_of(ranks, k), values_of(improved, k)
    for name in RANKING_NAMES:
        assert after[name] >= before[name]
    assert all(0 <= value <= 1 + 1e-12 for value in before.values())


def test_users_do_not_influence_each_other() -> None:
    ranks = torch.tensor([[0, 5], [3, 1], [9, 9]])
    counted = torch.tensor([[True, True], [True, False], [True, True]])
    gains = relevance("linear", 2)
    together = per_user(ranks, counted, (1, 5), gains)
    for user in range(3):
        alone: dict[str, Tensor] = per_user(ranks[[user]], counted[[user]], (1, 5), gains)
        for name, value in alone.items():
            assert together[name][user] == value


def test_names_are_listed_and_checked() -> None:
    listed = names((5, 10))
    assert "ndcg_rel@10" in listed
    assert "rbo@5" in listed
    assert "next/hr@5" in listed
    assert "next/rbo@5" not in listed
    check_metric("val/next/ndcg@10", (5, 10), "here")
    check_metric("train/loss", (5,), "here")
    with pytest.raises(ConfigError, match="here: unknown metric val/ndcg@7, did you mean val/ndcg"):
        check_metric("val/ndcg@7", (5, 10), "here")
