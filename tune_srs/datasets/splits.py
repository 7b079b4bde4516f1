"""Which interactions train, validate and test: three ways to cut futures from histories.

In all of them noise is added only to the training histories, and therefore to a user's past where
that is the training history.
"""

from dataclasses import dataclass

import numpy as np

from tune_srs.config.data import DataConfig
from tune_srs.datasets.histories import Histories, Items, Times
from tune_srs.datasets.interactions import Interactions
from tune_srs.datasets.noise import add_noise
from tune_srs.datasets.stretches import Positions, as_rows, cut, offsets_of, positions_in
from tune_srs.errors import DataError, Say

MOST_CELLS = 2**25  # of rows of futures, where users have different numbers: 128 MiB


@dataclass(frozen=True)
class Scored:
    """The V users whose futures are predicted."""

    users: Positions  # (V,) positions in `log.user_ids`
    starts: Positions  # (V,) where the futures begin in the log; what stands before is known
    futures: Items  # (V, K) nearest first; 0 at the end of a row where a user has fewer


@dataclass(frozen=True)
class Parts:
    """A split log: the training histories, and what is predicted from which histories."""

    log: Interactions  # what is left of it
    training: Histories
    validation: Scored
    validation_histories: Histories  # of V users; where these train, the very training histories
    test: Scored
    test_histories: Histories | None = None  # of W users, where they are not those of validation
    before_test: Histories | None = None  # all that precedes the test, if a moment begins it


def split(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Split as `config.split` says. Raises `DataError` if no user is left to be scored."""
    ways = {"last": _last, "users": _held_out_users, "time": _after_a_moment}
    return ways[config.split.kind](log, config, say)


def _last(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Test each user's last K interactions, validate on the K before them, train on the rest."""
    validation, test = _same_for_all(config)
    log = _of_length(log, validation + test + 1, test, config, say)
    ends = np.cumsum(log.lengths)  # (U,)
    starts, lengths = ends - log.lengths, log.lengths - validation - test
    training = _training(log, starts, lengths, config)
    users = np.arange(len(ends))
    return Parts(
        log,
        training,
        _scored(log, users, ends - validation - test, validation),
        training,
        _scored(log, users, ends - test, test),
    )


def _same_for_all(config: DataConfig) -> tuple[int, int]:
    """Return K of the validation and of the test, which every user has."""
    validation, test = config.validation_futures, config.test_futures
    assert validation is not None
    assert test is not None
    return validation, test


def _of_length(
    log: Interactions, needed: int, num_futures: int, config: DataConfig, say: Say
) -> Interactions:
    """Keep users with at least `needed` interactions; `say` reports how many are left out."""
    enough = log.lengths >= needed
    if not enough.any():
        raise _nobody(
            config,
            f"no user has the {needed} interactions that num_futures={num_futures} needs",
        )
    dropped = int(((log.lengths > 0) & ~enough).sum())  # the filters have left nothing of others
    if dropped:
        say(f"{config.name}: {dropped} users with fewer than {needed} interactions left out")
        log = log.only(enough[log.users])
    return log.compact()


def _held_out_users(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Validate on some users and test on others, by their last K; train on all others, whole.

    `share` of all users test and as many validate, drawn from those with more than K interactions.
    """
    log = log.compact()
    validation, test = _same_for_all(config)
    users, most = len(log.user_ids), max(validation, test)
    eligible = np.flatnonzero(log.lengths > most)
    count = max(1, int((config.split.share or 0) * users))
    if len(eligible) < 2 * count or users <= 2 * count:
        raise _nobody(
            config,
            f"{count} users are needed to validate and {count} to test, but {len(eligible)} of "
            f"{users} have more than {most} interactions",
        )
    drawn = np.random.default_rng(config.split.seed).permutation(eligible)[: 2 * count]
    testing, validating = np.sort(drawn[:count]), np.sort(drawn[count:])
    trains = np.setdiff1d(np.arange(users), drawn)
    say(
        f"{config.name}: of {users} users {len(trains)} train, {count} validate and {count} test, "
        f"and never train; they are drawn from the {len(eligible)} with more than {most} "
        f"interactions"
    )
    ends = np.cumsum(log.lengths)
    starts = ends - log.lengths
    training = _training(log, starts[trains], log.lengths[trains], config)
    on_validation = _scored(log, validating, ends[validating] - validation, validation)
    on_test = _scored(log, testing, ends[testing] - test, test)
    return Parts(
        log,
        training,
        on_validation,
        _known(log, starts[validating], on_validation.starts),
        on_test,
        _known(log, starts[testing], on_test.starts),
    )


def _scored(log: Interactions, users: Positions, starts: Positions, count: int) -> Scored:
    """Return users with their `count` interactions from `starts` on."""
    lengths = np.full(len(users), count)
    return Scored(users, starts, as_rows(_items(log)[positions_in(starts, lengths)], lengths))


def _known(log: Interactions, starts: Positions, ends: Positions) -> Histories:
    """Return those stretches of the log."""
    return Histories(*cut(_items(log), starts, ends - starts), len(log.item_ids))


def _after_a_moment(log: Interactions, config: DataConfig, say: Say) -> Parts:
    """Train before a first moment, validate from then on, test from a second moment on.

    The share `share` of all interactions lies after the second moment, and as many between both. A
    user with a history before a moment is scored on what follows until the next one.
    """
    log = log.compact()
    share = config.split.share or 0
    if not len(log):
        raise _nobody(config, "no interactions are left")
    positions = [min(int(len(log) * (1 - n * share)), len(log) - 1) for n in (2, 1)]
    first, second = np.partition(log.times, positions)[positions]
    ends = np.cumsum(log.lengths)
    starts = ends - log.lengths
    learned, before = (  # (U,) interactions before each moment
        np.bincount(log.users[log.times < moment], minlength=len(ends))
        for moment in (first, second)
    )
    trains = np.flatnonzero(learned)
    if not len(trains):
        raise _nobody(config, f"nobody has a history before the first moment, {first}")
    training = _training(log, starts[trains], learned[trains], config)
    windows = _Windows(log, training, config, say)
    validation = windows.scored("validate", learned, before, config.validation_futures)
    test = windows.scored("test", before, log.lengths, config.test_futures)
    say(
        f"{config.name}: {len(trains)} users train before {first}, {len(validation.users)} "
        f"validate from then on and {len(test.users)} test from {second} on; the others have no "
        f"history or no interactions then"
    )
    rows = np.full(len(ends), -1)  # of each user in `training`
    rows[trains] = np.arange(len(trains))
    known = rows[validation.users]
    past = cut(training.items, training.offsets[known], training.lengths[known])

    def until_the_test(users: Positions) -> Histories:
        between = ((starts + learned)[users], (before - learned)[users])
        return _continued(training, rows[users], _items(log), *between)

    return Parts(
        log,
        training,
        validation,
        Histories(*past, training.num_items),
        test,
        until_the_test(test.users),
        until_the_test(np.flatnonzero(before)),
    )


@dataclass(frozen=True)
class _Windows:
    """A log whose users are scored on all that they do in a window of time."""

    log: Interactions
    training: Histories
    config: DataConfig
    say: Say

    def scored(self, verb: str, before: Positions, until: Positions, most: int | None) -> Scored:
        """Return the users with a history before the window and a future in it.

        `before` and `until` (U,): how many of a user's interactions come before the beginning and
        before the end of the window. With `most`, a user has at most so many futures, the nearest.
        """
        users = np.flatnonzero((before > 0) & (until > before))
        starts = (np.cumsum(self.log.lengths) - self.log.lengths + before)[users]
        lengths = (until - before)[users]
        items = _items(self.log)[positions_in(starts, lengths)]
        if self.config.split.cold_items == "drop":
            warm = self.training.occurring()[items]
            self._say(f"{(~warm).sum()} of {len(warm)} futures to {verb} on are cold and dropped")
            owners = np.repeat(np.arange(len(users)), lengths)
            items, lengths = items[warm], np.bincount(owners[warm], minlength=len(users))
        some = lengths > 0
        users, starts, lengths = users[some], starts[some], lengths[some]
        if not len(users):
            raise _nobody(
                self.config, f"nobody can {verb}: no user has a history and futures behind it"
            )
        # rows as long as the longest: one user of a great many must not fill the memory
        most = most or max(MOST_CELLS // len(users), 1)
        kept = np.minimum(lengths, most)
        if shortened := int((lengths > most).sum()):
            self._say(f"{shortened} of {len(users)} users {verb} on their nearest {most} futures")
        items = items[positions_in(offsets_of(lengths)[:-1], kept)]
        return Scored(users, starts, as_rows(items, kept))

    def _say(self, message: str) -> None:
        self.say(f"{self.config.name}: {message}")


def _training(
    log: Interactions, starts: Positions, lengths: Positions, config: DataConfig
) -> Histories:
    """Return those stretches of the log, with noise: the histories that train."""
    items, offsets = cut(_items(log), starts, lengths)
    clean = Histories(items, offsets, len(log.item_ids), _seconds(log, starts, lengths))
    return add_noise(clean, config.noise)


def _seconds(log: Interactions, starts: Positions, lengths: Positions) -> Times | None:
    """Return whole seconds since 1970 of those stretches of the log, if it has times."""
    if log.ticks is None:
        return None
    times, _ = cut(log.times, starts, lengths)
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
    offsets = offsets_of(old + lengths)
    joined = np.empty(offsets[-1], np.int32)
    joined[positions_in(offsets[:-1], old)] = training.items[
        positions_in(np.where(known, training.offsets[rows], 0), old)
    ]
    joined[positions_in(offsets[:-1] + old, lengths)] = items[positions_in(starts, lengths)]
    return Histories(joined, offsets, training.num_items)


def _nobody(config: DataConfig, why: str) -> DataError:
    return DataError(
        f"{config.name}: {why}; "
        + {
            "last": "lower data.num_futures or the filters",
            "users": "lower data.num_futures or the filters, or change data.split.share",
            "time": "lower the filters, or change data.split.share",
        }[config.split.kind]
    )


def _items(log: Interactions) -> Items:
    """Return items numbered from 1: (T,)."""
    return log.items + np.int32(1)
