"""Evaluation against a plain ranking, user by user, item by item."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_data import original_model, random_split, split_of
from torch import Tensor

from tune_srs.config.settings import EvaluationConfig, RelevanceName
from tune_srs.datasets.histories import Split
from tune_srs.errors import DataError
from tune_srs.evaluation import device_histories
from tune_srs.evaluation import evaluator as evaluate
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.evaluation.metrics import MISSED, per_user
from tune_srs.metric_names import RANKING_NAMES
from tune_srs.model.sasrec import SASRec
from tune_srs.relevance import relevance

CPU = torch.device("cpu")
ITEMS = 12


class Table:
    """Scores that depend on the last item of a history only, from a table."""

    max_length = 3

    def __init__(self, table: Tensor) -> None:
        self.table = table  # (ITEMS + 1, ITEMS + 1)

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        return items[torch.arange(len(items)), lengths - 1]

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        return self.table[queries, items]


def table_of(seed: int, levels: int = 4) -> Table:
    """Few different scores, so that many are tied."""
    generator = torch.Generator().manual_seed(seed)
    size = (ITEMS + 1, ITEMS + 1)
    return Table(torch.randint(levels, size, generator=generator).float())


def plain_ranks(
    scores: list[float], history: list[int], futures: list[int], exclude_history: bool
) -> list[int]:
    """Of each future: how many other candidates score at least as high."""
    candidates = [item for item in range(1, ITEMS + 1) if not (exclude_history and item in history)]
    return [
        sum(1 for other in candidates if other != item and not scores[other] < scores[item])
        if item in candidates
        else MISSED
        for item in futures
    ]


def plain_evaluation(
    table: Table, split: Split, exclude_history: bool, cutoffs: tuple[int, ...]
) -> dict[str, list[float]]:
    """Every metric of every user, in the multi-future and in the traditional protocol."""
    values: dict[str, list[float]] = {}
    for user, (start, end) in enumerate(pairwise(split.histories.offsets.tolist())):
        history = split.histories.items[start:end].tolist()
        futures = split.futures[user].tolist()
        scores = table.table[history[-1]].tolist()
        for prefix, known in (("", futures), ("next/", futures[:1])):
            ranks = plain_ranks(scores, history, known, exclude_history)
            counted = [item not in known[:j] for j, item in enumerate(known)]
            gains = relevance("linear", len(known))
            of_user = per_user(torch.tensor([ranks]), torch.tensor([counted]), cutoffs, gains)
            for name, value in of_user.items():
                values.setdefault(prefix + name, []).append(value.item())
    return values


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 12),
    futures=st.integers(1, 5),
    exclude_history=st.booleans(),
)
def test_a_plain_ranking_of_the_catalogue_agrees(
    seed: int, users: int, futures: int, exclude_history: bool
) -> None:
    # items repeat within histories, within futures, and between the two
    split = random_split(seed, users, ITEMS, futures)
    config = EvaluationConfig(cutoffs=(1, 3, 8), exclude_history=exclude_history)
    result = Evaluator(split, config, CPU)(table_of(seed)).per_user
    expected = plain_evaluation(table_of(seed), split, exclude_history, (1, 3, 8))
    for name, values in result.items():
        assert values.tolist() == pytest.approx(expected[name]), name


def negatives_of(evaluator: Evaluator) -> Tensor:
    assert evaluator.negatives is not None
    return evaluator.negatives


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_a_plain_ranking_of_sampled_candidates_agrees(seed: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    histories = [torch.randint(1, 6, (4,), generator=random).tolist() for _ in range(6)]
    futures = [torch.randint(3, 8, (3,), generator=random).tolist() for _ in range(6)]
    split = split_of(histories, futures, ITEMS)
    config = EvaluationConfig(candidates="sampled", num_candidates=count, cutoffs=(2, 5))
    evaluator = Evaluator(split, config, CPU)
    result = evaluator(table_of(seed)).per_user
    for user, (history, known) in enumerate(zip(histories, futures, strict=True)):
        negatives = negatives_of(evaluator)[user].tolist()
        assert len(set(negatives)) == count
        assert set(negatives).isdisjoint({*history, *known})
        scores = table_of(seed).table[history[-1]].tolist()
        for prefix, rivals in (("", known), ("next/", known[:1])):
            candidates = {*negatives, *rivals} - {*history}
            ranks = [
                sum(1 for other in candidates - {item} if scores[other] >= scores[item])
                if item in candidates
                else MISSED
                for item in rivals
            ]
            counted = [item not in rivals[:j] for j, item in enumerate(rivals)]
            gains = relevance("linear", len(rivals))
            of_user = per_user(torch.tensor([ranks]), torch.tensor([counted]), (2, 5), gains)
            for name, value in of_user.items():
                if prefix + name in result:
                    assert result[prefix + name][user].item() == pytest.approx(value.item())


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), users=st.integers(1, 9), exclude_history=st.booleans())
def test_candidates_do_not_depend_on_the_answers(
    seed: int, users: int, exclude_history: bool
) -> None:
    """Whichever items are the answers, each has the place that it has among the others."""
    config = EvaluationConfig(exclude_history=exclude_history)
    split = random_split(seed, users, ITEMS, 3)
    everything = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (users, 1))
    permuted = np.random.default_rng(seed).permuted(everything, axis=1)
    whole, _ = Evaluator(replace(split, futures=everything), config, CPU).ranks(table_of(seed))
    other, nearest = Evaluator(replace(split, futures=permuted), config, CPU).ranks(table_of(seed))
    some, _ = Evaluator(split, config, CPU).ranks(table_of(seed))
    assert torch.equal(whole.gather(1, torch.from_numpy(permuted - 1).long()), other)
    assert torch.equal(other[:, 0], nearest)
    assert torch.equal(whole.gather(1, torch.from_numpy(split.futures - 1).long()), some)


def test_who_knows_only_what_was_seen_gets_chance() -> None:
    """Repeats that nobody can predict: half of the items are in the history, answers are random."""
    random = np.random.default_rng(0)
    users, items = 4000, 40
    histories = [random.permutation(items)[: items // 2] + 1 for _ in range(users)]
    futures = random.integers(1, items + 1, (users, 1))
    split = split_of([one.tolist() for one in histories], futures.tolist(), items)

    class Seen:
        max_length = items

        def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
            return items

        def scores(self, queries: Tensor, items: slice) -> Tensor:
            known = (queries[:, :, None] == torch.arange(items.start, items.stop)).any(dim=1)
            noise = torch.from_numpy(random.random(known.shape))
            return known + noise

    for exclude_history, chance in ((True, 0.5 * 10 / 20), (False, 0.5 * 10 / 20)):
        config = EvaluationConfig(cutoffs=(10,), exclude_history=exclude_history)
        hit = Evaluator(split, config, CPU)(Seen()).means()["hit@10"]
        error = math.sqrt(chance * (1 - chance) / users)
        assert abs(hit - chance) < 4 * error


def test_next_is_an_evaluation_of_the_nearest_future_alone() -> None:
    split = random_split(3, users=20, items=ITEMS, futures=4)
    nearest = replace(split, futures=split.futures[:, :1])
    config = EvaluationConfig(cutoffs=(1, 3))
    several = Evaluator(split, config, CPU)(table_of(3)).per_user
    alone = Evaluator(nearest, config, CPU)(table_of(3)).per_user
    for name in RANKING_NAMES:
        assert torch.equal(several[f"next/{name}@3"], alone[f"{name}@3"])


@pytest.mark.parametrize("candidates", ["all", "sampled"])
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_scorer_without_an_opinion_gets_nothing(value: float, candidates: str) -> None:
    split = random_split(1, users=15, items=ITEMS)
    everywhere_3 = split_of([[1, 2]] * 15, split.futures.tolist(), ITEMS)
    config = EvaluationConfig(cutoffs=(1, 2), candidates=candidates, num_candidates=7)
    table = Table(torch.full((ITEMS + 1, ITEMS + 1), value))
    means = Evaluator(everywhere_3, config, CPU)(table).means()
    for name in RANKING_NAMES:
        assert means[f"{name}@2"] == means[f"next/{name}@2"] == 0


def test_a_score_that_is_no_number_counts_against_the_model() -> None:
    split = split_of([[1]], [[5]], ITEMS)
    scores = torch.zeros(ITEMS + 1, ITEMS + 1)
    scores[1, 5] = math.nan
    assert Evaluator(split, EvaluationConfig(), CPU)(Table(scores)).means()["hit@10"] == 0


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    odd=st.sampled_from([math.nan, -math.inf, math.inf]),
    exclude_history=st.booleans(),
)
def test_ranks_count_candidates_only_whatever_the_scores(
    seed: int, odd: float, exclude_history: bool
) -> None:
    table = table_of(seed)
    generator = torch.Generator().manual_seed(seed)
    table.table[torch.rand(table.table.shape, generator=generator) < 0.2] = odd
    split = random_split(seed, users=8, items=ITEMS, futures=4)
    config = EvaluationConfig(exclude_history=exclude_history)
    ranks, next_ranks = Evaluator(split, config, CPU).ranks(table)
    for user, (start, end) in enumerate(pairwise(split.histories.offsets.tolist())):
        history = split.histories.items[start:end].tolist()
        futures = split.futures[user].tolist()
        scores = table.table[history[-1]].tolist()
        expected = plain_ranks(scores, history, futures, exclude_history)
        for j, item in enumerate(futures):
            if item not in futures[:j]:  # a repetition is not counted, whatever its rank
                assert ranks[user, j] == expected[j]
        alone = plain_ranks(scores, history, futures[:1], exclude_history)
        assert next_ranks[user] == alone[0]


@pytest.mark.parametrize("odd", [math.nan, -math.inf])
@pytest.mark.parametrize("futures", [[5, 4, 4], [5]])
def test_sampled_ranks_count_candidates_only_whatever_the_scores(
    odd: float, futures: list[int]
) -> None:
    table = Table(torch.zeros(ITEMS + 1, ITEMS + 1))
    table.table[:, 5] = odd
    config = EvaluationConfig(candidates="sampled", num_candidates=3)
    evaluator = Evaluator(split_of([[1, 2]], [futures], ITEMS), config, CPU)
    ranks, next_ranks = evaluator.ranks(table)
    # behind the three negatives, and behind item 4 where that is a future too
    assert ranks[0, 0] == 3 + len({*futures} - {5})
    assert next_ranks[0] == 3


@pytest.mark.parametrize("name", ["fixed", "linear", "power", "exponential"])
def test_the_gain_in_ndcg_rel_is_the_one_asked_for(name: RelevanceName) -> None:
    # item 5 is the first future and stands second, item 6 is the second and misses the cutoff
    scores = torch.zeros(ITEMS + 1, ITEMS + 1)
    scores[1, 7], scores[1, 5] = 2, 1
    config = EvaluationConfig(cutoffs=(2,), relevance=name)
    means = Evaluator(split_of([[1]], [[5, 6]], ITEMS), config, CPU)(Table(scores)).means()
    near, far = {
        "fixed": (1, 1),
        "linear": (2, 1),
        "power": (4, 1),
        "exponential": (math.exp(2), math.exp(1)),
    }[name]
    expected = (near / math.log2(3)) / (near / math.log2(2) + far / math.log2(3))
    assert means["ndcg_rel@2"] == pytest.approx(expected)


def test_a_scorer_is_asked_without_gradients_and_in_small_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    class Watching(Table):
        def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            assert items.shape[1] == lengths.max() <= self.max_length
            sizes.append(len(items))
            return super().queries(items, lengths)

    monkeypatch.setattr(device_histories, "MAX_ROWS", 4)
    split = random_split(0, users=13, items=ITEMS)
    Evaluator(split, EvaluationConfig(), CPU)(Watching(table_of(0).table))
    assert sizes == [4, 4, 4, 1]


@pytest.mark.parametrize("candidates", ["all", "sampled"])
def test_how_users_and_items_are_chunked_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, candidates: str
) -> None:
    split = random_split(5, users=30, items=ITEMS)
    config = EvaluationConfig(candidates=candidates, num_candidates=1)
    whole = Evaluator(split, config, CPU)(table_of(5)).per_user
    for users, items in ((1, 100), (7, 100), (100, 5), (100, 1), (3, ITEMS - 1)):
        monkeypatch.setattr(device_histories, "MAX_ROWS", 2 * users + 1)
        monkeypatch.setattr(evaluate, "MAX_USERS", users)
        monkeypatch.setattr(evaluate, "MAX_ITEMS", items)
        chunked = Evaluator(split, config, CPU)(table_of(5)).per_user
        for name, values in whole.items():
            assert torch.equal(chunked[name], values)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(7)))
def test_the_order_of_users_does_not_matter_and_means_are_of_users(
    seed: int, order: list[int]
) -> None:
    split = random_split(seed, users=7, items=ITEMS)
    histories = [
        split.histories.items[a:b].tolist() for a, b in pairwise(split.histories.offsets.tolist())
    ]
    futures = split.futures.tolist()
    shuffled = split_of([histories[u] for u in order], [futures[u] for u in order], ITEMS)
    first = Evaluator(split, EvaluationConfig(), CPU)(table_of(seed))
    second = Evaluator(shuffled, EvaluationConfig(), CPU)(table_of(seed))
    for name, values in first.per_user.items():
        assert torch.equal(values[order], second.per_user[name])
        assert first.means()[name] == pytest.approx(sum(values.tolist()) / 7)


def test_a_model_ranks_the_same_in_batches_and_alone() -> None:
    split = random_split(7, users=40, items=ITEMS, futures=3)
    shape = original_model(max_length=5, hidden_units=8, num_heads=2)
    model = SASRec(shape, ITEMS, torch.Generator().manual_seed(0)).eval()
    together = Evaluator(split, EvaluationConfig(), CPU)(model).per_user
    for user, (start, end) in enumerate(pairwise(split.histories.offsets.tolist())):
        history = split.histories.items[start:end].tolist()
        single = split_of([history], [split.futures[user].tolist()], ITEMS)
        alone = Evaluator(single, EvaluationConfig(), CPU)(model).per_user
        for name, values in alone.items():
            assert values[0] == together[name][user]


def test_sampled_candidates_are_drawn_once_by_their_seed() -> None:
    split = random_split(2, users=20, items=40)

    def drawn(seed: int) -> Tensor:
        config = EvaluationConfig(candidates="sampled", num_candidates=5, seed=seed)
        return negatives_of(Evaluator(split, config, CPU))

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_more_candidates_than_there_are_is_an_error() -> None:
    split = split_of([[1, 2, 3]], [[4]], ITEMS)
    config = EvaluationConfig(candidates="sampled", num_candidates=9)
    with pytest.raises(DataError, match="8 items left to draw from; lower it"):
        Evaluator(split, config, CPU)
    fewer = EvaluationConfig(candidates="sampled", num_candidates=8)
    drawn = negatives_of(Evaluator(split, fewer, CPU))
    assert sorted(drawn[0].tolist()) == list(range(5, 13))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    candidates=st.sampled_from(["all", "sampled"]),
    name=st.sampled_from(["linear", "power", "exponential", "reciprocal", "gaussian"]),
)
def test_a_user_with_fewer_futures_is_scored_as_if_alone(
    seed: int, counts: list[int], candidates: str, name: str
) -> None:
    values = {
        "cutoffs": (1, 3),
        "candidates": candidates,
        "num_candidates": 2,
        "relevance": name,
    }
    config = EvaluationConfig.model_validate(values)
    split = random_split(seed, len(counts), ITEMS + 9, max(counts))
    split.futures[np.arange(max(counts)) >= np.array(counts)[:, None]] = 0
    scorer = Table(
        torch.rand(ITEMS + 10, ITEMS + 10, generator=torch.Generator().manual_seed(seed))
    )
    evaluator = Evaluator(split, config, CPU)
    found = evaluator(scorer).per_user
    assert (evaluator.counted.sum(dim=1) <= torch.tensor(counts)).all()
    for user, (start, end) in enumerate(pairwise(split.histories.offsets.tolist())):
        own = split.futures[user : user + 1, : counts[user]].tolist()
        alone = Evaluator(
            split_of([split.histories.items[start:end].tolist()], own, ITEMS + 9), config, CPU
        )
        if evaluator.negatives is not None:  # the very candidates
            alone.negatives = evaluator.negatives[user : user + 1]
        for name, value in alone(scorer).per_user.items():
            assert found[name][user].item() == pytest.approx(value.item()), name
