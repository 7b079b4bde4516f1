"""Epochs and negatives: nothing left out, nothing twice, nothing known drawn."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_data import histories_of, random_split

from tune_srs.datasets.histories import Histories
from tune_srs.errors import DataError
from tune_srs.training.batches import Batch, Batches

CPU = torch.device("cpu")


def rows_of(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """Each row of the batch: (user, item, following) of its tokens."""
    tokens = list(
        zip(batch.users.tolist(), batch.items.tolist(), batch.following.tolist(), strict=True)
    )
    if batch.offsets is None:
        ends = list(range(batch.columns, len(tokens) + 1, batch.columns))
    else:
        ends = batch.offsets[1:].tolist()
    assert ends[-1] == len(tokens)
    return [tokens[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def epoch_of(
    histories: Histories, batch_size: int, max_length: int, seed: int = 0, padded: bool = False
) -> list[list[int]]:
    """The users of each batch, after a check of every row they came with."""
    batches = Batches(histories, batch_size, max_length, CPU, padded)
    longest = min(histories.lengths.max(), max_length + 1)
    visited = []
    for users in batches.epoch(torch.Generator().manual_seed(seed)):
        batch = batches.batch(users)
        there = []
        for row in rows_of(batch):
            user = row[0][0]
            start, end = histories.offsets[user], histories.offsets[user + 1]
            window = histories.items[start:end][-(max_length + 1) :].tolist()
            if padded and not any(following for _, _, following in row):  # fills the batch
                window = [0]
            inputs = window[:-1]
            padding = longest - len(window) if padded else 0
            assert row == [
                *((user, item, len(inputs) - t) for t, item in enumerate(inputs)),
                *[(user, 0, 0)] * padding,
            ]
            there += [user] * bool(inputs)
        visited.append(there)
        if padded:
            assert len(batch.items) == batch_size * (longest - 1)
        assert batch.columns == (longest - 1 if padded else max(map(len, rows_of(batch))))
    assert len(visited) == len(batches)
    return visited


@pytest.mark.parametrize("padded", [False, True])
def test_positives_are_the_items_that_follow(padded: bool) -> None:
    histories = random_split(0, users=40).training
    batches = Batches(histories, 8, 5, CPU, padded)
    for users in batches.epoch(torch.Generator().manual_seed(0)):
        batch = batches.batch(users)
        positives, exists = batch.positives(3)
        found = [row[there].tolist() for row, there in zip(positives, exists, strict=True)]
        expected = []
        for user, following in zip(batch.users.tolist(), batch.following.tolist(), strict=True):
            end = histories.offsets[user + 1]
            expected.append(histories.items[end - following : end][:3].tolist())
        assert found == expected


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    users=st.integers(2, 40),
    batch_size=st.integers(1, 50),
    max_length=st.integers(1, 10),
    padded=st.booleans(),
)
def test_an_epoch_visits_every_trainable_user_once(
    seed: int, users: int, batch_size: int, max_length: int, padded: bool
) -> None:
    histories = random_split(seed, users).training
    trainable = np.flatnonzero(histories.lengths >= 2).tolist()
    if not trainable:
        return
    visited = epoch_of(histories, batch_size, max_length, padded=padded)
    assert sorted(user for batch in visited for user in batch) == trainable
    assert [len(batch) for batch in visited[:-1]] == [batch_size] * (len(visited) - 1)


def test_the_order_follows_the_generator() -> None:
    histories = random_split(0, users=40).training
    assert epoch_of(histories, 8, 5, seed=1) == epoch_of(histories, 8, 5, seed=1)
    assert epoch_of(histories, 8, 5, seed=1) != epoch_of(histories, 8, 5, seed=2)


def test_every_epoch_has_an_order_of_its_own() -> None:
    batches = Batches(random_split(0, users=40).training, 8, 5, CPU)
    generator = torch.Generator().manual_seed(0)
    first, second = ([users.tolist() for users in batches.epoch(generator)] for _ in range(2))
    assert sorted(chain.from_iterable(first)) == sorted(chain.from_iterable(second))
    # who shares a batch changes too, not only the order of the batches
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_nobody_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match=r"lower data\.num_futures"):
        Batches(histories_of([[1], [2]], 5), 2, 5, CPU)
