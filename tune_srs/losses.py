"""Training losses, weighted by relevance. Shapes: S slots, P positives, N negatives."""

from torch import Tensor
from torch.nn import functional


def multi_positive_bce(
    positives: Tensor,
    negatives: Tensor,
    exists: Tensor,
    weights: Tensor,
    positive_weight: float = 1.0,
) -> Tensor:
    """Binary cross-entropy with several positives a position (arXiv 2305.10824, section 4).

    positive_weight * mean over (s, j) of w_j log(1 + e^-x_sj)
                    + mean over (s, n) of log(1 + e^x_sn)

    `positives` (S, P) scores of the next P items, nearest first; `exists` (S, P) False beyond the
    end of the history; `negatives` (S, N) scores, which count where the first positive exists;
    `weights` (P,) by relevance. Returns a scalar.
    """
    nearer = functional.softplus(-positives) * weights
    attracted = (nearer * exists).sum() / exists.sum()
    inputs = exists[:, 0]
    repelled = functional.softplus(negatives).mean(dim=1)
    return positive_weight * attracted + (repelled * inputs).sum() / inputs.sum()
