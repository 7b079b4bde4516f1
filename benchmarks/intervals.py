"""How often do intervals over users hold the true mean? Simulated users, rare hits included.

`rate` of the users have a hit. `hit` is 1 for them; `ndcg` and `mrr` have its rank uniform among
ten, `late` has it mostly last; `hr` is the share of ten futures, and more of them for some users;
`skewed` is beta distributed. Each cell shows the share of intervals that hold the true mean, and
their mean length relative to that of the percentile bootstrap.

    python benchmarks/intervals.py
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from tune_srs.evaluation.intervals import mean_intervals
from tune_srs.evaluation.resampling import TAILS, Array

USERS, RATES = (30, 100, 911), (0.02, 0.1, 0.5)
MANY = 300_000  # users, whose mean is taken for the true one
RESAMPLES = 1_000
Random = np.random.Generator
Metric = Callable[[Random, float, tuple[int, int]], Array]


def _hits(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return (random.random(shape) < rate).astype(float)


def _ndcg(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return _hits(random, rate, shape) / np.log2(random.integers(0, 10, shape) + 2)


def _mrr(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return _hits(random, rate, shape) / (random.integers(0, 10, shape) + 1)


def _late(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return _hits(random, rate, shape) * np.where(random.random(shape) < 0.1, 1.0, 0.1)


def _hr(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return random.binomial(10, random.beta(0.5, 0.5 * (1 - rate) / rate, shape)) / 10


def _skewed(random: Random, rate: float, shape: tuple[int, int]) -> Array:
    return _hits(random, rate, shape) * random.beta(0.8, 2.5, shape)


METRICS: dict[str, Metric] = {
    "hit": _hits,
    "ndcg": _ndcg,
    "mrr": _mrr,
    "late": _late,
    "hr": _hr,
    "skewed": _skewed,
}


@dataclass(frozen=True)
class Cell:
    """What came of one method."""

    held: float
    length: float


def _ours(values: Array, _: Random) -> tuple[Array, Array]:
    found = mean_intervals({str(number): row for number, row in enumerate(values)})
    low, high = np.array(list(found.values())).T
    return low, high


def _bootstrap(values: Array, random: Random) -> tuple[Array, Array]:
    users = values.shape[1]
    times = random.multinomial(users, np.full(users, 1 / users), RESAMPLES)
    low, high = np.quantile(values @ times.T / users, TAILS, axis=1)
    return low, high


METHODS = {"bootstrap": _bootstrap, "ours": _ours}


def coverage(
    metric: Metric, users: int, rate: float, samples: int, methods: tuple[str, ...] = ("ours",)
) -> dict[str, Cell]:
    """Return by method how often `samples` of so many users hold the mean, and the mean length."""
    random = np.random.default_rng(0)
    true = metric(random, rate, (1, MANY)).mean()
    values = metric(random, rate, (samples, users))
    cells = {}
    for name in methods:
        low, high = METHODS[name](values, random)
        held = ((low <= true) & (true <= high)).mean()
        cells[name] = Cell(float(held), float((high - low).mean()))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    options = parser.parse_args()
    print("| users | rate | " + " | ".join(METRICS) + " |")
    for users, rate in product(USERS, RATES):
        shown = []
        for metric in METRICS.values():
            cells = coverage(metric, users, rate, options.samples, tuple(METHODS))
            before, now = cells["bootstrap"], cells["ours"]
            shown.append(f"{before.held:.3f} → {now.held:.3f}, {now.length / before.length:.2f}")
        print(f"| {users} | {rate} | " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
