"""The items that a model scores highest, for many histories at once, on the CPU.

Shapes: N histories, B of them at a time, T items in all of them, D hidden units, k best items.
"""

import math

import torch
from torch import Tensor

from tune_srs.datasets.histories import Items, Offsets
from tune_srs.evaluation.device_histories import DeviceHistories
from tune_srs.evaluation.evaluator import MAX_ITEMS, MAX_USERS
from tune_srs.model.sasrec import SASRec
from tune_srs.tensors import rows_between, tensor_of

CPU = torch.device("cpu")


@torch.no_grad()
def top_items(
    model: SASRec, items: Items, offsets: Offsets, k: int, exclude_history: bool
) -> tuple[Tensor, Tensor]:
    """Return the k items (N, k) with the best scores for each history, best first, and the scores.

    History i is `items[offsets[i]:offsets[i + 1]]` and not empty. With `exclude_history` its own
    items are left out. If fewer than k remain, the rest has the score -inf.
    """
    histories = DeviceHistories(items, offsets, CPU)
    flat, ends = tensor_of(items, CPU), tensor_of(offsets, CPU)
    best = torch.empty(len(offsets) - 1, k, dtype=torch.int64)
    scores = torch.empty(len(offsets) - 1, k)
    for places in histories.chunks(model.max_length):
        encoded = model.queries(*histories.last(places, model.max_length))
        for some, queries in zip(
            torch.split(places, MAX_USERS), torch.split(encoded, MAX_USERS), strict=True
        ):
            seen, present = rows_between(flat, ends[some], ends[some + 1])
            excluded = seen.long() * (present & exclude_history)
            scores[some], best[some] = _best(model, queries, excluded, k)
    return best, scores


def _best(model: SASRec, queries: Tensor, excluded: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return scores and items (B, k) for `queries` (B, D), without `excluded` (B, E), or 0."""
    scores, items = queries.new_empty(len(queries), 0), excluded[:, :0]
    for start in range(1, model.num_items + 1, MAX_ITEMS):
        chunk = slice(start, min(start + MAX_ITEMS, model.num_items + 1))
        found = model.scores(queries, chunk)
        place = excluded - start
        inside = (place >= 0) & (place < found.shape[1])
        limit = torch.full(place.shape, math.inf).masked_fill_(inside, -math.inf)
        found.scatter_reduce_(1, place.clamp_(0, found.shape[1] - 1), limit, "amin")
        top, column = found.topk(min(k, found.shape[1]))
        scores = torch.cat([scores, top], dim=1)
        items = torch.cat([items, column + start], dim=1)
        scores, order = scores.topk(min(k, scores.shape[1]))
        items = items.gather(1, order)
    return scores, items
