"""Negatives: items that a model learns to score low, drawn by popularity^a.

Shapes: T tokens, N negatives, U users, I items.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tune_srs.datasets.histories import Histories
from tune_srs.errors import DataError
from tune_srs.tensors import tensor_of

TOTAL = 2**32  # into which popularities are divided: exact, and good for 2^31 users in 63 bits

Masses = npt.NDArray[np.int64]


def masses(histories: Histories, popularity: float) -> Masses:
    """Return the mass that each item is drawn with: (I,) whole numbers >= 1.

    All masses are 1 if `popularity`, the exponent a, is 0. Otherwise they are proportional to
    popularity^a in the training histories and add up to 2^32; an item that never occurs there, or
    next to never, has mass 1.
    """
    if popularity == 0:
        return np.ones(histories.num_items, np.int64)
    counts = np.bincount(histories.items, minlength=histories.num_items + 1)[1:]
    weights = np.where(counts > 0, counts.astype(np.float64) ** popularity, 0)
    rounded: Masses = np.rint(weights * (TOTAL / weights.sum())).astype(np.int64)
    return np.maximum(1, rounded)


class Seen:
    """Tells which items stand in which user's history."""

    def __init__(self, pairs: Masses, num_items: int, device: torch.device) -> None:
        """`pairs` as `seen_pairs` gives them."""
        self._range = num_items + 1
        self._pairs = tensor_of(pairs, device)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Return where `items` (T, N), or (N,) for all, are in the history of `users` (T,)."""
        pairs = users[:, None] * self._range + items  # (T, N)
        nearest = torch.searchsorted(self._pairs, pairs).clamp_(max=len(self._pairs) - 1)
        return self._pairs[nearest] == pairs


class UnseenSampler:
    """Draws items outside a user's training history, without rejecting any draw.

    Lay the items side by side, each as wide as its mass, and take the user's items out. A point r
    of what is left is the point r + (widths of the history items h taken out before it) of the
    whole. These are the h with C(h) - (widths of the history items before h) <= r, where h begins
    at C(h).
    """

    def __init__(
        self,
        histories: Histories,
        device: torch.device,
        popularity: float = 0.0,
        kernels: bool | None = None,
    ) -> None:
        """Draw by a compiled kernel if `kernels`: by default on a CPU if all masses are equal."""
        self._kernels = device.type == "cpu" and popularity == 0 if kernels is None else kernels
        pairs = seen_pairs(histories)
        self._seen = Seen(pairs, histories.num_items, device)
        users, items = np.divmod(pairs, histories.num_items + 1)
        items = items - 1
        sizes = np.bincount(users, minlength=histories.num_users)
        if sizes.max(initial=0) >= histories.num_items:
            raise DataError(
                f"user {int(sizes.argmax())} has interacted with all {histories.num_items} items, "
                f"so no negative can be drawn; leave such users out"
            )
        widths = masses(histories, popularity)
        ends = np.cumsum(widths)
        starts = np.append(0, np.cumsum(sizes))
        taken = np.append(0, np.cumsum(widths[items]))  # by the history items so far, of all users
        before = taken[:-1] - taken[starts[users]]  # of the same user
        shifted = ends[items] - widths[items] - before
        self._stride = int(ends[-1]) + 1
        if self._kernels:
            shifted = shifted.astype(np.int32)
        else:  # a separate range per user, so that one search finds all
            shifted += users * self._stride
        of_user = taken[starts[1:]] - taken[starts[:-1]]
        self._shifted = tensor_of(shifted, device)  # (distinct interactions,) ascending in a user
        self._starts = tensor_of(starts, device)  # (U + 1,)
        self._others = tensor_of(ends[-1] - of_user, device)  # (U,) mass of all other items
        self._taken = tensor_of(taken, device)
        self._ends = tensor_of(ends, device)  # (I,)

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` items per entry of `users` (T,), drawn with replacement: (T, count)."""
        draws = torch.rand(
            (len(users), count), dtype=torch.float64, generator=generator, device=users.device
        )
        if self._kernels:
            return self._outside(users, draws)
        others = self._others[users, None]
        # float64 rounds the largest products up to the bound itself
        nth = (draws * others).long().minimum(others - 1)
        row = users[:, None]
        found = torch.searchsorted(self._shifted, row * self._stride + nth, right=True)
        point = nth + self._taken[found] - self._taken[self._starts[row]]
        return torch.searchsorted(self._ends, point, right=True) + 1

    def _outside(self, users: Tensor, draws: Tensor) -> Tensor:
        from tune_srs.kernels.items import outside  # here: training on a GPU needs no Numba

        items = torch.empty(draws.shape, dtype=torch.int64)
        tables = (self._starts, self._shifted, self._others, items)
        outside(users.numpy(), draws.numpy(), *(table.numpy() for table in tables))
        return items

    def shared(
        self, users: Tensor, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return items for all tokens, (N,), and where they are outside a history, (T, N).

        Row t of the latter is of the history of `users[t]`.
        """
        items = draw(self._ends, (count,), generator)
        return items, ~self._seen.contains(users, items)


class CatalogueSampler:
    """Draws items of the whole catalogue, those of the user's history included."""

    def __init__(self, histories: Histories, device: torch.device, popularity: float = 0.0) -> None:
        widths = masses(histories, popularity)
        self._uniform = popularity == 0
        self._ends = tensor_of(np.cumsum(widths), device)  # (I,)
        self.chances = tensor_of(widths / widths.sum(), device)  # (I,) of item i at i - 1

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` items per entry of `users` (T,), drawn with replacement: (T, count)."""
        return self._draw((len(users), count), generator)

    def shared(
        self, users: Tensor, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return items for all tokens, (N,), and that all of them count, (T, N)."""
        items = self._draw((count,), generator)
        return items, torch.ones(len(users), count, dtype=torch.bool, device=users.device)

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if not self._uniform:
            return draw(self._ends, shape, generator)
        stop = len(self._ends) + 1
        return torch.randint(1, stop, shape, generator=generator, device=self._ends.device)


def seen_pairs(histories: Histories) -> Masses:
    """Return the distinct user * (I + 1) + item of all interactions, ascending."""
    pairs: Masses = np.unique(histories.users() * (histories.num_items + 1) + histories.items)
    return pairs


def target_counts(histories: Histories, max_length: int) -> Masses:
    """Return how often each item is the next one of a position in an epoch: (I,)."""
    ends = histories.offsets[1:]
    starts = ends - np.minimum(histories.lengths, max_length + 1) + 1  # behind the first one seen
    seen = np.zeros(len(histories.items) + 1, np.int64)
    np.add.at(seen, np.minimum(starts, ends), 1)
    np.add.at(seen, ends, -1)
    targets = histories.items[np.cumsum(seen[:-1]) > 0]
    return np.bincount(targets, minlength=histories.num_items + 1)[1:]


def draw(ends: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw items of that shape, each with the chance of its width; `ends` (I,) of the widths."""
    total = ends[-1]
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=ends.device)
    point = (uniform * total).long().minimum(total - 1)
    return torch.searchsorted(ends, point, right=True) + 1
