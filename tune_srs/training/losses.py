"""Training losses with several positives per position, each weighted by relevance.

All have one form: the mean, over positions s and their existing positives j, of w_sj l(s, j), and
for the pairwise ones the negatives' own mean. `pairs` (T, P) holds w_sj over what makes a sum with
it that mean, 0 where none exists; `draws` (T, N) does the same for negatives.

Shapes: T positions, P positives nearest first, N negatives, I items, D units. x are scores.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

MAX_SCORES = {"cpu": 2**20, "cuda": 2**26}  # in a chunk of full scores: 4 MiB fit into a cache


def pair_weights(weights: Tensor, exists: Tensor, normalization: str) -> Tensor:
    """Return what weighs each pair in a sum over them, of `weights` (P,) or (T, P): (T, P).

    `mean`: the weights over their sum, so that those of the pairs that `exist` (T, P) have mean 1.
    A learned weight's gradient is its pairs' own share, not that of the sum. `original`: the
    weights as they are, over the number of pairs.
    """
    weighted = weights * exists
    total = exists if normalization == "original" else weighted.detach()
    return weighted / total.sum()


def draw_weights(counted: Tensor, inputs: Tensor) -> Tensor:
    """Return weights (T, N) that make a sum over negatives a mean over positions of their means.

    `counted` (T, N) negatives of the positions that are `inputs` (T,) count; a position without
    counted negatives adds nothing.
    """
    number = counted.sum(dim=1, keepdim=True).clamp(min=1)
    return counted * inputs[:, None] / number / inputs.sum()


def bce(
    positives: Tensor,
    negatives: Tensor,
    pairs: Tensor,
    draws: Tensor,
    positive_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross-entropy (arXiv 2305.10824, section 4; one positive: arXiv 1808.09781).

    positive_weight * mean over (s, j) of w_sj log(1 + e^-x_sj)
                    + mean over (s, n) of log(1 + e^x_sn)

    `positives` (T, P), `negatives` (T, N); a scalar. Label smoothing e has the labels 1 - e / 2 and
    e / 2 in place of 1 and 0.
    """
    attracted = functional.softplus(-positives) + label_smoothing / 2 * positives
    repelled = functional.softplus(negatives) - label_smoothing / 2 * negatives
    return positive_weight * (pairs * attracted).sum() + (draws * repelled).sum()


def gbce(
    positives: Tensor,
    negatives: Tensor,
    pairs: Tensor,
    draws: Tensor,
    num_items: int,
    calibration: float,
    positive_weight: float = 1.0,
) -> Tensor:
    """Generalised binary cross-entropy of gSASRec (Petrov and Macdonald, arXiv 2308.07192).

    Positives as sigmoid(x)^b, so b log(1 + e^-x), with b the `gbce_power`. The negatives of a
    position are summed and all is divided by N + 1, as there.
    """
    count = negatives.shape[1]
    power = gbce_power(count, num_items, calibration)
    attracted = (pairs * functional.softplus(-positives)).sum()
    repelled = (draws * functional.softplus(negatives)).sum()
    return (positive_weight * power * attracted + count * repelled) / (count + 1)


def gbce_power(count: int, num_items: int, calibration: float) -> float:
    """Return b = a (t (1 - 1 / a) + 1 / a) of gSASRec for N = `count` negatives, in 0 … 1.

    t is the `calibration`, and a = N / (I - 1), at most 1, the share of the negatives that is
    drawn. With t = 0 b is 1.
    """
    rate = min(1.0, count / (num_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def bpr(positives: Tensor, negatives: Tensor, pairs: Tensor, draws: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv 1205.2618).

    Mean over (s, j) of w_sj times the mean over n of log(1 + e^(x_sn - x_sj)).
    """
    share = draws / draws.sum(dim=1, keepdim=True).clamp(min=torch.finfo(draws.dtype).tiny)
    lost = functional.softplus(negatives[:, None] - positives[:, :, None])  # (T, P, N)
    return (pairs * torch.einsum("tpn,tn->tp", lost, share)).sum()


def softmax(
    features: Tensor, table: Tensor, positives: Tensor, pairs: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy over the whole catalogue, the relevances its soft target.

    Mean over (s, j) of w_sj (log sum_i e^x_si - x_sj), with `features` (T, D) and the items'
    `table` (I, D), x = features table^T; `positives` (T, P). Label smoothing e moves the share e of
    the target to all items alike. Never more than `MAX_SCORES` scores, or one position's, at a
    time.
    """
    weights = pairs.sum(dim=1)  # (T,)
    partition: Tensor = _LogPartition.apply(features, table, weights)  # type: ignore[no-untyped-call]
    return partition - _target(features, table, positives, pairs, label_smoothing)


def sampled_softmax(
    features: Tensor,
    table: Tensor,
    positives: Tensor,
    counted: Tensor,
    negatives: Tensor,
    pairs: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`softmax` over the positives and a sample of negatives (Bengio and Senecal 2003).

    log(sum_j e^x_sj + sum_n e^x_sn) takes the place of the log of the full sum. Of the `positives`
    (T, P) those `counted` (T, P) are different items that exist, at least one at each position;
    `negatives` (T, N) are -inf where n does not count. With log-Q, x_sn comes less the log of how
    often item n is expected in the sample, and the sum's expectation is the full one. Positives are
    in the sum for certain, so nothing is subtracted from them.
    """
    different = positives.masked_fill(~counted, -torch.inf)
    partition = torch.cat([different, negatives], dim=1).logsumexp(dim=1)  # (T,)
    target = _target(features, table, positives, pairs, label_smoothing)
    return (pairs.sum(dim=1) * partition).sum() - target


def _target(
    features: Tensor, table: Tensor, positives: Tensor, pairs: Tensor, label_smoothing: float
) -> Tensor:
    """Return the target's mean score; the share `label_smoothing` of it lies on all items alike."""
    mean = (pairs * positives).sum()
    if not label_smoothing:
        return mean
    everywhere = (pairs.sum(dim=1) * (features @ table.mean(dim=0))).sum()
    return (1 - label_smoothing) * mean + label_smoothing * everywhere


class _LogPartition(torch.autograd.Function):
    """The sum over s of weight_s log sum_i e^x_si.

    The gradient is computed in the forward pass, while the scores exist: that of features and table
    is the softmax times the other one, that of the weights is the log.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, table: Tensor, weights: Tensor) -> Tensor:
        d_features, d_table = torch.empty_like(features), torch.zeros_like(table)
        logs = torch.empty_like(weights)
        rows = max(1, MAX_SCORES[features.device.type] // len(table))
        for start in range(0, len(features), rows):
            chunk = slice(start, start + rows)
            scores = features[chunk] @ table.T  # (rows, I)
            top = scores.amax(dim=1, keepdim=True)
            total = scores.sub_(top).exp_().sum(dim=1)
            logs[chunk] = top[:, 0] + total.log()
            scores.mul_((weights[chunk] / total)[:, None])
            torch.mm(scores, table, out=d_features[chunk])
            d_table.addmm_(scores.T, features[chunk])
        ctx.save_for_backward(d_features, d_table, logs)
        return (weights * logs).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        d_features, d_table, logs = ctx.saved_tensors
        return grad * d_features, grad * d_table, grad * logs
