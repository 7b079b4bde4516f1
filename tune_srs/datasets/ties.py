"""Interactions of a user at equal times: where they are, and other orders of them.

A log has no order of its own there. In the order of the file "the nearest future" is often nothing
but the first of several at once.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tune_srs.config.data import TiesConfig
from tune_srs.datasets.interactions import Interactions
from tune_srs.errors import ConfigError


def ordered(log: Interactions, ties: TiesConfig) -> Interactions:
    """Return the log with each user's interactions at equal times in the order of `ties`.

    All orders are equally likely, and the same seed gives the same one. Raises `ConfigError` where
    the log tells only an order, for that is all there is to go by.
    """
    if ties.order == "file":
        return log
    if log.ticks is None:
        raise ConfigError(
            "data.ties.order: shuffle is for times, but this log tells only an order; leave it out"
        )
    moments = np.cumsum(~tied(log))  # (T,) equal for one user at one time
    drawn = np.random.default_rng(ties.seed).random(len(log))
    return replace(log, items=log.items[np.lexsort((drawn, moments))])


def tied(log: Interactions) -> npt.NDArray[np.bool_]:
    """Return which interactions are at the same time as the same user's one before: (T,)."""
    found = np.zeros(len(log), dtype=bool)
    found[1:] = (log.times[1:] == log.times[:-1]) & (log.users[1:] == log.users[:-1])
    return found
