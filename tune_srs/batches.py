"""What a training step sees: users in random order, their items, and negatives for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import DataError
from tune_srs.tensors import tensor_of


@dataclass(frozen=True)
class Batch:
    """The rows of B users, one after another: T tokens, each an item that others follow.

    A row is what is seen of a user's history, its last item left out: that is only predicted.
    Padded rows are equally long; what stands behind the end of a shorter one is no token.
    """

    users: Tensor  # (T,) whose row it is
    items: Tensor  # (T,) int64; 0 at padding
    following: Tensor  # (T,) how many items follow in the row; 0 at padding
    offsets: Tensor | None  # (B + 1,) where the rows begin, or None: they are padded
    columns: int  # length of the longest row
    slots: Tensor  # (T,) where the token stands in
    seen: Tensor  # (T + B,) the rows with their last items

    def positives(self, count: int) -> tuple[Tensor, Tensor]:
        """The next `count` items, nearest first, and where they exist: (T, P) each."""
        ahead = torch.arange(1, count + 1, device=self.items.device)
        place = (self.slots[:, None] + ahead).clamp_(max=len(self.seen) - 1)
        return self.seen[place], self.following[:, None] >= ahead


class Batches:
    """Epochs over the training histories: every user with at least two items, once each.

    Users are drawn without replacement; the last, partial batch counts. Of a longer history the
    last `max_length` + 1 items are seen. On the CPU rows are packed, so that nothing is computed
    for padding. With `padded` all batches have one and the same shape, and making one needs nothing
    but its users on the device: on a GPU launching and waiting cost more than padding.
    """

    def __init__(
        self,
        sequences: Sequences,
        batch_size: int,
        max_length: int,
        device: torch.device,
        padded: bool = False,
    ) -> None:
        sequences = sequences.training
        windows = np.minimum(sequences.lengths, max_length + 1)
        self._trainable = torch.from_numpy(np.flatnonzero(windows > 1))
        if not len(self._trainable):
            raise DataError("no training history has two items; lower data.num_futures")
        self._nobody = len(windows)  # a row without items, to fill a padded batch
        starts = np.append(sequences.offsets[1:] - windows, 0)
        self._windows = torch.from_numpy(np.append(windows, 0)).to(device)  # (U + 1,)
        self._starts = torch.from_numpy(starts).to(device)  # (U + 1,)
        self._items = tensor_of(sequences.items, device)
        self._longest = int(windows.max())
        self._batch_size = batch_size
        self._device = device
        self._padded = padded

    def __len__(self) -> int:
        return -(-len(self._trainable) // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The users of each batch, on the device."""
        order = self._trainable[torch.randperm(len(self._trainable), generator=generator)]
        if self._padded:
            missing = len(self) * self._batch_size - len(order)
            order = torch.cat([order, order.new_full((missing,), self._nobody)])
        yield from torch.split(order.to(self._device), self._batch_size)

    def batch(self, users: Tensor) -> Batch:
        """The rows of `users` (B,), in their order."""
        return self._pad(users) if self._padded else self._pack(users)

    def _pack(self, users: Tensor) -> Batch:
        windows = self._windows[users]
        ends = windows.cumsum(0)
        row = torch.repeat_interleave(windows)  # (T + B,)
        column = torch.arange(len(row)) - (ends - windows)[row]
        seen = self._items[self._starts[users][row] + column].long()
        following = windows[row] - 1 - column
        slots = following.nonzero().squeeze(1)
        offsets = torch.cat([ends.new_zeros(1), ends - torch.arange(1, len(users) + 1)])
        row = row[slots]
        columns = int(windows.max()) - 1
        return Batch(users[row], seen[slots], following[slots], offsets, columns, slots, seen)

    def _pad(self, users: Tensor) -> Batch:
        column = torch.arange(self._longest, device=self._device)
        windows = self._windows[users, None]  # (B, 1)
        place = (self._starts[users, None] + column).clamp_(max=len(self._items) - 1)
        seen = self._items[place].long() * (column < windows)  # (B, columns + 1)
        following = (windows - 1 - column).clamp_(min=0)[:, :-1]
        slots = torch.arange(seen.numel(), device=self._device).view_as(seen)[:, :-1]
        known = users.clamp(max=self._nobody - 1)[:, None].expand_as(slots)
        columns = self._longest - 1
        tokens = (known.reshape(-1), (seen[:, :-1] * (following > 0)).reshape(-1))
        return Batch(
            *tokens, following.reshape(-1), None, columns, slots.reshape(-1), seen.reshape(-1)
        )


class NegativeSampler:
    """Items outside a user's training history, uniformly, without a rejected draw.

    A user with m distinct items has I - m others. The r-th of them (r from 0) is the item
    r + |{i : h_i - i <= r}|, with h_0 < h_1 < … the history (items from 0).
    """

    def __init__(
        self, sequences: Sequences, device: torch.device, kernels: bool | None = None
    ) -> None:
        """By a compiled kernel or in torch; by default the former on a CPU."""
        self._kernels = device.type == "cpu" if kernels is None else kernels
        sequences = sequences.training
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
        starts = np.append(0, np.cumsum(sizes))
        shifted = items - (np.arange(len(items)) - starts[users])
        if self._kernels:
            shifted = shifted.astype(np.int32)
        else:  # each user's in a range of its own: one search for all of them
            shifted += users * self._range
        self._shifted = tensor_of(shifted, device)  # (distinct interactions,) ascending in a user
        self._starts = tensor_of(starts, device)  # (U + 1,)
        self._others = tensor_of(sequences.num_items - sizes, device)  # (U,)

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`users` (T,) → (T, count) items, drawn with replacement."""
        draws = torch.rand(
            (len(users), count), dtype=torch.float64, generator=generator, device=users.device
        )
        if self._kernels:
            return self._outside(users, draws)
        others = self._others[users, None]
        # float64 rounds the largest products up to the bound itself
        nth = (draws * others).long().minimum(others - 1)
        found = torch.searchsorted(self._shifted, users[:, None] * self._range + nth, right=True)
        return nth + (found - self._starts[users, None]) + 1

    def _outside(self, users: Tensor, draws: Tensor) -> Tensor:
        from tune_srs.kernels.items import outside  # here: training on a GPU needs no Numba

        items = torch.empty(draws.shape, dtype=torch.int64)
        tables = (self._starts, self._shifted, self._others, items)
        outside(users.numpy(), draws.numpy(), *(table.numpy() for table in tables))
        return items
