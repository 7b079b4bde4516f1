"""Every loss and relevance in plain loops, as in the papers: what the fast ones are held to.

One position, one positive and one negative after another, in float64; gradients by torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tune_srs.config.settings import LossConfig

Score = Callable[[int], Tensor]  # of an item, a scalar


@dataclass(frozen=True)
class Position:
    """What a position is trained on."""

    score: Score
    positives: list[int]  # those that exist, nearest first
    weights: Sequence[float | Tensor]  # of them
    negatives: list[int]  # those that count
    user: int = 0


def weights_in_loops(
    name: str, count: int, rate: float | None, normalization: str, days: Sequence[float] = ()
) -> list[float]:
    """Of the first `len(days)` or `count` positives out of `count`."""
    defaults = {"power": 2.0, "gaussian": 2.0}
    r = defaults.get(name, 1.0) if rate is None else rate
    formulas: dict[str, Callable[[int], float]] = {
        "fixed": lambda j: 1.0,
        "linear": lambda j: count - j + 1,
        "power": lambda j: (count - j + 1) ** r,
        "exponential": lambda j: math.exp(r * (count - j + 1)),
        "reciprocal": lambda j: 1 / j**r,
        "gaussian": lambda j: math.exp(-((r * (j - 1) / count) ** 2) / 2),
        "time": lambda j: math.exp(-r * max(days[j - 1], 0.0)),
    }
    values = [formulas[name](j) for j in range(1, (len(days) or count) + 1)]
    if normalization == "mean":
        return [value * len(values) / sum(values) for value in values]
    return values if name == "fixed" else [value / (count * (count + 1) / 2) for value in values]


def loss_in_loops(
    config: LossConfig,
    positions: Sequence[Position],
    num_items: int,
    expected: Callable[[int, int], float] = lambda _, __: 1.0,
) -> Tensor:
    """The loss of `positions`; `expected(item, user)` is how often it is expected in a sample."""
    formulas: dict[str, Callable[..., Tensor]] = {
        "bce": _bce,
        "gbce": _gbce,
        "bpr": _bpr,
        "softmax": _softmax,
        "sampled_softmax": _sampled_softmax,
    }
    if config.normalization == "mean":
        positions = of_mean_1(positions)
    return formulas[config.type](config, positions, num_items, expected)


def of_mean_1(positions: Sequence[Position]) -> list[Position]:
    """The positions with their weights over the mean of all; a gradient does not see the mean."""
    weights = [torch.as_tensor(weight).item() for one in positions for weight in one.weights]
    mean = sum(weights) / len(weights)
    return [
        replace(position, weights=[weight / mean for weight in position.weights])
        for position in positions
    ]


def positives_factor(config: LossConfig, count: int, num_items: int) -> float:
    """What multiplies the losses of all positives, of which a learned relevance knows nothing."""
    a, t = count / (num_items - 1), config.calibration
    factors = {
        "bce": config.positive_weight,
        "gbce": config.positive_weight * (t * (a - 1) + 1) / (count + 1),
    }
    return factors.get(config.type, 1.0)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def _log_sigmoid(x: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-x))


def _bce(config: LossConfig, positions: Sequence[Position], *_: object) -> Tensor:
    near, far, e = [], [], config.label_smoothing
    for position in positions:
        for item, weight in zip(position.positives, position.weights, strict=True):
            x = position.score(item)
            near.append(-weight * ((1 - e / 2) * _log_sigmoid(x) + e / 2 * _log_sigmoid(-x)))
        own = []
        for item in position.negatives:
            x = position.score(item)
            own.append(-(1 - e / 2) * _log_sigmoid(-x) - e / 2 * _log_sigmoid(x))
        far.append(_mean(own) if own else torch.zeros((), dtype=torch.float64))
    return config.positive_weight * _mean(near) + _mean(far)


def _gbce(config: LossConfig, positions: Sequence[Position], num_items: int, *_: object) -> Tensor:
    """Without shared negatives, of which fewer than N may count."""
    n = len(positions[0].negatives)
    a, t = n / (num_items - 1), config.calibration
    b = a * (t * (1 - 1 / a) + 1 / a)
    near, far = [], []
    for position in positions:
        for item, weight in zip(position.positives, position.weights, strict=True):
            near.append(-weight * torch.log(torch.sigmoid(position.score(item)) ** b))
        terms = [-_log_sigmoid(-position.score(item)) for item in position.negatives]
        far.append(torch.stack(terms).sum())
    total: Tensor = (config.positive_weight * _mean(near) + _mean(far)) / (n + 1)
    return total


def _bpr(_: LossConfig, positions: Sequence[Position], *__: object) -> Tensor:
    lost = []
    for position in positions:
        for item, weight in zip(position.positives, position.weights, strict=True):
            x = position.score(item)
            terms = [-_log_sigmoid(x - position.score(other)) for other in position.negatives]
            lost.append(weight * _mean(terms) if terms else 0 * x)
    return _mean(lost)


def _softmax(
    config: LossConfig, positions: Sequence[Position], num_items: int, *_: object
) -> Tensor:
    lost = []
    for position in positions:
        scores = [position.score(item) for item in range(1, num_items + 1)]
        log_sum = torch.log(sum((torch.exp(x) for x in scores), torch.zeros(())))
        lost += _cross_entropies(config, position, log_sum, _mean(scores))
    return _mean(lost)


def _sampled_softmax(
    config: LossConfig,
    positions: Sequence[Position],
    num_items: int,
    expected: Callable[[int, int], float],
) -> Tensor:
    lost = []
    for position in positions:
        total = torch.zeros((), dtype=torch.float64)
        for item in set(position.positives):
            total = total + torch.exp(position.score(item))
        for item in position.negatives:
            if item not in position.positives:
                total = total + torch.exp(position.score(item)) / expected(item, position.user)
        everywhere = _mean([position.score(item) for item in range(1, num_items + 1)])
        lost += _cross_entropies(config, position, torch.log(total), everywhere)
    return _mean(lost)


def _cross_entropies(
    config: LossConfig, position: Position, log_sum: Tensor, everywhere: Tensor
) -> list[Tensor]:
    e = config.label_smoothing
    return [
        weight * (log_sum - (1 - e) * position.score(item) - e * everywhere)
        for item, weight in zip(position.positives, position.weights, strict=True)
    ]
