"""Filters of the interactions before they are split, and how much each removes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tune_srs.config.settings import DataConfig
from tune_srs.datasets.interactions import Counts, Interactions

Removal = dict[str, str | int]
Mask = npt.NDArray[np.bool_]


def removed(step: str, before: Counts, after: Counts) -> Removal:
    """Return what `step` removed."""
    lost = [int(old - new) for old, new in zip(before, after, strict=True)]
    return {"step": step} | dict(zip(Counts._fields, lost, strict=True))


def filtered(log: Interactions, config: DataConfig) -> tuple[Interactions, list[Removal]]:
    """Return what is left without repeats, rare items and users of few items, and the k-core.

    The filters apply in this order, and the second value is what each removed.

    Counts are interactions, as in the paper's code, not distinct users or items.
    """
    steps: list[tuple[str, bool, Callable[[Interactions], Interactions]]] = [
        (f"repeats: {config.repeats}", config.repeats != "keep", _without_repeats(config.repeats)),
        (
            f"min_users_per_item {config.min_users_per_item}",
            config.min_users_per_item > 1,
            lambda log: log.only(_often(log.items, config.min_users_per_item)),
        ),
        (
            f"min_items_per_user {config.min_items_per_user}",
            config.min_items_per_user > 1,
            lambda log: log.only(_often(log.users, config.min_items_per_user)),
        ),
        (f"k_core {config.k_core}", config.k_core > 1, lambda log: _core(log, config.k_core)),
    ]
    removals = []
    for name, is_set, step in steps:
        if is_set:
            before, log = log.counts, step(log)
            removals.append(removed(name, before, log.counts))
    return log, removals


def _often(codes: npt.NDArray[np.int32], least: int) -> Mask:
    """Return where the code occurs at least so often: (T,)."""
    return (np.bincount(codes) >= least)[codes]


def _core(log: Interactions, k: int) -> Interactions:
    """Return the largest part in which every user and every item has at least k interactions."""
    while len(log):
        enough = _often(log.items, k) & _often(log.users, k)
        if enough.all():
            break
        log = log.only(enough)
    return log


def _without_repeats(policy: str) -> Callable[[Interactions], Interactions]:
    def first(log: Interactions) -> Interactions:
        """Keep the first interaction per user and item."""
        key = log.users * np.int64(len(log.item_ids)) + log.items
        order = np.argsort(key, kind="stable")
        again = np.zeros(len(log), dtype=bool)
        again[order[1:]] = key[order[1:]] == key[order[:-1]]
        return log.only(~again)

    def consecutive(log: Interactions) -> Interactions:
        """Keep one interaction of several in a row with the same item."""
        again = np.zeros(len(log), dtype=bool)
        again[1:] = (log.items[1:] == log.items[:-1]) & (log.users[1:] == log.users[:-1])
        return log.only(~again)

    return first if policy == "keep_first" else consecutive
