"""Histories of interactions as flat arrays; a split: what trains, and what is predicted from what.

Items are numbered from 1 to `num_items`; 0 is padding and never occurs in these arrays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Items = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """The T interactions of U users, one user after another, each user's oldest first.

    `times` are whole seconds since 1970, rounded down. A user's times never descend, except in
    histories of shared accounts (`NoiseConfig.shared`). Histories that do not train have no times,
    and neither have those of a log that tells only the order.
    """

    items: Items  # (T,)
    offsets: Offsets  # (U + 1,) user u's history is items[offsets[u]:offsets[u + 1]]
    num_items: int
    times: Times | None = None  # (T,)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Offsets:
        """(U,) interactions in each history."""
        return np.diff(self.offsets)

    def users(self) -> Offsets:
        """Return the user of each interaction: (T,)."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    def occurring(self) -> npt.NDArray[np.bool_]:
        """Return which of the items 0 … I occur: (I + 1,)."""
        found = np.zeros(self.num_items + 1, dtype=bool)
        found[self.items] = True
        return found

    def followed_by(self, futures: Items) -> "Histories":
        """Return each history with its `futures` (U, K) behind it, without times; 0 is none."""
        present = futures > 0
        counts = present.sum(axis=1)
        items = np.insert(self.items, np.repeat(self.offsets[1:], counts), futures[present])
        offsets = self.offsets + np.concatenate([[0], np.cumsum(counts)])
        return Histories(items, offsets, self.num_items)


@dataclass(frozen=True)
class Split:
    """The histories that train, and the futures to be predicted from which histories.

    `histories` and `futures` belong to the V users that are scored. Where these are the users that
    train, `histories` is `training`, the very object. The validation split never holds test
    futures.

    Users may have different numbers of futures, at least one: then rows are filled up with 0 at
    their ends, which is no future.
    """

    training: Histories
    histories: Histories
    futures: Items  # (V, K) the interactions that follow each of `histories`, nearest first

    @property
    def num_items(self) -> int:
        return self.histories.num_items

    @property
    def future_counts(self) -> Offsets:
        """(V,) futures of each user, at least 1."""
        counts: Offsets = (self.futures > 0).sum(axis=1)
        return counts

    @property
    def num_users(self) -> int:
        """How many users are scored: V."""
        return len(self.futures)

    @property
    def num_futures(self) -> int:
        """How many futures a user has at most: K."""
        return int(self.futures.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, shared ones once."""
        arrays = {id(self.futures): self.futures.nbytes}
        for one in (self.training, self.histories):
            for array in (one.items, one.offsets, one.times):
                arrays |= {} if array is None else {id(array): array.nbytes}
        return sum(arrays.values())
