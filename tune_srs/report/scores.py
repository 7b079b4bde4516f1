"""Test scores of the winner and the baselines, with intervals over the users."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tune_srs.config.settings import EvaluationConfig
from tune_srs.evaluation.evaluator import Evaluation, measure
from tune_srs.evaluation.intervals import (
    Intervals,
    PerUser,
    difference_intervals,
    mean_intervals,
)
from tune_srs.runs import ranks
from tune_srs.runs.run import Run
from tune_srs.runs.tables import SHOWN_METRICS


def test_table(run: Run) -> pd.DataFrame | None:
    """A row a scorer, then what the winner is above each baseline, user by user; or None."""
    told = run.ranks
    if told is None:
        return None
    wanted = [run.metric.removeprefix("val/"), *SHOWN_METRICS]
    found = {
        str(scorer): evaluation_of(told, str(scorer), run.space.base.evaluation).per_user
        for scorer in told["scorer"].unique()
    }
    metrics = [name for name in dict.fromkeys(wanted) if name in found["best"]]
    values = {
        scorer: {f"test/{name}": own[name].numpy() for name in metrics}
        for scorer, own in found.items()
    }
    best = values["best"]
    rows = [{"scorer": scorer, **_described(own, mean_intervals)} for scorer, own in values.items()]
    for scorer, own in values.items():
        if scorer != "best":
            above = {name: best[name] - own[name] for name in best}
            rows.append({"scorer": f"best − {scorer}", **_described(above, difference_intervals)})
    return pd.DataFrame(rows)


def evaluation_of(table: pd.DataFrame, scorer: str, config: EvaluationConfig) -> Evaluation:
    """Return the metrics of every user that the ranks of one scorer give."""
    own = table[table["scorer"] == scorer]
    futures = own[ranks.positions(table)]
    found = torch.from_numpy(futures.fillna(0).to_numpy(dtype=np.int64))
    counted = torch.from_numpy(futures.notna().to_numpy())
    alone = torch.from_numpy(own["next"].to_numpy(dtype=np.int64))
    number = torch.from_numpy(own["futures"].to_numpy(dtype=np.int64))
    return measure(found, alone, counted, number, config)


def _described(
    per_user: Mapping[str, NDArray[np.float64]], intervals: Callable[[PerUser], Intervals]
) -> dict[str, str]:
    """The mean of each metric over the users, and its interval."""
    return {
        name: f"{per_user[name].mean():.4f} [{low:.4f}, {high:.4f}]"
        for name, (low, high) in intervals(per_user).items()
    }
