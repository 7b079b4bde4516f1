"""A data set in numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.datasets.histories import Histories, Items, Split
from tune_srs.datasets.interactions import Interactions
from tune_srs.datasets.ties import tied

Facts = dict[str, int | float]

NAME_WIDTH = 31  # of a column that holds the longest name of a fact
MANY_IN_HISTORY = 0.01  # share of the futures from which a line warns of it
USERS_AT_ONCE = 4096  # whose histories are searched for their futures: some MiB


def statistics(log: Interactions) -> Facts:
    """Return facts of the interactions that were split, by name, in the order to print them.

    `equal_timestamps` is the share of interactions at the same time as the same user's one before.
    """
    users, items = len(log.user_ids), len(log.item_ids)
    quantiles = np.quantile(log.lengths, [0, 0.25, 0.5, 0.75, 1])
    names = ("length_min", "length_25%", "length_median", "length_75%", "length_max")
    return {
        "users": users,
        "items": items,
        "interactions": len(log),
        "density": len(log) / (users * items),
        "length_mean": len(log) / users,
        **dict(zip(names, quantiles.tolist(), strict=True)),
        "equal_timestamps": int(tied(log).sum()) / len(log),
    }


def facts_of_futures(
    log: Interactions, starts: npt.NDArray[np.int64], split: Split, name: str
) -> Facts:
    """Return facts of the V users of a split that begin with `name`, in the order to print them.

    `starts` (V,): where their futures begin in the log. Of the futures, `futures_in_history` is the
    share that stands in the same user's history already, `futures_cold` the share that occurs in no
    training history. `cut_in_tie` is the share of users with the last interaction of the history
    and the first future at one time.
    """
    total = int(split.future_counts.sum())
    cold = ~split.training.occurring()[split.futures] & (split.futures > 0)
    facts = {
        "users": split.num_users,
        "futures": total,
        "futures_max": split.num_futures,
        "futures_in_history": int(in_history(split.histories, split.futures).sum()) / total,
        "futures_cold": int(cold.sum()) / total,
        "cut_in_tie": float(tied(log)[starts].mean()),
    }
    return {f"{name}_{key}": value for key, value in facts.items()}


def of_repeats(manifest: Mapping[str, Any], exclude_history: bool) -> str:
    """Return how many futures stand in the history, and what becomes of them, in one line.

    It is a warning where `exclude_history` has more than 1 % of them missed.
    """
    shares = [manifest[f"{split}_futures_in_history"] for split in ("validation", "test")]
    told = (
        f"{shares[0]:.1%} of the validation futures and {shares[1]:.1%} of the test futures stand "
        f"in the user's history"
    )
    if not exclude_history:
        return f"{told}, whose items are candidates like others"
    if max(shares) <= MANY_IN_HISTORY:
        return f"{told} and count as missed"
    return (
        f"warning: {told} and count as missed, as `recommend` misses them; set "
        f"evaluation.exclude_history=false to have items of the history ranked and recommended"
    )


def in_history(histories: Histories, futures: Items) -> npt.NDArray[np.bool_]:
    """Return which futures (V, K) stand in the history before them: (V, K)."""
    found = np.zeros(futures.shape, dtype=bool)
    for start in range(0, len(futures), USERS_AT_ONCE):
        some = futures[start : start + USERS_AT_ONCE]
        offsets = histories.offsets[start : start + len(some) + 1]
        users = np.arange(len(some)) * (histories.num_items + 1)
        # one key per pair of user and item; each of the many is looked up among the few
        known = np.repeat(users, np.diff(offsets)) + histories.items[offsets[0] : offsets[-1]]
        wanted, places = np.unique(users[:, None] + some, return_inverse=True)
        nearest = np.searchsorted(wanted, known).clip(max=len(wanted) - 1)
        stands = np.zeros(len(wanted), dtype=bool)
        stands[nearest[wanted[nearest] == known]] = True
        found[start : start + len(some)] = stands[places].reshape(some.shape)
    return found


def printable(manifest: Mapping[str, Any]) -> str:
    """Return the facts in a manifest as two tables: what was removed, and what is left."""
    facts = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in manifest.items()
        if isinstance(value, int | float) and name != "format_version"
    }
    ties = manifest["settings"]["ties"]
    drawn = f"an order drawn with seed {ties['seed']}"
    facts["equal_timestamps"] += (
        f", in {'the order of the file' if ties['order'] == 'file' else drawn}"
    )
    table = "\n".join(row(name, value) for name, value in facts.items())
    if not manifest["removed"]:
        return table
    removed = pd.DataFrame(manifest["removed"]).rename(columns={"step": "removed by"})
    return f"{removed.to_string(index=False)}\n\n{table}"


def row(name: str, value: object) -> str:
    """Return a line of that table."""
    return f"{name:<{NAME_WIDTH}}{value}"
