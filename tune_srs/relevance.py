"""The relevance of several futures: the nearer, the more relevant. For losses and metrics alike.

From "Integrating Item Relevance in Training Loss for Sequential Recommender Systems"
(arXiv 2305.10824), generalised by a rate, and four more.

Shapes: K futures, P positives of a position, T positions.
"""

import math

import torch
from torch import Tensor, nn

DEFAULT_RATES = {"power": 2.0, "exponential": 1.0, "reciprocal": 1.0, "gaussian": 2.0}


def relevance(name: str, count: int, rate: float | None = None) -> Tensor:
    """Relevance of the j-th of `count` = K futures, j = 1 nearest. Returns (K,) float64 > 0.

    With p or r the `rate`, or if None what stands in brackets: fixed 1; linear K - j + 1;
    power (K - j + 1)^p [2]; exponential e^(r (K - j + 1)) [1]; reciprocal 1 / j^p [1];
    gaussian e^(-(r (j - 1) / K)^2 / 2) [2], so that K places are r standard deviations.
    """
    place = torch.arange(1, count + 1, dtype=torch.float64)  # (K,) j
    closeness = count + 1 - place  # (K,) K, K - 1, …, 1
    rate = DEFAULT_RATES.get(name, 1.0) if rate is None else rate
    match name:
        case "fixed":
            return torch.ones_like(place)
        case "linear":
            return closeness
        case "power":
            return closeness.pow(rate)
        case "exponential":
            return closeness.mul(rate).exp()
        case "reciprocal":
            return place.pow(-rate)
        case "gaussian":
            return (-0.5 * (rate * (place - 1) / count).square()).exp()
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
        weights = weights / triangle(count)
    return weights.float()


def time_weights(days: Tensor, exists: Tensor, rate: float | None, normalization: str) -> Tensor:
    """Weights that decay with the time to a positive: e^(-rate days), rate 1 if None.

    `days` (T, P) from the position's item to each of its next P items, where they `exist` (T, P);
    what is negative, as in histories merged on purpose, counts as 0. `mean`: a position's existing
    positives have mean 1. `original`: divided by P (P + 1) / 2. Returns (T, P) float32, 0 where
    none exists.
    """
    decay = -(1.0 if rate is None else rate) * days.clamp(min=0)
    decay = decay.masked_fill(~exists, -math.inf)
    if normalization == "original":
        return (decay.exp() / triangle(days.shape[1])).float()
    # as a softmax, which a long wait for all of them does not bring to 0 / 0
    shares = decay.softmax(dim=1).masked_fill(~exists, 0)  # nothing exists: 0, not 0 / 0
    return (shares * exists.sum(dim=1, keepdim=True)).float()


class LearnedRelevance(nn.Module):
    """P free weights, positive and of mean 1, learned with the model from its training loss alone.

    With l_j the mean loss of the j-th positives they minimise
    mean_j w_j l_j - rate mean_j log w_j: the balance of several tasks by their uncertainty (Kendall
    et al., CVPR 2018, arXiv 1705.07115), held to mean 1. At its minimum w_j = rate / (l_j + c):
    what the model predicts better weighs more, and no weight falls to 0. The smaller the rate, the
    more they differ.
    """

    def __init__(self, count: int, rate: float | None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))
        self.rate = 1.0 if rate is None else rate

    def weights(self) -> Tensor:
        """(P,) all 1 at first."""
        return len(self.logits) * self.logits.softmax(dim=0)

    def forward(self, exists: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (P,) for a batch whose positives `exist` (T, P), and what to add to its loss.

        Places that no position of the batch has are left out. What is added is 0, with the gradient
        of the logarithms. The batch's loss is a mean over pairs, of which nearer places have more:
        the gradient of the weights is scaled such that the logits see l_j of each place alike.
        """
        number = exists.sum(dim=0)  # (P,)
        present = number > 0
        places = present.sum()
        logs = self.logits.masked_fill(~present, -math.inf).log_softmax(dim=0)
        weights = places * logs.exp()
        alike = number.sum() / (places * number.clamp(min=1))
        weights = weights.detach() + alike * (weights - weights.detach())
        penalty = -self.rate * logs.masked_fill(~present, 0).sum() / places
        return weights, penalty - penalty.detach()


def triangle(count: int) -> float:
    """P (P + 1) / 2, the sum of linear relevance."""
    return count * (count + 1) / 2
