"""What a training step sees: users in random order, grouped by length, and negatives for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_srs.attention import Shapes
from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import DataError
from tune_srs.tensors import tensor_of

GROUPS = 8


@dataclass(frozen=True)
class Batch:
    """Rows of users in groups of similar length, one after another: S slots.

    A slot holds an item or, behind the end of a shorter row, padding (0). Every item but a row's
    last is an input, its positives are the items in the slots behind it.
    """

    users: Tensor  # (S,) whose row it is
    items: Tensor  # (S,) int64
    following: Tensor  # (S,) how many items follow in the row; 0 at its last item and at padding
    shapes: Shapes

    def positives(self, count: int) -> tuple[Tensor, Tensor]:
        """The next `count` items, nearest first, and where they exist: (S, P) each."""
        ahead = torch.arange(1, count + 1, device=self.items.device)
        slots = torch.arange(len(self.items), device=self.items.device)
        place = (slots[:, None] + ahead).clamp_(max=len(slots) - 1)
        return self.items[place], self.following[:, None] >= ahead


class Batches:
    """Epochs over the training histories: every user with at least two items, once each.

    Users are drawn without replacement; the last, partial batch counts. Of a longer history the
    last `max_length` + 1 items are seen. On the CPU rows of similar length share a group, so that
    little is computed for padding; together the groups are one random draw of `batch_size` users.
    With `fixed_shape` all batches have one and the same shape, and making one needs nothing but its
    users on the device: on a GPU launching and waiting cost more than padding.
    """

    def __init__(
        self,
        sequences: Sequences,
        batch_size: int,
        max_length: int,
        device: torch.device,
        fixed_shape: bool = False,
    ) -> None:
        windows = np.minimum(sequences.lengths, max_length + 1)
        self._trainable = torch.from_numpy(np.flatnonzero(windows > 1))
        if not len(self._trainable):
            raise DataError("no training history has two items; lower data.num_futures")
        self._nobody = len(windows)  # a row without items, to fill a batch of fixed shape
        starts = np.append(sequences.offsets[1:] - windows, 0)
        self._windows = torch.from_numpy(np.append(windows, 0)).to(device)  # (U + 1,)
        self._starts = torch.from_numpy(starts).to(device)  # (U + 1,)
        self._items = tensor_of(sequences.items, device)
        self._longest = int(windows.max())
        self._batch_size = batch_size
        self._device = device
        self._fixed_shape = fixed_shape

    def __len__(self) -> int:
        return -(-len(self._trainable) // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The users of each batch, on the device."""
        order = self._trainable[torch.randperm(len(self._trainable), generator=generator)]
        if self._fixed_shape:
            missing = len(self) * self._batch_size - len(order)
            order = torch.cat([order, order.new_full((missing,), self._nobody)])
        yield from torch.split(order.to(self._device), self._batch_size)

    def batch(self, users: Tensor) -> Batch:
        """The rows of `users` (B,), the shortest first."""
        if self._fixed_shape:
            return self._rows(users, self._longest)
        by_length = users[self._windows[users].argsort(stable=True)]
        groups = by_length.tensor_split(min(GROUPS, len(by_length)))
        parts = [self._rows(users, int(self._windows[users[-1]])) for users in groups]
        return Batch(
            torch.cat([part.users for part in parts]),
            torch.cat([part.items for part in parts]),
            torch.cat([part.following for part in parts]),
            tuple(shape for part in parts for shape in part.shapes),
        )

    def _rows(self, users: Tensor, columns: int) -> Batch:
        """One group of `users` (B,), `columns` wide."""
        column = torch.arange(columns, device=self._device)
        windows = self._windows[users, None]  # (B, 1)
        place = (self._starts[users, None] + column).clamp_(max=len(self._items) - 1)
        items = self._items[place].long() * (column < windows)
        following = (windows - 1 - column).clamp_(min=0)
        known = users.clamp(max=self._nobody - 1)[:, None].expand_as(items)
        shape = (len(users), columns)
        return Batch(known.reshape(-1), items.reshape(-1), following.reshape(-1), (shape,))


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
