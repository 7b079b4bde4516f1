"""Which interactions train, validate and test: three ways to cut futures from histories.

In all of them noise is added only to the training histories, and therefore to a user's past where
that is the training history.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tune_srs.config.settings import DataConfig
from tune_srs.datasets.histories import Histories, Items, Offsets, Split, Times
from tune_srs.datasets.interactions import Interactions
from tune_srs.datasets.noise import add_noise
from tune_srs.errors import DataError, Say

Positions = npt.NDArray[np.int64]
Whole = TypeVar("Whole", np.int32, np.int64)


@dataclass(frozen=True)
class Parts:
    """A split log. Users are positions in `log.user_ids`."""

    log: Interactions  # what is left of it
    validation: Split
    users: Positions  # (V,) those of `validation`
    test_futures: Items  # (W, K)
    test_users: Positions  # (W,)
    test_histories: Histories | None = None  # of W users, where they are not those of `validation`


def split(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Split as `config.split` says. Raises `DataError` if no user is left to be scored."""
    ways = {"last": _last, "users": _held_out_users, "time": _after_a_moment}
    return ways[config.split.kind](log, config, say)


def _last(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Test each user's last K interactions, validate on the K before them, train on the rest."""
    validation, test = config.validation_futures, config.num_futures
    log = _of_length(log, validation + test + 1, config, say)
    ends = np.cumsum(log.lengths)  # (U,)
    starts, lengths = ends - log.lengths, log.lengths - validation - test
    training, items = _training(log, starts, lengths, config), _items(log)
    futures = _next(items, ends - validation - test, validation)
    users = np.arange(len(ends))
    split = Split(training, training, futures)
    return Parts(log, split, users, _next(items, ends - test, test), users)


def _of_length(log: Interactions, needed: int, config: DataConfig, say: Say) -> Interactions:
    """Keep users with at least `needed` interactions; `say` reports how many are left out."""
    enough = log.lengths >= needed
    if not enough.any():
        raise _nobody(
            config,
            f"no user has the {needed} interactions that num_futures={config.num_futures} needs",
        )
    dropped = int(((log.lengths > 0) & ~enough).sum())  # the filters have left nothing of others
    if dropped:
        say(f"{config.name}: {dropped} users with fewer than {needed} interactions left out")
        log = log.only(enough[log.users])
    return log.compact()


def _held_out_users(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Validate on some users and test on others, by their last K; train on all others, whole."""
    log = log.compact()
    validation, test = config.validation_futures, config.num_futures
    eligible = np.flatnonzero(log.lengths > max(validation, test))
    count = max(1, int((config.split.share or 0) * len(log.user_ids)))
    if len(eligible) < 2 * count or len(log.user_ids) <= 2 * count:
        raise _nobody(
            config,
            f"{count} users are needed to validate and {count} to test, but {len(eligible)} of "
            f"{len(log.user_ids)} have more than {max(validation, test)} interactions",
        )
    drawn = np.random.default_rng(config.split.seed).permutation(eligible)[: 2 * count]
    testing, validating = np.sort(drawn[:count]), np.sort(drawn[count:])
    trains = np.setdiff1d(np.arange(len(log.user_ids)), drawn)
    say(
        f"{config.name}: {len(trains)} users train, {count} validate and {count} test, and never "
        f"train"
    )
    lengths, items = log.lengths, _items(log)
    starts = np.cumsum(lengths) - lengths
    training = _training(log, starts[trains], lengths[trains], config)
    past = _cut(items, starts[validating], lengths[validating] - validation)
    futures = _next(items, (starts + lengths)[validating] - validation, validation)
    test_past = _cut(items, starts[testing], lengths[testing] - test)
    return Parts(
        log,
        Split(training, Histories(*past, training.num_items), futures),
        validating,
        _next(items, (starts + lengths)[testing] - test, test),
        testing,
        Histories(*test_past, training.num_items),
    )


def _after_a_moment(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Train before a first moment, validate on the next K of each user, test from a second one on.

    The share `share` of all interactions lies after the second moment, and as many between both. A
    user is scored with a history before the moment and K interactions after it.
    """
    log = log.compact()
    validation, test = config.validation_futures, config.num_futures
    share = config.split.share or 0
    if not len(log):
        raise _nobody(config, "no interactions are left")
    positions = [min(int(len(log) * (1 - n * share)), len(log) - 1) for n in (2, 1)]
    first, second = np.partition(log.times, positions)[positions]
    lengths, items = log.lengths, _items(log)
    starts = np.cumsum(lengths) - lengths
    learned, before = (  # (U,) interactions before each moment
        np.bincount(log.users[log.times < moment], minlength=len(lengths))
        for moment in (first, second)
    )
    trains = np.flatnonzero(learned)
    validating = np.flatnonzero((learned > 0) & (before - learned >= validation))
    testing = np.flatnonzero((before > 0) & (lengths - before >= test))
    if not len(validating) or not len(testing):
        raise _nobody(
            config,
            f"{len(validating)} users have {validation} interactions between the two moments, and "
            f"{len(testing)} have {test} after the second",
        )
    say(
        f"{config.name}: {len(trains)} users train before {first}, {len(validating)} validate "
        f"from then on, {len(testing)} test from {second} on; the others have no history or too "
        f"few interactions then"
    )
    training = _training(log, starts[trains], learned[trains], config)
    rows = np.full(len(lengths), -1)  # of each user in `training`
    rows[trains] = np.arange(len(trains))
    known, ends = rows[validating], starts + learned
    past = _cut(training.items, training.offsets[known], training.lengths[known])
    futures = _next(items, ends[validating], validation)
    return Parts(
        log,
        Split(training, Histories(*past, training.num_items), futures),
        validating,
        _next(items, (starts + before)[testing], test),
        testing,
        _continued(training, rows[testing], items, ends[testing], (before - learned)[testing]),
    )


def _training(
    log: Interactions, starts: Positions, lengths: Positions, config: DataConfig
) -> Histories:
    """Return those stretches of the log, with noise: the histories that train."""
    items, offsets = _cut(_items(log), starts, lengths)
    clean = Histories(items, offsets, len(log.item_ids), _seconds(log, starts, lengths))
    return add_noise(clean, config.noise)


def _seconds(log: Interactions, starts: Positions, lengths: Positions) -> Times | None:
    """Return whole seconds since 1970 of those stretches of the log, if it has times."""
    if log.ticks is None:
        return None
    times, _ = _cut(log.times, starts, lengths)
    if log.ticks > 1:
        times //= log.ticks
    return times


def _continued(
    training: Histories, rows: Positions, items: Items, starts: Positions, lengths: Positions
) -> Histories:
    """Return training histories `rows` (W,), each with a stretch of `items` behind it.

    Row -1 stands for an empty history.
    """
    known = rows >= 0
    old = np.where(known, training.lengths[rows], 0)
    offsets = _offsets(old + lengths)
    joined = np.empty(offsets[-1], np.int32)
    joined[_stretches(offsets[:-1], old)] = training.items[
        _stretches(np.where(known, training.offsets[rows], 0), old)
    ]
    joined[_stretches(offsets[:-1] + old, lengths)] = items[_stretches(starts, lengths)]
    return Histories(joined, offsets, training.num_items)


def _nobody(config: DataConfig, why: str) -> DataError:
    return DataError(
        f"{config.name}: {why}; lower data.num_futures or the filters"
        + ("" if config.split.kind == "last" else ", or change data.split.share")
    )


def _items(log: Interactions) -> Items:
    """Return items numbered from 1: (T,)."""
    return log.items + np.int32(1)


def _offsets(lengths: Positions) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _stretches(starts: Positions, lengths: Positions) -> Positions:
    """Return the positions starts[i] … starts[i] + lengths[i] - 1 of each i, one after another."""
    offsets = _offsets(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def _cut(
    items: npt.NDArray[Whole], starts: Positions, lengths: Positions
) -> tuple[npt.NDArray[Whole], Offsets]:
    """Copy those stretches of `items`, which must ascend and not overlap, one after another."""
    gaps = starts - np.concatenate([[0], (starts + lengths)[:-1]])
    runs = np.stack([gaps, lengths], axis=1).ravel()
    kept = np.repeat(
        np.tile([False, True], len(starts)), runs
    )  # a byte per item; positions take 16
    return items[: len(kept)][kept], _offsets(lengths)


def _next(items: Items, starts: Positions, count: int) -> Items:
    """Return the `count` items from each start: (V, count)."""
    found: Items = items[starts[:, None] + np.arange(count)]
    return found
