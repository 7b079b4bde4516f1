"""Ranks of several futures → metrics. Pure functions, one value per user.

Shapes: U users, K futures, nearest first. `ranks` (U, K): how many other candidates score at least
as high as the future, 0 the best; ties count against the model. `counted` (U, K): False for a
future that repeats a nearer one. n_u futures are counted for user u.

>>> import math
>>> ranks = torch.tensor([[2, 0, 99]])
>>> counted = torch.ones(1, 3, dtype=torch.bool)
>>> values = per_user(ranks, counted, cutoffs=(3,), gains=torch.tensor([3, 2, 1]))
>>> expected = (1 / math.log2(4) + 1 / math.log2(2)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
>>> math.isclose(values["ndcg@3"].item(), expected)
True
>>> values["hr@3"].item() == 2 / 3
True
"""

from collections.abc import Iterable

import torch
from torch import Tensor

RBO_PERSISTENCE = 0.9


def per_user(
    ranks: Tensor, counted: Tensor, cutoffs: Iterable[int], gains: Tensor
) -> dict[str, Tensor]:
    """Return every metric at every cutoff k, by name (`ndcg@10`): (U,) float64 each, in 0 … 1.

    `gains` (K,) are the gains of the futures in `ndcg_rel`; in `ndcg` each gain is 1.

    ndcg, ndcg_rel: discounted gain of the futures in the top k over that of the ideal ranking,
    which has min(k, n_u) terms. hr: hits / n_u, as in the paper, at most k / n_u. recall:
    hits / min(k, n_u). hit: 1 if any future is in the top k. mrr: 1 / (rank + 1) of
    the best one if in the top k. rbo, jaccard: agreement of the futures' predicted order with their
    true order.
    """
    values: dict[str, Tensor] = {}
    number = counted.sum(dim=1)
    best = ranks.masked_fill(~counted, torch.iinfo(ranks.dtype).max).amin(dim=1)
    for k in cutoffs:
        hits = ((ranks < k) & counted).sum(dim=1).double()
        values[f"ndcg@{k}"] = ndcg(ranks, counted, k, torch.ones_like(gains))
        values[f"ndcg_rel@{k}"] = ndcg(ranks, counted, k, gains)
        values[f"hr@{k}"] = hits / number
        values[f"recall@{k}"] = hits / number.clamp(max=k)
        values[f"hit@{k}"] = (hits > 0).double()
        values[f"mrr@{k}"] = (1.0 / (best + 1).double()) * (best < k)
        values[f"rbo@{k}"] = rank_biased_overlap(ranks, counted, k)
        values[f"jaccard@{k}"] = jaccard(ranks, counted, k)
    return values


def ndcg(ranks: Tensor, counted: Tensor, k: int, gains: Tensor) -> Tensor:
    """Return the normalised discounted cumulative gain (Järvelin and Kekäläinen 2002): (U,).

    sum over futures in the top k of gain / log2(rank + 2), divided by the same of the ideal
    ranking: the counted futures by falling gain, at most k of them.
    """
    gain = gains.double() * counted  # (U, K)
    found = gain * (ranks < k) / (ranks.double() + 2).log2()
    ideal = gain.sort(dim=1, descending=True).values[:, :k]
    discount = torch.arange(2, ideal.shape[1] + 2, device=ranks.device).double().log2()
    return found.sum(dim=1) / (ideal / discount).sum(dim=1)


def rank_biased_overlap(
    ranks: Tensor, counted: Tensor, k: int, persistence: float = RBO_PERSISTENCE
) -> Tensor:
    """Return the rank-biased overlap (Webber et al. 2010) of true and predicted order: (U,).

    sum over depths d = 1 … D of p^(d - 1) |true first d and predicted first d| / d, divided by
    sum p^(d - 1), so that the true order gets 1; D = min(k, n_u).
    """
    true, predicted = _positions(ranks, counted)
    number = counted.sum(dim=1)
    total = torch.zeros(len(ranks), dtype=torch.float64, device=ranks.device)
    norm = torch.zeros_like(total)
    for depth in range(1, min(k, ranks.shape[1]) + 1):
        overlap = ((true < depth) & (predicted < depth) & counted).sum(dim=1)
        weight = persistence ** (depth - 1) * (depth <= number)
        total += weight * overlap / depth
        norm += weight
    return total / norm


def jaccard(ranks: Tensor, counted: Tensor, k: int) -> Tensor:
    """Return |A and B| / |A or B| of the k nearest futures A and the k best-ranked ones B: (U,).

    1 by definition where k >= n_u: then both are all of the futures.
    """
    true, predicted = _positions(ranks, counted)
    a, b = (true < k) & counted, (predicted < k) & counted
    return (a & b).sum(dim=1) / (a | b).sum(dim=1).double()


def _positions(ranks: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the futures among themselves, true and predicted: (U, K) each.

    0 is the first. The predicted position is the number of other futures ranked at least as high:
    ties count against the model here too.
    """
    true = counted.cumsum(dim=1) - 1
    ahead = (ranks[:, None, :] <= ranks[:, :, None]) & counted[:, None, :]  # (U, K, K)
    return true, ahead.sum(dim=2) - 1
