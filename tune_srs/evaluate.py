"""A scorer and sequences → ranks of the futures → metrics. Batched, no loop over users."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tune_srs.batches import NegativeSampler
from tune_srs.config import EvaluationConfig
from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import DataError
from tune_srs.metrics import names, per_user
from tune_srs.relevance import relevance
from tune_srs.tensors import tensor_of

MAX_SCORES = 2**22  # float32 scores held at once: 16 MiB
MAX_ROWS = 64


class Scorer(Protocol):
    """Whatever scores every item from histories: a model or a baseline."""

    max_length: int  # items of a history it looks at, the last ones

    def score(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Aligned-left `items` (B, L) with `lengths` (B,) → (B, I + 1); column 0 is padding."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every user, by name: `ndcg@10`, …, and `next/ndcg@10` for the nearest future."""

    per_user: dict[str, Tensor]  # (U,) float64 each, on the CPU

    def means(self) -> dict[str, float]:
        return {name: values.mean().item() for name, values in self.per_user.items()}


class Evaluator:
    """Scores of the futures of `sequences`, as the settings say; made once, called often."""

    def __init__(
        self, sequences: Sequences, config: EvaluationConfig, device: torch.device
    ) -> None:
        self.config = config
        self._sequences = sequences
        self._items = tensor_of(sequences.items, device)  # (T,)
        self._offsets = tensor_of(sequences.offsets, device)  # (U + 1,)
        self._futures = tensor_of(sequences.futures, device).long()  # (U, K)
        self._counted = _first_occurrences(self._futures)
        self._device = device
        self._longest = int(sequences.lengths.max())
        sampled = config.candidates == "sampled"
        self.negatives = self._sample() if sampled else None  # (U, n) in place of the catalogue

    def __call__(self, scorer: Scorer) -> Evaluation:
        """Metrics of `scorer`; it is called without gradients and should be in evaluation mode."""
        return self._measure(*self.ranks(scorer))

    def ranks(self, scorer: Scorer) -> tuple[Tensor, Tensor]:
        """Ranks, 0 the best, of all futures (U, K), and of the nearest one alone (U,)."""
        ranks = torch.empty_like(self._futures)
        next_ranks = torch.empty_like(self._futures[:, 0])
        with torch.no_grad():
            for users in self._chunks(scorer.max_length):
                ranks[users], next_ranks[users] = self._rank(scorer, users)
        return ranks, next_ranks

    def _measure(self, ranks: Tensor, next_ranks: Tensor) -> Evaluation:
        cutoffs = self.config.cutoffs
        gains = relevance(self.config.relevance, ranks.shape[1]).to(self._device)
        values = per_user(ranks, self._counted, cutoffs, gains)
        nearest = self._counted[:, :1]  # the nearest future is always counted
        alone = per_user(next_ranks[:, None], nearest, cutoffs, gains[:1])
        values |= {f"next/{name}": value for name, value in alone.items()}
        return Evaluation({name: values[name].cpu() for name in names(cutoffs)})

    def _chunks(self, max_length: int) -> Iterator[Tensor]:
        """Users by length, as many at a time as keeps the scores within `MAX_SCORES`."""
        rows = max(1, min(MAX_ROWS, MAX_SCORES // (self._sequences.num_items + 1)))
        by_length = np.argsort(np.minimum(self._sequences.lengths, max_length), kind="stable")
        for users in np.split(by_length, range(rows, len(by_length), rows)):
            yield torch.from_numpy(users).to(self._device)

    def _rank(self, scorer: Scorer, users: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks of all futures (B, K), and of the nearest alone (B,)."""
        scores = scorer.score(*self._histories(users, scorer.max_length))  # (B, I + 1)
        futures = self._futures[users]  # (B, K)
        own = scores.gather(1, futures)  # (B, K)
        if self.negatives is not None:
            rivals = scores.gather(1, self.negatives[users])  # (B, n)
            return self._rank_among(rivals, own, users)
        in_history = self._in_history(users)  # (B, I + 1)
        in_history[:, 0] = True  # padding is no candidate
        repeated = in_history.gather(1, futures)  # (B, K) futures that the history has too
        # an item of the history is no candidate, unless it is a future
        excluded = in_history.scatter(1, futures, False)
        ranks = _at_least(scores, excluded, own) - 1  # every future is at least as good as itself
        # alone, the nearest future does not compete with later ones from the history
        absent = repeated & self._counted[users] & (futures != futures[:, :1])
        next_ranks = ranks[:, 0] - (absent & ~(own < own[:, :1])).sum(dim=1)
        return ranks, next_ranks

    def _rank_among(self, rivals: Tensor, own: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
        """The same, against sampled candidates `rivals` (B, n) and the other futures."""
        none = torch.zeros_like(rivals, dtype=torch.bool)
        ranks = _at_least(rivals, none, own)  # (B, K)
        others = _at_least(own, ~self._counted[users], own) - 1
        return ranks + others, ranks[:, 0]

    def _histories(self, users: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """The last `max_length` items of each, aligned left: (B, L) and (B,)."""
        ends = self._offsets[users + 1]
        lengths = (ends - self._offsets[users]).clamp(max=max_length)
        columns = torch.arange(int(lengths.max()), device=self._device)
        place = (ends - lengths)[:, None] + columns
        items = self._items[place.clamp(max=len(self._items) - 1)].long()
        return items * (columns < lengths[:, None]), lengths

    def _in_history(self, users: Tensor) -> Tensor:
        """(B, I + 1) True for items of the whole history, if histories are excluded at all."""
        mask = torch.zeros(
            (len(users), self._sequences.num_items + 1), dtype=torch.bool, device=self._device
        )
        if self.config.exclude_history:
            items, _ = self._histories(users, self._longest)
            mask.scatter_(1, items, True)
        return mask

    def _sample(self) -> Tensor:
        """(U, n) distinct negatives a user, in neither history nor futures, from a fixed seed."""
        count = self.config.num_candidates
        sequences = self._sequences
        everything = sequences.advanced(sequences.futures)
        known = everything.users() * (sequences.num_items + 1) + everything.items
        sizes = np.bincount(np.unique(known) // (sequences.num_items + 1))
        if sequences.num_items - sizes.max() < count:
            raise DataError(
                f"evaluation.num_candidates={count} negatives asked, but user {sizes.argmax()} has "
                f"{sequences.num_items - sizes.max()} items left to draw from; lower it"
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        sampler = NegativeSampler(everything, torch.device("cpu"))
        users = torch.arange(sequences.num_users)
        drawn = sampler.sample(users, count, generator)
        while (repeats := _repeats(drawn)).any():
            again = sampler.sample(users, count, generator)
            drawn = torch.where(repeats, again, drawn)
        return drawn.to(self._device)


def _at_least(rivals: Tensor, excluded: Tensor, own: Tensor) -> Tensor:
    """For each of `own` (B, K), how many `rivals` (B, n) not `excluded` score no less: (B, K).

    Written as "no less" so that a score that is no number counts against the model.
    """
    lowest = rivals.masked_fill(excluded, -torch.inf)
    counts = torch.stack([(~(lowest < one)).sum(1) for one in own[:, :, None].unbind(1)], 1)
    # only a score that is the lowest, or no number, has the excluded beside it
    return counts - excluded.sum(1, keepdim=True) * ~(own > -torch.inf)


def _first_occurrences(items: Tensor) -> Tensor:
    """(U, K) True where an item has not stood further left in its row."""
    return ~_repeats(items)


def _repeats(items: Tensor) -> Tensor:
    """(U, n) True where an item has stood further left in its row."""
    ordered, place = items.sort(dim=1, stable=True)
    repeated = torch.zeros_like(items, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(repeated).scatter_(1, place, repeated)
