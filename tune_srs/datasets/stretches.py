"""Stretches of a flat array, one per user: n of them, which begin at `starts` (n,)."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tune_srs.datasets.histories import Items, Offsets

Positions = npt.NDArray[np.int64]
Whole = TypeVar("Whole", np.int32, np.int64)


def offsets_of(lengths: Positions) -> Offsets:
    """Return where each stretch begins if all lie one after another, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def positions_in(starts: Positions, lengths: Positions) -> Positions:
    """Return the positions starts[i] … starts[i] + lengths[i] - 1 of each i, one after another."""
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def cut(
    values: npt.NDArray[Whole], starts: Positions, lengths: Positions
) -> tuple[npt.NDArray[Whole], Offsets]:
    """Copy those stretches of `values`, which must ascend and not overlap, one after another."""
    gaps = starts - np.concatenate([[0], (starts + lengths)[:-1]])
    runs = np.stack([gaps, lengths], axis=1).ravel()
    kept = np.repeat(
        np.tile([False, True], len(starts)), runs
    )  # a byte per value; positions take 16
    return values[: len(kept)][kept], offsets_of(lengths)


def as_rows(values: Items, lengths: Positions) -> Items:
    """Return flat values as rows of `lengths`, filled up with 0 at their ends: (n, longest)."""
    inside = np.arange(lengths.max()) < lengths[:, None]
    rows = np.zeros(inside.shape, np.int32)
    rows[inside] = values
    return rows
