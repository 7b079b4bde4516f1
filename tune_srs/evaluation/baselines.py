"""Baselines that a search must beat. They learn from the training histories only."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tune_srs.datasets.histories import Histories
from tune_srs.tensors import tensor_of


class Popularity:
    """Scores an item by how often it occurs in the training histories."""

    max_length = 1

    def __init__(self, histories: Histories) -> None:
        counts = np.bincount(histories.items, minlength=histories.num_items + 1)
        self._counts = torch.from_numpy(counts).double()  # (I + 1,)

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        return items[:, 0]

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        return self._counts[items].to(queries.device).expand(len(queries), -1)


class Markov:
    """Scores an item by how often it followed the last one; equal counts by popularity."""

    max_length = 1

    def __init__(self, histories: Histories) -> None:
        items, users = histories.items, histories.users()
        same_user = users[1:] == users[:-1]
        pairs = (items[:-1][same_user], items[1:][same_user])
        size = histories.num_items + 1
        ones = np.ones(len(pairs[0]))
        self._follows = sparse.csr_array((ones, pairs), shape=(size, size))
        counts = np.bincount(items, minlength=size)
        self._tie_break = counts / (counts.sum() + 1)  # (I + 1,) less than one transition each

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        return items[:, 0]

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        scores = self._follows[queries.cpu().numpy()][:, items].toarray() + self._tie_break[items]
        return tensor_of(scores, queries.device)


BASELINES: dict[str, Callable[[Histories], Popularity | Markov]] = {
    "popularity": Popularity,
    "markov": Markov,
}
