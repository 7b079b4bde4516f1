"""Ranks of several futures → metrics. Pure functions, one value per user.

Shapes: U users, K futures, nearest first. `ranks` (U, K): how many other candidates score at least
as high as the future, 0 the best; ties count against the model; `MISSED` for a future that is no
candidate. `counted` (U, K): False for a future that repeats a nearer one, and where a user has
fewer than K futures. n_u futures, at least one, are counted for user u.

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
MISSED = 2**31 - 1  # the rank of what is no candidate: behind every cutoff


def per_user(
    ranks: Tensor, counted: Tensor, cutoffs: Iterable[int], gains: Tensor
) -> dict[str, Tensor]:
    """Return every metric at every cutoff k, by name (`ndcg@10`): (U,) float64 each, in 0 … 1.

    `gains` (K,) or (U, K) are the gains of the futures in `ndcg_rel`; in `ndcg` each gain is 1.

    ndcg, ndcg_rel: discounted gain of the futures in the top k over that of the ideal ranking,
    which has min(k, n_u) terms. hr: hits / n_u, as in the paper, at most k / n_u. recall:
    hits / min(k, n_u). hit: 1 if any future is in the top k. mrr: 1 / (rank + 1) of
    the best one if in the top k. rbo, jaccard: agreement of the futures' true order with the
    ranking of all candidates, as in the paper. order_rbo, order_jaccard: with the predicted order
    of the futures alone.
    """
    values: dict[str, Tensor] = {}
    number = counted.sum(dim=1)
    best = ranks.masked_fill(~counted, MISSED).amin(dim=1)
    true = counted.cumsum(dim=1) - 1
    among = _places(ranks, counted)
    for k in cutoffs:
        hits = ((ranks < k) & counted).sum(dim=1).double()
        values[f"ndcg@{k}"] = ndcg(ranks, counted, k, torch.ones_like(gains))
        values[f"ndcg_rel@{k}"] = ndcg(ranks, counted, k, gains)
        values[f"hr@{k}"] = hits / number
        values[f"recall@{k}"] = hits / number.clamp(max=k)
        values[f"hit@{k}"] = (hits > 0).double()
        values[f"mrr@{k}"] = (1.0 / (best + 1).double()) * (best < k)
        values[f"rbo@{k}"] = rank_biased_overlap(true, ranks, counted, k)
        values[f"jaccard@{k}"] = jaccard(true, ranks, counted, k, alone=False)
        values[f"order_rbo@{k}"] = rank_biased_overlap(true, among, counted, k)
        values[f"order_jaccard@{k}"] = jaccard(true, among, counted, k, alone=True)
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
    true: Tensor, predicted: Tensor, counted: Tensor, k: int, persistence: float = RBO_PERSISTENCE
) -> Tensor:
    """Return the rank-biased overlap (Webber et al. 2010) of two orders of the futures: (U,).

    `true` and `predicted` (U, K) are the places of the futures in each, 0 the first. The sum over
    depths d = 1 … D of p^(d - 1) |true first d and predicted first d| / d, divided by that of
    p^(d - 1), so that the true order gets 1; D = min(k, n_u).
    """
    number = counted.sum(dim=1)
    total = torch.zeros(len(true), dtype=torch.float64, device=true.device)
    norm = torch.zeros_like(total)
    for depth in range(1, min(k, true.shape[1]) + 1):
        overlap = ((true < depth) & (predicted < depth) & counted).sum(dim=1).double()
        weight = persistence ** (depth - 1) * (depth <= number).double()
        total += weight * overlap / depth
        norm += weight
    return total / norm


def jaccard(true: Tensor, predicted: Tensor, counted: Tensor, k: int, alone: bool) -> Tensor:
    """Return |A and B| / |A or B| of the first D of the true order A, and of the predicted B: (U,).

    Places as in `rank_biased_overlap`; D = min(k, n_u). B has D members, but `alone`, among the
    futures, it lacks those that are tied.
    """
    depth = counted.sum(dim=1, keepdim=True).clamp(max=k)  # (U, 1)
    a, b = (true < depth) & counted, (predicted < depth) & counted
    both, size = (a & b).sum(dim=1), b.sum(dim=1) if alone else depth[:, 0]
    return both.double() / (depth[:, 0] + size - both)


def _places(ranks: Tensor, counted: Tensor) -> Tensor:
    """Return the predicted places of the futures among themselves, 0 the first: (U, K).

    A place is the number of other futures ranked at least as high: ties count against the model
    here too.
    """
    ordered = ranks.masked_fill(~counted, MISSED + 1).sort(dim=1).values
    return torch.searchsorted(ordered, ranks.contiguous(), right=True) - 1
