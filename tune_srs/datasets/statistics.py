"""A data set in numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.datasets.interactions import Interactions

Facts = dict[str, int | float]


def statistics(log: Interactions) -> Facts:
    """Return facts of the interactions that were split, by name, in the order to print them.

    `equal_timestamps` is the share of interactions at the same time as the same user's one before;
    their order is that of the file.
    """
    users, items = len(log.user_ids), len(log.item_ids)
    quantiles = np.quantile(log.lengths, [0, 0.25, 0.5, 0.75, 1])
    names = ("length_min", "length_25%", "length_median", "length_75%", "length_max")
    equal = (log.times[1:] == log.times[:-1]) & (log.users[1:] == log.users[:-1])
    return {
        "users": users,
        "items": items,
        "interactions": len(log),
        "density": len(log) / (users * items),
        "length_mean": len(log) / users,
        **dict(zip(names, quantiles.tolist(), strict=True)),
        "equal_timestamps": int(equal.sum()) / len(log),
    }


def printable(manifest: Mapping[str, Any]) -> str:
    """Return the facts in a manifest as two tables: what was removed, and what is left."""
    facts = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in manifest.items()
        if isinstance(value, int | float) and name != "format_version"
    }
    facts["equal_timestamps"] += ", in the order of the file"
    table = "\n".join(f"{name:<22} {value}" for name, value in facts.items())
    if not manifest["removed"]:
        return table
    removed = pd.DataFrame(manifest["removed"]).rename(columns={"step": "removed by"})
    return f"{removed.to_string(index=False)}\n\n{table}"
