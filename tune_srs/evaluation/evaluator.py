"""A scorer and a split → ranks of the futures → metrics. Batched, no loop over users."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tune_srs.config.settings import EvaluationConfig
from tune_srs.datasets.histories import Split
from tune_srs.datasets.statistics import in_history
from tune_srs.errors import DataError
from tune_srs.evaluation.device_histories import DeviceHistories
from tune_srs.evaluation.intervals import mean_intervals
from tune_srs.evaluation.metrics import MISSED, per_user
from tune_srs.metric_names import names
from tune_srs.negatives import UnseenSampler, seen_pairs
from tune_srs.relevance import relevance_per_user
from tune_srs.tensors import rows_between, tensor_of

MAX_USERS = 64  # scored at once: their scores stay in the cache
MAX_ITEMS = 2**16  # scored at once: with 64 users 16 MiB of float32


class Scorer(Protocol):
    """Scores items from histories: a model or a baseline."""

    max_length: int  # it looks at so many last items of a history

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return what `scores` needs, (B, ...), of `items` (B, L), aligned left, `lengths` (B,)."""
        ...

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        """Return scores (B, n) of the n `items`, a range of 1 … I."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Metrics per user, by name: `ndcg@10`, …, and `next/ndcg@10`, … for the nearest future."""

    per_user: dict[str, Tensor]  # (U,) float64 each, on the CPU

    def means(self) -> dict[str, float]:
        return {name: values.mean().item() for name, values in self.per_user.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the interval of each mean, see `intervals.mean_intervals`."""
        return mean_intervals({name: values.numpy() for name, values in self.per_user.items()})


def measure(
    ranks: Tensor, next_ranks: Tensor, counted: Tensor, number: Tensor, config: EvaluationConfig
) -> Evaluation:
    """Return all metrics of the ranks of all futures (U, K) and of the nearest one alone (U,).

    Each user has `number` (U,) futures. `counted` (U, K) is False for one that repeats a nearer
    one, and where there is none.
    """
    gains = relevance_per_user(config.relevance, number, ranks.shape[1])
    values = per_user(ranks, counted, config.cutoffs, gains)
    nearest = counted[:, :1]  # the nearest future is always counted
    alone = per_user(next_ranks[:, None], nearest, config.cutoffs, gains[:, :1])
    values |= {f"next/{name}": value for name, value in alone.items()}
    return Evaluation({name: values[name].cpu() for name in names(config.cutoffs)})


class Evaluator:
    """Scores the futures of a split, as the settings say; made once, called often.

    Which items are candidates depends on the history alone, never on the answers: a future that is
    no candidate counts as missed, as a recommendation would miss it.
    """

    def __init__(self, split: Split, config: EvaluationConfig, device: torch.device) -> None:
        self.config = config
        self._split = split
        self._device = device
        self._histories = DeviceHistories(split.histories.items, split.histories.offsets, device)
        self._futures = tensor_of(split.futures, device).long()  # (U, K), 0 where there is none
        self.counted = ~_repeats(self._futures) & (self._futures > 0)  # (U, K)
        self.number = tensor_of(split.future_counts, device)  # (U,) repetitions included
        self._ragged = bool((split.futures == 0).any())
        excluded = seen_pairs(split.histories) if config.exclude_history else np.empty(0, np.int64)
        offsets = np.searchsorted(excluded, np.arange(split.num_users + 1) * self._range)
        self._excluded = tensor_of(excluded % self._range, device)  # user by user
        self._excluded_offsets = tensor_of(offsets, device)  # (U + 1,)
        missed = split.futures == 0
        if config.exclude_history:
            missed |= in_history(split.histories, split.futures)
        self._missed = tensor_of(missed, device)  # (U, K) is no candidate
        sampled = config.candidates == "sampled"
        self.negatives = self._sample() if sampled else None  # (U, n) in place of the catalogue

    @property
    def _range(self) -> int:
        """One more than the highest item: a key of a user and an item is user * range + item."""
        return self._split.num_items + 1

    def __call__(self, scorer: Scorer) -> Evaluation:
        """Return the metrics of `scorer`, called without gradients; put it into evaluation mode."""
        return measure(*self.ranks(scorer), self.counted, self.number, self.config)

    def ranks(self, scorer: Scorer) -> tuple[Tensor, Tensor]:
        """Return the ranks, 0 the best, of all futures (U, K) and of the nearest one alone (U,).

        `MISSED` for a future that is no candidate.
        """
        ranks = torch.empty_like(self._futures)
        next_ranks = torch.empty_like(self._futures[:, 0])
        with torch.no_grad():
            for rows in self._histories.chunks(scorer.max_length):
                encoded = scorer.queries(*self._histories.last(rows, scorer.max_length))
                chunks = zip(*(torch.split(x, MAX_USERS) for x in (rows, encoded)), strict=True)
                for users, queries in chunks:
                    scores = _Catalogue(scorer, queries, self._split.num_items)
                    of_all, next_ranks[users] = self._rank(scores, users)
                    ranks[users, : of_all.shape[1]] = of_all
        return (
            ranks.masked_fill_(self._missed, MISSED),
            next_ranks.masked_fill_(self._missed[:, 0], MISSED),
        )

    def _rank(self, scores: "_Catalogue", users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ranks of the futures (B, most of these users) and of the nearest one (B,)."""
        width = self._futures.shape[1]
        if self._ragged:  # then most users have far fewer
            width = int(self.number[users].max())
        futures = self._futures[users, :width]  # (B, K)
        if self.negatives is not None:
            return self._rank_among(scores.of(self.negatives[users]), scores.of(futures), users)
        starts, ends = self._excluded_offsets[users], self._excluded_offsets[users + 1]
        excluded, present = rows_between(self._excluded, starts, ends)  # (B, E)
        known = scores.of(torch.cat([futures, excluded], dim=1))
        of_futures, of_excluded = known.tensor_split([futures.shape[1]], dim=1)
        # minus 1, because the future itself is counted, too
        ranks = scores.at_least(of_futures) - _at_least(of_excluded, of_futures, present) - 1
        return ranks, ranks[:, 0]

    def _rank_among(
        self, sampled: Tensor, of_futures: Tensor, users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the ranks among the scores (B, n) of sampled candidates and the other futures."""
        ranks = _at_least(sampled, of_futures)  # (B, K)
        rivals = (self.counted[users] & ~self._missed[users])[:, : ranks.shape[1]]
        others = _at_least(of_futures, of_futures, rivals) - 1
        return ranks + others, ranks[:, 0]

    def _sample(self) -> Tensor:
        """Draw n distinct negatives per user, in neither history nor futures: (U, n)."""
        count = self.config.num_candidates
        num_items = self._split.num_items
        everything = self._split.histories.followed_by(self._split.futures)
        sizes = np.bincount(seen_pairs(everything) // self._range)
        if num_items - sizes.max() < count:
            raise DataError(
                f"evaluation.num_candidates={count} is too high: some user has "
                f"{num_items - sizes.max()} items left to draw from; lower it"
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        sampler = UnseenSampler(everything, torch.device("cpu"))
        users = torch.arange(self._split.num_users)
        drawn = sampler.sample(users, count, generator)
        while (repeats := _repeats(drawn)).any():
            again = sampler.sample(users, count, generator)
            drawn = torch.where(repeats, again, drawn)
        return drawn.to(self._device)


class _Catalogue:
    """Scores of all items for one chunk of users, a chunk of items at a time.

    Scores that are compared must come from the same matrix product: only then are ties exact. A
    catalogue of several chunks is therefore scored twice, once to read the scores of the futures,
    once to count the items that reach them.
    """

    def __init__(self, scorer: Scorer, queries: Tensor, num_items: int) -> None:
        stop = num_items + 1
        self._slices = [slice(i, min(i + MAX_ITEMS, stop)) for i in range(1, stop, MAX_ITEMS)]
        self._scorer, self._queries = scorer, queries
        self._latest: tuple[slice, Tensor] | None = None

    def _scores(self, items: slice) -> Tensor:
        """Return the scores (B, n) of a chunk of items; the latest ones are kept.

        In a catalogue of one chunk everything is therefore scored once.
        """
        if self._latest is None or self._latest[0] != items:
            self._latest = items, self._scorer.scores(self._queries, items)
        return self._latest[1]

    def of(self, items: Tensor) -> Tensor:
        """Return the scores of `items` (B, M); undefined for padding (0)."""
        found = torch.zeros((), device=items.device)
        for chunk in self._slices:
            scores = self._scores(chunk)
            column = (items - chunk.start).clamp_(0, scores.shape[1] - 1)
            found = torch.where(items >= chunk.start, scores.gather(1, column), found)
        return found

    def at_least(self, thresholds: Tensor) -> Tensor:
        """Return how many items score no less than each of `thresholds` (B, K): (B, K)."""
        return sum(
            (_at_least(self._scores(chunk), thresholds) for chunk in self._slices),
            torch.zeros_like(thresholds, dtype=torch.int64),
        )


def _at_least(rivals: Tensor, thresholds: Tensor, candidates: Tensor | None = None) -> Tensor:
    """Return for each of `thresholds` (B, K) how many `rivals` (B, n) score no less: (B, K).

    Only rivals that are True in `candidates` (B, n) count. They are counted as "not less" so that a
    score that is not a number counts against the model.
    """
    # float 0 and 1, since adding booleans takes five times as long; exact below 2^24
    less = torch.empty(rivals.shape, device=rivals.device)
    count = torch.full_like(thresholds[:, :1], rivals.shape[1], dtype=torch.int64)
    if candidates is not None:
        count = candidates.sum(dim=1, keepdim=True)
    worse = []
    for one in thresholds.unbind(1):
        torch.lt(rivals, one[:, None], out=less)
        worse.append((less if candidates is None else less * candidates).sum(dim=1))
    return count - torch.stack(worse, dim=1).long()


def _repeats(items: Tensor) -> Tensor:
    """Return where an item has occurred further left in its row: (U, n)."""
    ordered, column = items.sort(dim=1, stable=True)
    repeated = torch.zeros_like(items, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(repeated).scatter_(1, column, repeated)
