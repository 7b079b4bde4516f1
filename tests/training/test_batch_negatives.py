"""The negatives of a batch: those that count, and what log-Q makes of them."""

import math
from typing import Any

import numpy as np
import torch
from support.small_data import histories_of

from tune_srs.config.settings import TrialConfig
from tune_srs.training.batch_negatives import Negatives, from_batch
from tune_srs.training.batches import Batches

CPU = torch.device("cpu")
HISTORIES = [[2, 3, 7, 3, 2, 2], [1, 4, 4], [7, 6, 1], [5, 5, 5, 5, 8]]
MOST = 3  # items of a history that are seen


def drawn_from(loss: dict[str, Any], seed: int) -> tuple[Any, ...]:
    """Users (T,), positives (T, 1), where they exist, and what is drawn for a batch of everyone."""
    histories = histories_of(HISTORIES, 9)
    changes = {f"loss.{name}": value for name, value in loss.items()}
    config = TrialConfig().with_overrides(changes | {"model.max_length": MOST})
    batches = Batches(histories, 10, MOST, CPU)
    (users,) = batches.epoch(torch.Generator().manual_seed(0))
    batch = batches.batch(users)
    positives, exists = batch.positives(1)
    negatives = Negatives(config, histories, CPU)
    drawn = negatives(batch.users, positives, exists, torch.Generator().manual_seed(seed))
    return batch.users, positives, exists, *drawn


def test_the_batch_gives_only_items_that_exist() -> None:
    targets, exists = torch.tensor([4, 0, 0, 2]), torch.tensor([True, False, False, True])
    items = from_batch(targets, exists, (3, 40), torch.Generator().manual_seed(0))
    assert items.shape == (3, 40)
    assert set(items.ravel().tolist()) == {2, 4}


def test_in_batch_negatives_are_never_the_user_s_own() -> None:
    for shared in (False, True):
        loss = {"type": "sampled_softmax", "num_negatives": 40, "in_batch_negatives": 0.9}
        users, _, exists, items, counted, _ = drawn_from(loss | {"share_negatives": shared}, 0)
        near = items.expand(len(users), 40)[:, 4:]
        for user, there, row, counts in zip(
            users.tolist(), exists[:, 0].tolist(), near, counted[:, 4:], strict=True
        ):
            own = torch.isin(row, torch.tensor(HISTORIES[user]))
            assert own.any()
            if there:
                assert torch.equal(counts, ~own)


def test_a_sampled_softmax_never_counts_what_the_position_is_to_predict() -> None:
    loss = {"type": "sampled_softmax", "num_negatives": 60}
    _, positives, exists, items, counted, _ = drawn_from(loss, 0)
    assert items.shape == (len(positives), 60)
    assert torch.equal(counted, ~((items == positives) & exists))
    assert len({tuple(row) for row in items.tolist()}) == len(items)  # each position has its own


def test_with_log_q_the_sampled_sum_has_the_expectation_of_the_full_one() -> None:
    """That of e^x over all items but the position's own positive, for each position."""
    scores = torch.randn(10, generator=torch.Generator().manual_seed(1))
    for extra in ({}, {"in_batch_negatives": 0.5}):
        loss = {"type": "sampled_softmax", "num_negatives": 8, "log_q": True} | extra
        sums = []
        for seed in range(1500):
            users, positives, exists, items, counted, log_q = drawn_from(loss, seed)
            estimate = ((scores[items] - log_q).exp() * counted).sum(dim=1)
            sums.append(estimate[exists[:, 0]].numpy())
        own = scores[positives[:, 0]][exists[:, 0]].exp()
        expected = (scores[1:].exp().sum() - own).numpy()
        error = np.std(sums, axis=0) / math.sqrt(len(sums))
        assert np.all(np.abs(np.mean(sums, axis=0) - expected) < 5 * error)
        assert len(users) == len(counted)
