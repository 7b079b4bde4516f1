"""What a training step sees: users in random order, grouped by length, and negatives for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import DataError
from tune_srs.tensors import tensor_of

GROUPS = 8


@dataclass(frozen=True)
class Group:
    """Users of similar length, aligned left: `items[b, t]`, then padding (0).

    A row holds one item more than the model reads: its inputs are `items[:, :-1]`, and the
    positives of column t are the items at t + 1 … t + P.
    """

    users: Tensor  # (B,)
    items: Tensor  # (B, L + 1) int64
    lengths: Tensor  # (B,) inputs a row, 1 … L

    @property
    def tokens(self) -> Tensor:
        """(B, L) True where an input stands that is followed by an item."""
        columns = torch.arange(self.items.shape[1] - 1, device=self.items.device)
        return columns < self.lengths[:, None]

    def positives(self, count: int) -> Tensor:
        """(B, L, P) True where the j-th item after column t exists."""
        columns = torch.arange(self.items.shape[1] - 1, device=self.items.device)
        ahead = torch.arange(count, device=self.items.device)
        return columns[:, None] + ahead < self.lengths[:, None, None]


class Batches:
    """Epochs over the training histories: every user with at least two items, once each.

    Users are drawn without replacement; the last, partial batch counts. Of a longer history the
    last `max_length` + 1 items are seen. A batch is a list of groups, shortest rows first, so that
    little is computed for padding; together the groups are one random draw of `batch_size` users.
    """

    def __init__(
        self, sequences: Sequences, batch_size: int, max_length: int, device: torch.device
    ) -> None:
        windows = np.minimum(sequences.lengths, max_length + 1)
        self._trainable = torch.from_numpy(np.flatnonzero(windows > 1))
        if not len(self._trainable):
            raise DataError("no training history has two items; lower data.num_futures")
        self._windows = torch.from_numpy(windows)  # (U,) on the CPU: they decide the shapes
        self._items = tensor_of(sequences.items, device)
        self._starts = tensor_of(sequences.offsets[1:] - windows, device)  # (U,)
        self._batch_size = batch_size
        self._device = device

    def __len__(self) -> int:
        return -(-len(self._trainable) // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[list[Group]]:
        order = torch.randperm(len(self._trainable), generator=generator)
        for users in torch.split(self._trainable[order], self._batch_size):
            by_length = users[self._windows[users].argsort(stable=True)]
            groups = by_length.tensor_split(min(GROUPS, len(by_length)))
            yield [self._group(users) for users in groups]

    def _group(self, users: Tensor) -> Group:
        windows = self._windows[users].to(self._device)
        columns = torch.arange(int(self._windows[users[-1]]), device=self._device)
        users = users.to(self._device)
        place = self._starts[users, None] + columns  # (B, L + 1)
        inside = columns < windows[:, None]
        items = self._items[place.clamp_(max=len(self._items) - 1)].long() * inside
        return Group(users, items, windows - 1)


class NegativeSampler:
    """Items outside a user's training history, uniformly, without a rejected draw.

    A user with m distinct items has I - m others. The r-th of them (r from 0) is the item
    r + |{i : h_i - i <= r}|, with h_0 < h_1 < … the history (items from 0). One search in the
    values h_i - i of all users, each user's shifted into a range of its own, answers any number
    of draws.
    """

    def __init__(self, sequences: Sequences, device: torch.device) -> None:
        users, items = sequences.users(), sequences.items.astype(np.int64) - 1
        self._range = sequences.num_items + 1
        distinct = np.unique(users * self._range + items)
        users, items = distinct // self._range, distinct % self._range
        sizes = np.bincount(users, minlength=sequences.num_users)
        if sizes.max(initial=0) >= sequences.num_items:
            raise DataError(
                f"user {int(sizes.argmax())} has interacted with all {sequences.num_items} items, "
                f"so no negative can be drawn; leave such users out"
            )
        starts = np.cumsum(sizes) - sizes
        shifted = users * self._range + items - (np.arange(len(items)) - starts[users])
        self._shifted = tensor_of(shifted, device)  # (distinct interactions,) ascending
        self._starts = tensor_of(starts, device)  # (U,)
        self._others = tensor_of(sequences.num_items - sizes, device)  # (U,)

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`users` (M,) → (M, count) items, drawn with replacement."""
        draws = torch.rand(
            (len(users), count), dtype=torch.float64, generator=generator, device=users.device
        )
        others = self._others[users, None]
        # float64 rounds the largest products up to the bound itself
        nth = (draws * others).long().minimum(others - 1)
        found = torch.searchsorted(self._shifted, users[:, None] * self._range + nth, right=True)
        return nth + (found - self._starts[users, None]) + 1
