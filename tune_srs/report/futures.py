"""The multi-future picture: how often each future, from the nearest on, is found."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from tune_srs.evaluation.resampling import CONFIDENCE
from tune_srs.report.style import BEST, COLOURS, Picture, legend_above, new_figure
from tune_srs.runs import ranks
from tune_srs.runs.run import Run

LOOKS = ((BEST, "o"), (COLOURS[0], "s"), (COLOURS[2], "D"), (COLOURS[3], "^"))


def hit_rates(run: Run) -> Picture | None:
    """Hit rate of the winner and the baselines by position of the future."""
    table = run.ranks
    if table is None:
        return None
    k = cutoff(run)
    figure = new_figure(3.6)
    axes = figure.subplots()
    for scorer, (colour, marker) in zip(table["scorer"].unique(), LOOKS, strict=False):
        rates = hit_rate(table[table["scorer"] == scorer], k)
        axes.plot(rates.index, rates["rate"], color=colour, marker=marker, label=scorer)
        axes.fill_between(rates.index, rates["low"], rates["high"], color=colour, alpha=0.18, lw=0)
    axes.set_xlabel("position of the future (1: the next item)")
    axes.set_ylabel(f"hit rate at {k}: share of users")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(axes)
    caption = (
        f"Share of users whose j-th test future is among the {k} items ranked first, "
        f"with Wilson's intervals of {CONFIDENCE:.0%}. All futures of a user are searched in one "
        f"ranking; one that repeats a nearer one is left out, and so are positions that fewer than "
        f"half of the users have."
    )
    return Picture("hit-rate-by-position", "How far ahead it sees", caption, figure)


def cutoff(run: Run) -> int:
    """That of the searched metric; of a metric without one, the first that was evaluated."""
    _, at, number = run.metric.partition("@")
    return int(number) if at else run.space.base.evaluation.cutoffs[0]


def hit_rate(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """By position of the future, from 1: `rate`, and `low` and `high` of its interval.

    Positions that fewer than half of the users have are left out.
    """
    rows = {}
    for name in ranks.positions(table):
        own = table[name].dropna().to_numpy(dtype=np.int64)
        hits = int((own < k).sum())
        if 2 * len(own) >= len(table):
            test = binomtest(hits, len(own)).proportion_ci(CONFIDENCE, method="wilson")
            rows[int(name)] = (hits / len(own), test.low, test.high)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["rate", "low", "high"])
