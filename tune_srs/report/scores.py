"""Test scores of the winner and the baselines, with bootstrap intervals over the users."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tune_srs import ranks
from tune_srs.report.search import Search
from tune_srs.results import SHOWN_METRICS

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over users, and where it lies with the given confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def intervals(per_user: NDArray[np.float64], seed: int = 0) -> list[Interval]:
    """Percentile bootstrap (Efron 1979) of the mean of each column of (U, M) over U users.

    A resample is as many users, drawn with replacement, the same ones for every column.
    """
    random, users = np.random.default_rng(seed), len(per_user)
    means = np.empty((RESAMPLES, per_user.shape[1]))
    for row in means:
        often = np.bincount(random.integers(users, size=users), minlength=users)
        row[:] = often.astype(float) @ per_user / users
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return [
        Interval(*map(float, one)) for one in zip(per_user.mean(axis=0), low, high, strict=True)
    ]


def test_table(search: Search) -> pd.DataFrame | None:
    """A row a scorer, then what the winner is above each baseline, user by user; or None."""
    told = search.test_ranks
    if told is None:
        return None
    wanted = [search.metric.removeprefix("val/"), *SHOWN_METRICS]
    found = {
        str(scorer): ranks.evaluation(told, str(scorer), search.space.base.evaluation).per_user
        for scorer in told["scorer"].unique()
    }
    metrics = [name for name in dict.fromkeys(wanted) if name in found["best"]]
    values = {
        scorer: np.column_stack([own[name].numpy() for name in metrics])
        for scorer, own in found.items()
    }
    best = values["best"]
    values |= {f"best − {name}": best - own for name, own in values.items() if name != "best"}
    texts = list(map(str, intervals(np.hstack(list(values.values())))))
    rows = [texts[start : start + len(metrics)] for start in range(0, len(texts), len(metrics))]
    table = pd.DataFrame(rows, columns=[f"test/{name}" for name in metrics])
    table.insert(0, "scorer", list(values))
    return table
