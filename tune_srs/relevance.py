"""The relevance of several futures: the nearer, the more relevant. For losses and for metrics.

From "Integrating Item Relevance in Training Loss for Sequential Recommender Systems"
(arXiv 2305.10824), generalised by a rate, and four more functions.

Shapes: K futures, P positives of a position, T positions.
"""

import math

import torch
from torch import Tensor, nn

DEFAULT_RATES = {"power": 2.0, "exponential": 1.0, "reciprocal": 1.0, "gaussian": 2.0}
LEARNED_RATE = 0.1


def relevance(name: str, count: int, rate: float | None = None) -> Tensor:
    """Return the relevance of the j-th of `count` = K futures, j = 1 nearest: (K,) float64 > 0.

    p or r is the `rate`, or the default in brackets if that is None: fixed 1; linear K - j + 1;
    power (K - j + 1)^p [2]; exponential e^(r (K - j + 1)) [1]; reciprocal 1 / j^p [1];
    gaussian e^(-(r (j - 1) / K)^2 / 2) [2], so that K futures span r standard deviations.
    """
    position = torch.arange(1, count + 1, dtype=torch.float64)  # (K,) j
    return _of_positions(name, position, torch.tensor(count), rate)


def relevance_per_user(name: str, counts: Tensor, width: int) -> Tensor:
    """Return the relevance of the j-th of each user's futures over that of the first: (U, `width`).

    `counts` (U,) are how many futures each has; what lies beyond is undefined. Rates are the
    defaults.
    """
    position = torch.arange(1, width + 1, dtype=torch.float64, device=counts.device)
    # a ratio does not depend on the count, with which exponential relevance would overflow
    number = torch.ones_like(counts) if name == "exponential" else counts
    values = _of_positions(name, position, number[:, None], None)
    return values / values[:, :1]


def _of_positions(name: str, position: Tensor, count: Tensor, rate: float | None) -> Tensor:
    """Return the relevance of each j in `position` (K,) of `count` () or (U, 1) futures."""
    closeness = count + 1 - position  # K, K - 1, …, 1
    rate = DEFAULT_RATES.get(name, 1.0) if rate is None else rate
    match name:
        case "fixed":
            return torch.ones_like(closeness)
        case "linear":
            return closeness
        case "power":
            return closeness.pow(rate)
        case "exponential":
            return closeness.mul(rate).exp()
        case "reciprocal":
            return position.pow(-rate).expand_as(closeness)
        case "gaussian":
            return (-0.5 * (rate * (position - 1) / count).square()).exp()
    raise ValueError(f"unknown relevance {name}")


def loss_weights(name: str, count: int, rate: float | None, normalization: str) -> Tensor:
    """Return the weights of the j-th of `count` = P positives in a loss: (P,) float32.

    `mean`: the weights have mean 1, so relevance leaves the balance of positives and negatives
    alone; where fewer than P positives exist, see `losses.pair_weights`. `original`: all but fixed
    divided by P (P + 1) / 2, as in the paper's code; their sum then depends on the relevance (at
    P = 10: linear 1, power 7, exponential 633).
    """
    weights = relevance(name, count, rate)
    if normalization == "mean":
        weights = weights / weights.mean()
    elif name != "fixed":
        weights = weights / triangle(count)
    return weights.float()


def time_weights(days: Tensor, exists: Tensor, rate: float | None, normalization: str) -> Tensor:
    """Return weights that decay with the time to a positive, e^(-rate days): (T, P) float32.

    `days` (T, P) lie between the position's item and each of its next P items, where these `exist`
    (T, P); elsewhere the weight is 0. Negative days, as in histories merged on purpose, count as 0.
    `rate` is 1 if None. `mean`: a position's existing positives have mean 1. `original`: divided by
    P (P + 1) / 2.
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

    With l_j the mean loss of the j-th positives, before any factor that the loss gives to all of
    them, the weights minimise mean_j w_j l_j - rate mean_j log w_j: the balance of several tasks by
    their uncertainty (Kendall et al., CVPR 2018, arXiv 1705.07115), held to mean 1. At the minimum
    w_j = rate / (l_j + c): the better the model predicts a position, the more it weighs, and no
    weight falls to 0. The smaller the rate, the more the weights differ.
    """

    def __init__(self, count: int, rate: float | None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))
        self.rate = LEARNED_RATE if rate is None else rate

    def weights(self) -> Tensor:
        """Return the weights (P,), all 1 at first."""
        return len(self.logits) * self.logits.softmax(dim=0)

    def forward(self, exists: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return weights (P,) for a batch whose positives `exist` (T, P), and a penalty to add.

        The j-th weight is left out where no position of the batch has a j-th positive. The penalty
        is -rate mean_j log w_j, moved to the value 0: it changes the gradient and not the loss that
        is reported. The batch's loss is `factor` times a mean over pairs, of which there are more
        for small j; the gradient of the weights is scaled such that every l_j counts the same, and
        without the factor.
        """
        number = exists.sum(dim=0)  # (P,)
        present = number > 0
        counted = present.sum()
        logs = self.logits.masked_fill(~present, -math.inf).log_softmax(dim=0)
        weights = counted * logs.exp()
        pairs = (weights.detach() * number).sum()  # what `losses.pair_weights` divides by
        scale = pairs / (factor * counted * number.clamp(min=1))
        penalty = -self.rate * logs.masked_fill(~present, 0).sum() / counted
        return with_gradient_scaled(weights, scale), gradient_only(penalty)


def with_gradient_scaled(values: Tensor, scale: Tensor) -> Tensor:
    """Return `values` as they are; their gradient is multiplied by `scale`."""
    return values.detach() + scale * (values - values.detach())


def gradient_only(value: Tensor) -> Tensor:
    """Return 0 with the gradient of `value`."""
    return value - value.detach()


def triangle(count: int) -> float:
    """Return P (P + 1) / 2, the sum of linear relevance."""
    return count * (count + 1) / 2
