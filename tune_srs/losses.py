"""Training losses, weighted by relevance. Shapes: T positions, P positives, N negatives."""

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

    positive_weight * mean over (t, j) of w_j log(1 + e^-s_tj)
                    + mean over (t, n) of log(1 + e^s_tn)

    `positives` (T, P) scores of the next P items, nearest first; `exists` (T, P) False beyond the
    end of the history; `negatives` (T, N) scores; `weights` (P,) by relevance. Returns a scalar.
    """
    nearer = functional.softplus(-positives) * weights
    attracted = (nearer * exists).sum() / exists.sum()
    repelled = functional.softplus(negatives).mean()
    return positive_weight * attracted + repelled
