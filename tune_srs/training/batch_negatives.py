"""The negatives of a batch: where they come from, which of them count, how often they are expected.

Shapes: T positions, P positives, N negatives, I items.
"""

import torch
from torch import Tensor

from tune_srs.config.settings import DEFAULT_SAMPLE, LossConfig, TrialConfig
from tune_srs.datasets.histories import Histories
from tune_srs.negatives import CatalogueSampler, Seen, UnseenSampler, seen_pairs, target_counts
from tune_srs.tensors import tensor_of


class Negatives:
    """Draws the negatives of each batch as the settings of the loss say."""

    def __init__(self, config: TrialConfig, histories: Histories, device: torch.device) -> None:
        loss = config.loss
        self._loss = loss
        self._near = round(num_negatives(loss) * loss.in_batch_negatives)
        self._far = num_negatives(loss) - self._near
        self.sampler: UnseenSampler | CatalogueSampler | None = None
        if loss.type == "softmax":
            return
        popularity = loss.negative_popularity
        if negatives_from(loss) == "unseen":
            self.sampler = UnseenSampler(histories, device, popularity)
        else:
            self.sampler = CatalogueSampler(histories, device, popularity)
        self._seen = (
            Seen(seen_pairs(histories), histories.num_items, device) if self._near else None
        )
        if loss.log_q:
            counts = target_counts(histories, config.model.max_length)
            self._frequency = tensor_of(counts / counts.sum(), device)  # (I,) among the targets

    def __call__(
        self, users: Tensor, positives: Tensor, exists: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what is drawn for a batch: negatives, which of them count, log-Q.

        Positions are of `users` (T,) and have `positives` (T, P) where these `exist` (T, P). The
        negatives are (T, N), or (N,) if all positions share them; (T, N) tells which count. In a
        sampled softmax neither the position's own positives do, nor items of the user's history
        that come from the batch. Log-Q is what to subtract from the scores, see `_log_q`.
        """
        items, counted = self._outside_the_batch(users, generator)
        seen: Tensor | None = None
        if self._seen is not None:
            shape = (self._near,) if self._loss.share_negatives else (len(users), self._near)
            near = from_batch(positives[:, 0], exists[:, 0], shape, generator)
            items = torch.cat([items, near], dim=-1)
            seen = self._seen.contains(users, items)  # (T, N)
            counted = torch.cat([counted, ~seen[:, self._far :]], dim=1)
        if self._loss.type == "sampled_softmax":
            counted &= ~_hits(items, positives, exists)
        return items, counted, self._log_q(items, seen)

    def _outside_the_batch(
        self, users: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        assert self.sampler is not None
        if self._loss.share_negatives:
            return self.sampler.shared(users, self._far, generator)
        items = self.sampler.sample(users, self._far, generator)
        return items, torch.ones_like(items, dtype=torch.bool)

    def _log_q(self, items: Tensor, seen: Tensor | None) -> Tensor | None:
        """Return the log of how often each of `items` is expected: (N,) or (T, N).

        Those from the batch occur as often as `target_counts` over all batches (Yi et al., RecSys
        2019); the others are drawn by popularity (mixed negative sampling, Yang et al., WWW 2020).
        None without log-Q.
        """
        if not self._loss.log_q:
            return None
        assert isinstance(self.sampler, CatalogueSampler)
        expected = (self._far * self.sampler.chances)[items - 1]
        if seen is not None:
            expected = expected + self._near * self._frequency[items - 1] * ~seen
        return expected.log().float()


def from_batch(
    targets: Tensor, exist: Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Return items of that shape from the `targets` (T,) of a batch that `exist` (T,)."""
    count = torch.Size(shape).numel()
    chosen = torch.multinomial(exist.float(), count, replacement=True, generator=generator)
    return targets[chosen].view(shape)


def negatives_from(config: LossConfig) -> str:
    """Return where negatives are drawn from; `sampled_softmax` takes all items, as eSASRec does."""
    many = "catalogue" if config.type == "sampled_softmax" else "unseen"
    return config.negatives_from or many


def num_negatives(config: LossConfig) -> int:
    """Return the number of negatives N; 0 for the full softmax."""
    if config.type == "softmax":
        return 0
    many = DEFAULT_SAMPLE if config.type == "sampled_softmax" else config.num_positives
    return config.num_negatives or many


def _hits(items: Tensor, positives: Tensor, exists: Tensor) -> Tensor:
    """Return where `items` (T, N), or (N,) for all, are positives of their position: (T, N)."""
    hits = torch.zeros(len(positives), items.shape[-1], dtype=torch.bool, device=items.device)
    for positive, there in zip(positives.unbind(1), exists.unbind(1), strict=True):
        hits |= (items == positive[:, None]) & there[:, None]
    return hits
