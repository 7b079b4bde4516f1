"""Noise on purpose: as much as asked, in the training histories alone."""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import lists_of, silent, table_of_histories

from tune_srs.config.settings import DataConfig, NoiseConfig, SyntheticConfig
from tune_srs.datasets.histories import Histories
from tune_srs.datasets.noise import add_noise
from tune_srs.datasets.prepare import split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.synthetic import generate

SIZE = SyntheticConfig(users=101, items=120, mean_length=30)
TABLE = generate(SIZE)


def prepared(noise: NoiseConfig) -> PreparedData:
    return split(TABLE, DataConfig(name="synthetic", num_futures=2, noise=noise), silent)


CLEAN = prepared(NoiseConfig())
HISTORIES = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=12)


def noisy_histories(histories: list[list[int]], noise: NoiseConfig) -> list[list[int]]:
    """`histories` with `noise`, by way of flat arrays."""
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    noisy = add_noise(Histories(items, offsets, num_items=30), noise)
    assert noisy.items.dtype == np.int32
    assert noisy.offsets.dtype == np.int64
    assert len(noisy.offsets) == len(offsets)
    assert noisy.offsets[-1] == len(noisy.items)
    assert noisy.times is None
    return lists_of(noisy)


def is_subsequence(part: Iterable[int], whole: Iterable[int]) -> bool:
    """All of `part` occurs in `whole`, in the same order."""
    rest = iter(whole)
    return all(item in rest for item in part)


# Both kinds

KINDS = pytest.mark.parametrize(
    "noise",
    [NoiseConfig(accidental=0.3), NoiseConfig(shared=0.5), NoiseConfig(accidental=1, shared=1)],
)


@KINDS
def test_the_futures_stay_as_they_are(noise: NoiseConfig) -> None:
    noisy = prepared(noise)
    np.testing.assert_array_equal(noisy.validation.futures, CLEAN.validation.futures)
    np.testing.assert_array_equal(noisy.test_futures, CLEAN.test_futures)
    assert noisy.item_ids.equals(CLEAN.item_ids)
    assert noisy.user_ids.equals(CLEAN.user_ids)
    assert noisy.validation.num_users == CLEAN.validation.num_users
    assert noisy.fingerprint != CLEAN.fingerprint
    assert noisy.manifest["interactions"] == CLEAN.manifest["interactions"]
    assert noisy.manifest["training_interactions"] == len(noisy.validation.training.items)


@KINDS
def test_a_seed_gives_the_same_noise_again(noise: NoiseConfig) -> None:
    assert prepared(noise).fingerprint == prepared(noise).fingerprint
    other = noise.model_copy(update={"seed": 1})
    assert prepared(noise).fingerprint != prepared(other).fingerprint


def test_no_noise_changes_nothing() -> None:
    without = prepared(NoiseConfig(accidental=0, shared=0, seed=9))
    assert without.fingerprint == CLEAN.fingerprint
    assert lists_of(without.validation.training) == lists_of(CLEAN.validation.training)


@given(histories=HISTORIES, accidental=st.floats(0, 1), shared=st.floats(0, 1))
@settings(max_examples=100)
def test_histories_are_only_added_to_and_from_what_trains(
    histories: list[list[int]], accidental: float, shared: float
) -> None:
    noise = NoiseConfig(accidental=accidental, shared=shared)
    noisy = noisy_histories(histories, noise)
    trained = {item for history in histories for item in history}
    for before, after in zip(histories, noisy, strict=True):
        assert is_subsequence(before, after)
        assert set(after) <= trained


# Accidental clicks


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_as_many_clicks_are_inserted_as_asked(rate: float) -> None:
    """Within four standard deviations of a binomial count."""
    interactions = len(CLEAN.validation.training.items)
    inserted = len(prepared(NoiseConfig(accidental=rate)).validation.training.items) - interactions
    spread = (interactions * rate * (1 - rate)) ** 0.5
    assert abs(inserted - rate * interactions) < 4 * spread


def test_at_rate_one_a_click_follows_every_interaction() -> None:
    histories = [[1, 2, 3], [4], [5, 6]]
    noisy = noisy_histories(histories, NoiseConfig(accidental=1))
    assert [history[::2] for history in noisy] == histories


def test_an_item_that_only_a_future_holds_is_never_inserted() -> None:
    """Of every user's twelve items, the last four are in nobody's training part."""
    table = table_of_histories({user: range(12) for user in range(20)})
    config = DataConfig(name="toy", num_futures=2, noise=NoiseConfig(accidental=1))
    noisy = split(table, config, silent)
    assert noisy.validation.num_items == 12
    assert set(noisy.validation.training.items.tolist()) == set(range(1, 9))


# Shared accounts


def test_a_pair_shares_one_history_with_both_in_it() -> None:
    histories = [[1, 2, 3, 4], [11, 12, 13]]
    first, second = noisy_histories(histories, NoiseConfig(shared=1))
    assert first == second
    assert sorted(first) == [1, 2, 3, 4, 11, 12, 13]
    assert all(is_subsequence(history, first) for history in histories)


def test_the_two_take_turns_as_they_come() -> None:
    """One after the other would be no shared account; of 199 turns about 100 change hands."""
    one, other = [1] * 100, [2] * 100
    merged, _ = noisy_histories([one, other], NoiseConfig(shared=1))
    changes = sum(first != second for first, second in itertools.pairwise(merged))
    assert 70 < changes < 130


@pytest.mark.parametrize(("share", "paired"), [(0.01, 0), (0.2, 20), (0.5, 50), (1.0, 100)])
def test_as_many_users_are_paired_as_asked(share: float, paired: int) -> None:
    """Of 101 users; one without a partner keeps its own history."""
    before = lists_of(CLEAN.validation.training)
    after = lists_of(prepared(NoiseConfig(shared=share)).validation.training)
    assert len(before) == 101
    changed = [user for user in range(len(before)) if before[user] != after[user]]
    assert len(changed) == paired

    partners: dict[tuple[int, ...], list[int]] = {}
    for user in changed:
        partners.setdefault(tuple(after[user]), []).append(user)
    for merged, users in partners.items():
        one, other = users
        assert sorted(merged) == sorted(before[one] + before[other])
        assert is_subsequence(before[one], merged)
        assert is_subsequence(before[other], merged)
