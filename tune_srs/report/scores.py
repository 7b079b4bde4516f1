"""Test scores of the winner and the baselines, with bootstrap intervals over the users."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tune_srs.evaluation.intervals import mean_intervals
from tune_srs.report.search import Search
from tune_srs.runs import ranks
from tune_srs.runs.tables import SHOWN_METRICS


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
        scorer: {f"test/{name}": own[name].numpy() for name in metrics}
        for scorer, own in found.items()
    }
    best = values["best"]
    values |= {
        f"best − {scorer}": {name: best[name] - own[name] for name in best}
        for scorer, own in values.items()
        if scorer != "best"
    }
    return pd.DataFrame([{"scorer": name, **_described(own)} for name, own in values.items()])


def _described(per_user: Mapping[str, NDArray[np.float64]]) -> dict[str, str]:
    """The mean of each metric over the users, and its interval."""
    return {
        name: f"{per_user[name].mean():.4f} [{low:.4f}, {high:.4f}]"
        for name, (low, high) in mean_intervals(per_user).items()
    }
