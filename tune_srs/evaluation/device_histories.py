"""Histories as flat tensors on a device, and the batches of them that a scorer takes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tune_srs.datasets.histories import Items, Offsets
from tune_srs.tensors import rows_between, tensor_of

MAX_ROWS = 1024  # histories encoded at once


class DeviceHistories:
    """History i is `items[offsets[i]:offsets[i + 1]]`, oldest first, not empty; items are 1 … I."""

    def __init__(self, items: Items, offsets: Offsets, device: torch.device) -> None:
        self._lengths = np.diff(offsets)
        self._items = tensor_of(items, device)  # (T,)
        self._offsets = tensor_of(offsets, device)  # (U + 1,)

    def chunks(self, max_length: int) -> Iterator[Tensor]:
        """Yield the rows (B,) of all histories, those of similar length together."""
        by_length = np.argsort(np.minimum(self._lengths, max_length), kind="stable")
        for rows in np.split(by_length, range(MAX_ROWS, len(by_length), MAX_ROWS)):
            yield torch.from_numpy(rows).to(self._offsets.device)

    def last(self, rows: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """Return the last `max_length` items of each, aligned left: (B, L), and how many: (B,)."""
        ends = self._offsets[rows + 1]
        starts = torch.maximum(self._offsets[rows], ends - max_length)
        items, present = rows_between(self._items, starts, ends)
        return items.long() * present, ends - starts
