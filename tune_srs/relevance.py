"""The relevance of several futures: the nearer, the more relevant. For losses and metrics alike.

From "Integrating Item Relevance in Training Loss for Sequential Recommender Systems"
(arXiv 2305.10824), generalised by a rate.
"""

import torch
from torch import Tensor


def relevance(name: str, count: int, rate: float | None = None) -> Tensor:
    """Relevance of the j-th of `count` = K futures, j = 1 nearest. Returns (K,) float64 > 0.

    fixed 1; linear K - j + 1; power (K - j + 1)^rate, rate 2 if None;
    exponential e^(rate (K - j + 1)), rate 1 if None.
    """
    closeness = torch.arange(count, 0, -1, dtype=torch.float64)  # (K,) K, K - 1, …, 1
    match name:
        case "fixed":
            return torch.ones_like(closeness)
        case "linear":
            return closeness
        case "power":
            return closeness.pow(2.0 if rate is None else rate)
        case "exponential":
            return closeness.mul(1.0 if rate is None else rate).exp()
    raise ValueError(f"unknown relevance {name}")


def loss_weights(name: str, count: int, rate: float | None, normalization: str) -> Tensor:
    """Weights of the j-th of `count` = P positives in a loss. Returns (P,) float32.

    `mean`: the weights have mean 1, so relevance leaves the balance of positives and negatives
    alone. `original`: all but fixed divided by P (P + 1) / 2, as in the paper's code; their sum
    then depends on the relevance (at P = 10: linear 1, power 7, exponential 633).
    """
    weights = relevance(name, count, rate)
    if normalization == "mean":
        weights = weights / weights.mean()
    elif name != "fixed":
        weights = weights / (count * (count + 1) / 2)
    return weights.float()
