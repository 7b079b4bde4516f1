"""Which interactions train, validate and test: three ways to cut histories from futures.

In all of them noise goes into the training part alone, and into what is told of a user's past
where that is the training part.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tune_srs.config import DataConfig
from tune_srs.datasets.columns import Say
from tune_srs.datasets.interactions import Interactions
from tune_srs.datasets.noise import add_noise
from tune_srs.datasets.sequences import Items, Offsets, Sequences
from tune_srs.errors import DataError

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """A split log. Users are places in `log.user_ids`."""

    log: Interactions  # what of it is left
    validation: Sequences
    users: Places  # those of `validation`
    test_futures: Items  # (V, K)
    test: tuple[Items, Offsets] | None = None  # their histories, where not those of validation
    test_users: Places | None = None  # where others than `users`


def split(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """As `config.split` says. Raises `DataError` if nobody is left to be scored."""
    ways = {"last": _last, "users": _held_out_users, "time": _after_a_moment}
    return ways[config.split.kind](log, config, say)


def _last(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """The last K of each user test, the K before them validate, the rest trains."""
    validation, test = config.validation_futures, config.num_futures
    log = _of_length(log, validation + test + 1, config, say)
    items = _items(log)
    ends = np.cumsum(log.lengths)  # (U,)
    held_out = items[ends[:, None] + np.arange(-validation - test, 0)]
    trains = np.ones(len(items), dtype=bool)
    trains[(ends[:, None] + np.arange(-validation - test, 0)).ravel()] = False
    offsets = _offsets(log.lengths - validation - test)
    train_items, offsets = add_noise(items[trains], offsets, config.noise)
    futures, test_futures = (
        np.ascontiguousarray(held_out[:, :validation]),
        np.ascontiguousarray(held_out[:, validation:]),
    )
    sequences = Sequences(train_items, offsets, futures, len(log.item_ids))
    return Parts(log, sequences, np.arange(len(log.user_ids)), test_futures)


def _of_length(log: Interactions, needed: int, config: DataConfig, say: Say) -> Interactions:
    """Users with at least `needed` interactions; `say` is told how many others there were."""
    enough = log.lengths >= needed
    if not enough.any():
        raise _nobody(
            config,
            f"no user has the {needed} interactions that num_futures={config.num_futures} needs",
        )
    dropped = len(log.user_ids) - int(enough.sum())
    if dropped:
        say(f"{config.name}: {dropped} users with fewer than {needed} interactions left out")
        log = log.only(enough[log.users])
    return log.compact()


def _held_out_users(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Some users validate, others test, by their last K; only the rest trains, whole."""
    log = log.compact()
    validation, test = config.validation_futures, config.num_futures
    eligible = np.flatnonzero(log.lengths > max(validation, test))
    count = max(1, int((config.split.share or 0) * len(log.user_ids)))
    if len(eligible) < 2 * count or len(log.user_ids) <= 2 * count:
        raise _nobody(
            config,
            f"{count} users to validate and {count} to test are asked, but {len(eligible)} of "
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
    learned = _cut(items, starts[trains], lengths[trains])
    train_items, train_offsets = add_noise(*learned, config.noise)
    none = np.empty((len(trains), 0), np.int32)
    training = Sequences(train_items, train_offsets, none, len(log.item_ids))
    past = _cut(items, starts[validating], lengths[validating] - validation)
    futures = _next(items, (starts + lengths)[validating] - validation, validation)
    return Parts(
        log,
        Sequences(*past, futures, len(log.item_ids), training),
        validating,
        _next(items, (starts + lengths)[testing] - test, test),
        _cut(items, starts[testing], lengths[testing] - test),
        testing,
    )


def _after_a_moment(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """What comes before one moment trains; the next K of each user validate, or test, from two.

    The moments leave `share` of all interactions after the second, and as many between both. A user
    is scored who has a history before the moment and K interactions behind it.
    """
    log = log.compact()
    validation, test = config.validation_futures, config.num_futures
    share = config.split.share or 0
    places = [int(len(log) * (1 - 2 * share)), int(len(log) * (1 - share))]
    if not len(log):
        raise _nobody(config, "no interactions are left")
    first, second = np.partition(log.times, places)[places]
    lengths, items = log.lengths, _items(log)
    starts = np.cumsum(lengths) - lengths
    counts = [  # (U,) of interactions before each moment
        np.bincount(log.users[log.times < moment], minlength=len(lengths))
        for moment in (first, second)
    ]
    learned, before = counts
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
    train_items, train_offsets = add_noise(
        *_cut(items, starts[trains], learned[trains]), config.noise
    )
    none = np.empty((len(trains), 0), np.int32)
    training = Sequences(train_items, train_offsets, none, len(log.item_ids))
    row = np.full(len(lengths), -1)
    row[trains] = np.arange(len(trains))
    rows = row[validating]
    past = _cut(train_items, train_offsets[rows], training.lengths[rows])
    return Parts(
        log,
        Sequences(
            *past,
            _next(items, (starts + learned)[validating], validation),
            len(log.item_ids),
            training,
        ),
        validating,
        _next(items, (starts + before)[testing], test),
        _continued(
            training, row[testing], items, (starts + learned)[testing], (before - learned)[testing]
        ),
        testing,
    )


def _continued(
    training: Sequences, rows: Places, items: Items, starts: Places, lengths: Places
) -> tuple[Items, Offsets]:
    """Training histories `rows` (V,), -1 for none, each with a stretch of `items` behind it."""
    known = rows >= 0
    old = np.where(known, training.lengths[rows], 0)
    offsets = _offsets(old + lengths)
    joined = np.empty(offsets[-1], np.int32)
    joined[_stretches(offsets[:-1], old)] = training.items[
        _stretches(np.where(known, training.offsets[rows], 0), old)
    ]
    joined[_stretches(offsets[:-1] + old, lengths)] = items[_stretches(starts, lengths)]
    return joined, offsets


def _nobody(config: DataConfig, why: str) -> DataError:
    return DataError(
        f"{config.name}: {why}; lower data.num_futures or the filters"
        + ("" if config.split.kind == "last" else ", or change data.split.share")
    )


def _items(log: Interactions) -> Items:
    """(T,) items from 1: 0 is padding."""
    return log.items + np.int32(1)


def _offsets(lengths: Places) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _stretches(starts: Places, lengths: Places) -> Places:
    """The places starts[i] … starts[i] + lengths[i] - 1 for each i, one after another."""
    offsets = _offsets(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def _cut(items: Items, starts: Places, lengths: Places) -> tuple[Items, Offsets]:
    """Those stretches of `items`, one after another."""
    return items[_stretches(starts, lengths)], _offsets(lengths)


def _next(items: Items, starts: Places, count: int) -> Items:
    """(V, count) the items from each start."""
    found: Items = items[starts[:, None] + np.arange(count)]
    return found
