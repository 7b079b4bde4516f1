"""Batches of a training epoch: users in random order, and their items."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_srs.datasets.histories import Histories
from tune_srs.errors import DataError
from tune_srs.model.padded import PaddedRows, Rows
from tune_srs.tensors import tensor_of


@dataclass(frozen=True)
class Batch:
    """The rows of B users, one after another, at T places. `BatchLoss` draws their negatives.

    A row is the part of a user's history that is seen, without its last item, which is only
    predicted. Padded rows are equally long: then T counts padding, too.
    """

    users: Tensor  # (T,) the user of the row
    items: Tensor  # (T,) int64; 0 at padding
    following: Tensor  # (T,) items from this one to the end of its row; 0 at padding
    offsets: Tensor | None  # (B + 1,) where the rows begin, or None: they are padded
    columns: int  # length of the longest row
    slots: Tensor  # (T,) position of the token in `seen`
    seen: Tensor  # (T + B,) the rows with their last items
    positions: Tensor  # (T + B,) of each of `seen` in the flat histories

    @property
    def rows(self) -> Rows:
        """How the model sees them."""
        if self.offsets is None:
            return PaddedRows(self.following.view(-1, self.columns))
        from tune_srs.model.packed import PackedRows  # here: training on a GPU needs no Numba

        return PackedRows(self.following, self.offsets)

    def waits(self, times: Tensor, count: int) -> Tensor:
        """Return how long after a token's item the next `count` = P come: (T, P).

        `times` (interactions,) are those of the flat histories. Undefined where an item does not
        exist.
        """
        of_seen = times[self.positions]
        ahead = torch.arange(1, count + 1, device=self.items.device)
        position = (self.slots[:, None] + ahead).clamp_(max=len(self.seen) - 1)
        return of_seen[position] - of_seen[self.slots, None]

    def positives(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the next `count` = P items, nearest first, and where they exist: (T, P) each."""
        ahead = torch.arange(1, count + 1, device=self.items.device)
        position = (self.slots[:, None] + ahead).clamp_(max=len(self.seen) - 1)
        return self.seen[position], self.following[:, None] >= ahead


class Batches:
    """Epochs over training histories: every user with at least two items, once each.

    Users are drawn without replacement; the last batch may be smaller. Of a longer history the last
    `max_length` + 1 items are seen. Packed rows have no padding, so that nothing is computed for
    it. With `padded` all batches have the same shape, and a batch is made on the device from its
    users alone: on a GPU launching kernels and waiting for them cost more than padding.
    """

    def __init__(
        self,
        histories: Histories,
        batch_size: int,
        max_length: int,
        device: torch.device,
        padded: bool = False,
    ) -> None:
        windows = np.minimum(histories.lengths, max_length + 1)
        self._trainable = torch.from_numpy(np.flatnonzero(windows > 1))
        if not len(self._trainable):
            raise DataError("no training history has two items; lower data.num_futures")
        self._nobody = len(windows)  # a user without items, to fill a padded batch
        starts = np.append(histories.offsets[1:] - windows, 0)
        self._windows = torch.from_numpy(np.append(windows, 0)).to(device)  # (U + 1,)
        self._starts = torch.from_numpy(starts).to(device)  # (U + 1,)
        self._items = tensor_of(histories.items, device)
        self._longest = int(windows.max())
        self._batch_size = batch_size
        self._device = device
        self._padded = padded

    def __len__(self) -> int:
        return -(-len(self._trainable) // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the users of each batch, on the device."""
        order = self._trainable[torch.randperm(len(self._trainable), generator=generator)]
        if self._padded:
            missing = len(self) * self._batch_size - len(order)
            order = torch.cat([order, order.new_full((missing,), self._nobody)])
        yield from torch.split(order.to(self._device), self._batch_size)

    def batch(self, users: Tensor) -> Batch:
        """Return the rows of `users` (B,), in their order."""
        return self._pad(users) if self._padded else self._pack(users)

    def _pack(self, users: Tensor) -> Batch:
        windows = self._windows[users]
        ends = windows.cumsum(0)
        row = torch.repeat_interleave(windows)  # (T + B,)
        column = torch.arange(len(row)) - (ends - windows)[row]
        positions = self._starts[users][row] + column
        seen = self._items[positions].long()
        following = windows[row] - 1 - column
        slots = following.nonzero().squeeze(1)
        offsets = torch.cat([ends.new_zeros(1), ends - torch.arange(1, len(users) + 1)])
        row = row[slots]
        columns = int(windows.max()) - 1
        tokens = (users[row], seen[slots], following[slots])
        return Batch(*tokens, offsets, columns, slots, seen, positions)

    def _pad(self, users: Tensor) -> Batch:
        column = torch.arange(self._longest, device=self._device)
        windows = self._windows[users, None]  # (B, 1)
        positions = (self._starts[users, None] + column).clamp_(max=len(self._items) - 1)
        seen = self._items[positions].long() * (column < windows)  # (B, columns + 1)
        following = (windows - 1 - column).clamp_(min=0)[:, :-1]
        slots = torch.arange(seen.numel(), device=self._device).view_as(seen)[:, :-1]
        known = users.clamp(max=self._nobody - 1)[:, None].expand_as(slots)
        columns = self._longest - 1
        tokens = (known.reshape(-1), (seen[:, :-1] * (following > 0)).reshape(-1))
        rows = (slots.reshape(-1), seen.reshape(-1), positions.reshape(-1))
        return Batch(*tokens, following.reshape(-1), None, columns, *rows)
