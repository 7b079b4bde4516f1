"""Negatives: outside the history, and as often as they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.small_data import histories_of, random_split

from tune_srs.errors import DataError
from tune_srs.negatives import CatalogueSampler, Seen, UnseenSampler, seen_pairs, target_counts
from tune_srs.training.batches import Batches

CPU = torch.device("cpu")


@settings(max_examples=60)
@given(
    histories=st.lists(
        st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=1, max_size=6
    ),
    seed=st.integers(0, 1000),
    kernels=st.booleans(),
)
def test_negatives_are_what_the_history_leaves(
    histories: list[list[int]], seed: int, kernels: bool
) -> None:

    sampler = UnseenSampler(histories_of(histories, 10), CPU, kernels=kernels)
    users = torch.arange(len(histories))
    drawn = sampler.sample(users, 200, torch.Generator().manual_seed(seed))
    for history, row in zip(histories, drawn.tolist(), strict=True):
        others = set(range(1, 11)) - set(history)
        assert set(row) <= others
        if len(others) <= 5:  # 200 draws miss one of five with a chance below 1e-18
            assert set(row) == others


def test_negatives_are_uniform() -> None:
    histories = histories_of([[2, 3, 7, 3], [1], [20, 19, 1]], 20)
    sampler = UnseenSampler(histories, CPU)
    users = torch.tensor([0, 1, 2]).repeat(2000)
    drawn = sampler.sample(users, 10, torch.Generator().manual_seed(0))
    for user, known in ((0, {2, 3, 7}), (1, {1}), (2, {1, 19, 20})):
        counts = np.bincount(drawn[users == user].ravel(), minlength=21)
        others = [item for item in range(1, 21) if item not in known]
        assert counts.sum() == counts[others].sum()
        assert stats.chisquare(counts[others]).pvalue > 0.001


def test_who_knows_everything_has_no_negatives() -> None:
    with pytest.raises(DataError, match="all 3 items"):
        UnseenSampler(histories_of([[1], [3, 1, 2]], 3), CPU)


def test_the_kernel_and_torch_draw_the_same() -> None:
    histories = random_split(3, users=30).training
    users = torch.arange(30).repeat_interleave(5)
    drawn = [
        UnseenSampler(histories, CPU, kernels=kernels).sample(
            users, 4, torch.Generator().manual_seed(0)
        )
        for kernels in (False, True)
    ]
    assert torch.equal(*drawn)


HISTORIES = [[2, 3, 7, 3, 2, 2], [1, 4, 4], [7, 6, 1], [5, 5, 5, 5, 8]]
COUNTS = {item: sum(history.count(item) for history in HISTORIES) for item in range(1, 10)}


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_popular_items_are_drawn_by_a_power_of_their_popularity(power: float) -> None:
    histories = histories_of(HISTORIES, 9)
    sampler = UnseenSampler(histories, CPU, power)
    users = torch.arange(4).repeat(3000)
    drawn = sampler.sample(users, 5, torch.Generator().manual_seed(0))
    for user, history in enumerate(HISTORIES):
        others = [item for item in range(1, 9) if item not in history]  # 9 was never seen
        counts = np.bincount(drawn[users == user].ravel(), minlength=10)
        assert counts.sum() == counts[others].sum()
        chance = np.array([COUNTS[item] ** power for item in others])
        expected = counts.sum() * chance / chance.sum()
        assert stats.chisquare(counts[others], expected).pvalue > 0.001


def test_shared_negatives_count_where_they_are_outside_the_history() -> None:
    histories = histories_of(HISTORIES, 9)
    sampler = UnseenSampler(histories, CPU)
    items, counted = sampler.shared(torch.tensor([0, 2, 3]), 200, torch.Generator().manual_seed(0))
    assert items.shape == (200,)
    for row, user in zip(counted, (0, 2, 3), strict=True):
        known = torch.tensor(HISTORIES[user])
        assert torch.equal(row, ~torch.isin(items, known))
    assert stats.chisquare(np.bincount(items, minlength=10)[1:]).pvalue > 0.001


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("shared", [False, True])
def test_a_sample_of_the_catalogue_has_the_chances_it_tells(power: float, shared: bool) -> None:
    sampler = CatalogueSampler(histories_of(HISTORIES, 9), CPU, power)
    users, generator = torch.zeros(100, dtype=torch.int64), torch.Generator().manual_seed(0)
    if shared:
        items, counted = sampler.shared(users, 20_000, generator)
        assert counted.shape == (100, 20_000)
        assert counted.all()
    else:
        items = sampler.sample(users, 200, generator)
        assert items.shape == (100, 200)
    chances = sampler.chances.numpy()
    assert chances.sum() == pytest.approx(1)
    drawn = chances > 1e-6  # 9 is next to never drawn by popularity
    counts = np.bincount(items.ravel(), minlength=10)[1:]
    assert stats.chisquare(counts[drawn], 20_000 * chances[drawn]).pvalue > 0.001


def test_who_has_seen_what_is_known() -> None:
    seen = Seen(seen_pairs(histories_of(HISTORIES, 9)), 9, CPU)
    users, items = torch.tensor([0, 3, 1]), torch.arange(1, 10)
    found = seen.contains(users, items)
    assert torch.equal(found, seen.contains(users, items.expand(3, 9)))
    for row, user in zip(found.tolist(), users.tolist(), strict=True):
        assert {item for item, known in enumerate(row, 1) if known} == set(HISTORIES[user])


@settings(max_examples=50)
@given(
    histories=st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=6),
    max_length=st.integers(1, 12),
)
def test_targets_are_counted_as_the_batches_show_them(
    histories: list[list[int]], max_length: int
) -> None:
    known = histories_of([*histories, [1, 2]], 9)
    counts = target_counts(known, max_length)
    batches = Batches(known, 100, max_length, CPU)
    (users,) = batches.epoch(torch.Generator())
    positives, exists = batches.batch(users).positives(1)
    assert counts.tolist() == np.bincount(positives[exists], minlength=10)[1:].tolist()
