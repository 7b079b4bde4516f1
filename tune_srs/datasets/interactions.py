"""Interactions as numbers, in the order of users and times, for filters and splits."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.datasets.columns import ITEM, ORDER, RATING, TIMESTAMP, USER
from tune_srs.errors import ConfigError, DataError

Codes = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]

SECOND = 1_000_000  # microseconds


class Counts(NamedTuple):
    """The number of each."""

    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class Interactions:
    """T interactions, user after user, each user's in time order.

    Those at equal times stand in the order of the file, or in another, see `ties`.
    """

    users: Codes  # (T,) positions in `user_ids`, ascending
    items: Codes  # (T,) positions in `item_ids`
    times: Times  # (T,)
    user_ids: pd.Index  # ascending
    item_ids: pd.Index  # ascending
    ticks: int | None  # units of `times` per second; None where they are only an order

    def __len__(self) -> int:
        return len(self.items)

    def only(self, kept: npt.NDArray[np.bool_]) -> "Interactions":
        """Return those where `kept` (T,) is True; the ids stay."""
        return replace(self, users=self.users[kept], items=self.items[kept], times=self.times[kept])

    def compact(self) -> "Interactions":
        """Return the same without the ids that no longer occur."""
        users, user_ids = _dense(self.users, self.user_ids)
        items, item_ids = _dense(self.items, self.item_ids)
        if users is self.users and items is self.items:
            return self
        return replace(self, users=users, items=items, user_ids=user_ids, item_ids=item_ids)

    @property
    def counts(self) -> Counts:
        """Interactions, and the users and items that occur."""
        users, items = (np.count_nonzero(np.bincount(codes)) for codes in (self.users, self.items))
        return Counts(len(self), int(users), int(items))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(len(user_ids),) interactions of each user."""
        return np.bincount(self.users, minlength=len(self.user_ids))


def collect(
    chunks: Iterable[pd.DataFrame], min_rating: float | None
) -> tuple[Interactions, Counts]:
    """Return the interactions with at least `min_rating` of a table in chunks, and counts of all.

    Memory holds 16 bytes per interaction where ids are text or fit 32 bits. Raises `ConfigError`
    for `min_rating` where there are no ratings.
    """
    users, items = _Column(USER), _Column(ITEM)
    times, rated = [np.empty(0, np.int64)], [np.empty(0, bool)]
    ranked = False
    for chunk in chunks:
        users.append(chunk[USER])
        items.append(chunk[ITEM])
        ranked = ORDER in chunk
        times.append(chunk[ORDER if ranked else TIMESTAMP].to_numpy(np.int64))
        if min_rating is not None:
            if RATING not in chunk:
                raise ConfigError("data.min_rating: there are no ratings; leave it out")
            rated.append((chunk[RATING] >= min_rating).to_numpy(bool))
    user_codes, user_ids = users.codes()
    item_codes, item_ids = items.codes()
    all_times = np.concatenate(times)
    times.clear()
    counts = Counts(len(all_times), len(user_ids), len(item_ids))
    columns = (user_codes, item_codes, all_times)
    if min_rating is not None:
        enough = np.concatenate(rated)
        columns = (user_codes[enough], item_codes[enough], all_times[enough])
    return _sorted(*columns, user_ids, item_ids, ranked), counts


def _sorted(
    users: Codes,
    items: Codes,
    times: Times,
    user_ids: pd.Index,
    item_ids: pd.Index,
    ranked: bool,
) -> Interactions:
    from tune_srs.kernels.interactions import by_user_and_time  # here: a cache needs no Numba

    ticks = None if ranked else _coarsest(times)
    lengths = np.bincount(users, minlength=len(user_ids))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    sorted_items, sorted_times = np.empty_like(items), np.empty_like(times)
    by_user_and_time(users, items, times, starts, sorted_items, sorted_times)
    sorted_users = np.repeat(np.arange(len(user_ids), dtype=np.int32), lengths)
    return Interactions(sorted_users, sorted_items, sorted_times, user_ids, item_ids, ticks)


def _coarsest(times: Times) -> int:
    """Convert microseconds (T,) to seconds, in place, if no fraction of a second occurs.

    Returns how many units of `times` are a second from then on.
    """
    if len(times) and not (times[:1000] % SECOND).any() and not (times % SECOND).any():
        times //= SECOND
        return 1
    return SECOND


class _Column:
    """Numbers the ids of a column that comes in chunks."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._parts: list[npt.NDArray[np.int32] | npt.NDArray[np.int64]] = []
        self._text: pd.Index | None = None  # in the order of appearance, if ids are text

    def append(self, column: pd.Series) -> None:
        if not len(column):
            return
        integers = pd.api.types.is_integer_dtype(column.dtype)
        if self._parts and integers != (self._text is None):
            raise DataError(
                f"the {self._role} ids are whole numbers in one part of the data and text in "
                f"another; set data.log.text_ids=true"
            )
        self._parts.append(_narrow(column.to_numpy()) if integers else self._numbered(column))

    def _numbered(self, column: pd.Series) -> npt.NDArray[np.int32]:
        """Return the number of each text, by first appearance."""
        positions, texts = pd.factorize(column)
        found = pd.Index(texts)
        if self._text is None:
            self._text = found[:0]
        numbers = self._text.get_indexer(found)
        new = numbers < 0
        numbers[new] = len(self._text) + np.arange(new.sum())
        self._text = self._text.append(found[new])
        return numbers[positions].astype(np.int32)

    def codes(self) -> tuple[Codes, pd.Index]:
        """Return the position of each id in the ascending ids, (T,), and these ids."""
        values = np.concatenate(self._parts) if self._parts else np.empty(0, np.int32)
        self._parts.clear()
        if self._text is not None:
            order = self._text.argsort()
            positions = np.empty(len(order), np.int32)
            positions[order] = np.arange(len(order), dtype=np.int32)
            return positions[values], self._text[order]
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if high - low <= 4 * len(values) + 1024:  # a table of all ids between is quickest
            values -= low
            between = pd.Index(np.arange(low, high + 1))
            return _dense(values.astype(np.int32, copy=False), between)
        codes, ids = pd.factorize(values, sort=True)
        return codes.astype(np.int32), pd.Index(ids)


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    """Return the values in 32 bits if all fit."""
    small = np.iinfo(np.int32)
    fits = values.min() >= small.min and values.max() <= small.max
    return values.astype(np.int32) if fits else values.astype(np.int64, copy=False)


def _dense(codes: Codes, ids: pd.Index) -> tuple[Codes, pd.Index]:
    """Return the same with only the ids that occur, as a plain index."""
    occurs = np.zeros(len(ids), dtype=bool)
    occurs[codes] = True
    if occurs.all():
        return codes, ids
    positions = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return positions[codes], pd.Index(ids.to_numpy()[occurs], dtype=ids.dtype)
