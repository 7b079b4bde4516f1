"""Which trials go on, wait or are stopped early: rules that see every report, in order.

A rule is fed again from the journal when a search is resumed and then stands where it stood. Ray's
schedulers serve the tests as a reference and not the search: they draw brackets from numpy's global
state, and take a report that comes again for a new one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from tune_srs.runs.journal import TrialRecord
from tune_srs.space.search import (
    ASHASettings,
    HyperbandSettings,
    MedianStoppingSettings,
    NoEarlyStopping,
)
from tune_srs.space.space import Space
from tune_srs.tuning.messages import Message, TrialFailed

EARLY = "early stopping"  # the reason of a trial that a rule has stopped
Verdict = Literal["go on", "wait", "stop"]


class Rule(Protocol):
    """Takes each report and says what becomes of its trial."""

    def takes(self, trial: int, epoch: int, value: float) -> Verdict:
        """The higher the `value`, the better. A report that comes again is judged again."""
        ...

    def promoted(self, waiting: Mapping[int, int], at_least_one: bool) -> int | None:
        """Return which of the trials that wait goes on, if any; `waiting`: trial → its epochs.

        With `at_least_one` the best trial of each rung may always pass it.
        """
        ...


class Never:
    """Every trial trains to its end."""

    def takes(self, trial: int, epoch: int, value: float) -> Verdict:
        return "go on"

    def promoted(self, waiting: Mapping[int, int], at_least_one: bool) -> int | None:
        return None


class SuccessiveHalving:
    """ASHA (arXiv 1810.05934, algorithm 2): rungs stand at the epochs g, g f, g f², …

    A trial waits at each rung until it belongs to the best 1/f of the trials that have reached it.
    Trials that wait higher up go on first. With more than one bracket, asynchronous Hyperband
    (arXiv 1603.06560): bracket b has the grace period g f^b, and a trial is compared with those of
    its bracket only.
    """

    def __init__(self, grace_period: int, reduction_factor: int, brackets: int = 1) -> None:
        self._grace_period = grace_period
        self._factor = reduction_factor
        # as in Hyperband, each bracket spends about the same: the quickest gets the most trials
        sizes = np.array([float(reduction_factor) ** -b * (b + 1) for b in range(brackets)])
        self._shares = sizes / sizes.sum()
        self._brackets: dict[int, int] = {}
        # bracket and epoch of a rung → trial → its value there
        self._rungs: defaultdict[tuple[int, int], dict[int, float]] = defaultdict(dict)

    def bracket(self, trial: int) -> int:
        """At random, but of a trial always the same."""
        if trial not in self._brackets:
            random = np.random.default_rng(trial)
            self._brackets[trial] = int(random.choice(len(self._shares), p=self._shares))
        return self._brackets[trial]

    def takes(self, trial: int, epoch: int, value: float) -> Verdict:
        bracket = self.bracket(trial)
        rung = self._grace_period * self._factor**bracket
        while rung < epoch:
            rung *= self._factor
        if rung != epoch:
            return "go on"
        self._rungs[bracket, rung][trial] = value
        return "go on" if trial in self._best(bracket, rung) else "wait"

    def promoted(self, waiting: Mapping[int, int], at_least_one: bool) -> int | None:
        for bracket, rung in sorted(self._rungs, key=lambda key: -key[1]):
            for trial in self._best(bracket, rung, int(at_least_one)):
                if waiting.get(trial) == rung:
                    return trial
        return None

    def _best(self, bracket: int, rung: int, least: int = 0) -> list[int]:
        """Return the best 1/f of the trials of a rung, the best first, but `least` at least."""
        reached = self._rungs[bracket, rung]
        count = max(len(reached) // self._factor, least)
        return sorted(reached, key=lambda trial: (-reached[trial], trial))[:count]


class MedianStopping:
    """Stops a trial whose best value is below the median of the others' running averages.

    Averages run from the grace period to the same epoch (Golovin et al., "Google Vizier", 2017).
    """

    def __init__(self, grace_period: int, min_trials: int) -> None:
        self._grace_period = grace_period
        self._min_trials = min_trials
        self._best: dict[int, float] = {}
        self._sums: defaultdict[int, dict[int, float]] = defaultdict(dict)  # epoch → trial → sum

    def takes(self, trial: int, epoch: int, value: float) -> Verdict:
        self._best[trial] = max(value, self._best.get(trial, value))
        if epoch < self._grace_period:
            return "go on"
        self._sums[epoch][trial] = self._sums[epoch - 1].get(trial, 0.0) + value
        others = [total for number, total in self._sums[epoch].items() if number != trial]
        if len(others) < self._min_trials:
            return "go on"
        averages = np.array(others) / (epoch - self._grace_period + 1)
        return "stop" if self._best[trial] < np.median(averages) else "go on"

    def promoted(self, waiting: Mapping[int, int], at_least_one: bool) -> int | None:
        return None


class Judge:
    """Decides which trials of a search go on; `records` are its live ones, one per trial."""

    def __init__(self, space: Space, records: Sequence[TrialRecord]) -> None:
        self._objective = space.search.objectives[0]
        self._records = records
        self._rule = rule(space.search.scheduler)
        self._max_waiting = getattr(space.search.scheduler, "max_waiting", 0)
        self.waits = self._max_waiting > 0  # a trial that does not go on may do so later
        for record in records:
            for epoch, values in record.reports:
                self._rule.takes(record.number, epoch, self._objective.sign * values[0])

    def of(self, number: int, message: Message) -> Verdict:
        """Return what becomes of a trial after this message."""
        if isinstance(message, TrialFailed):  # it ends by itself
            return "go on"
        record = self._records[number]
        if message.finished or message.epoch <= record.passed or message.epoch < record.epochs:
            return "go on"  # it ends by itself, or it repeats what was judged
        value = self._objective.sign * message.metrics[self._objective.metric]
        return self._rule.takes(number, message.epoch, value)

    def promoted(self, at_least_one: bool = False) -> int | None:
        """Return which of the trials that wait goes on, if any; see `Rule.promoted`."""
        return self._rule.promoted(self._waiting(), at_least_one)

    def superfluous(self) -> int | None:
        """Return the worst of the trials that wait if there are too many; None if not."""
        waiting = self._waiting()
        if len(waiting) <= self._max_waiting:
            return None

        def standing(number: int) -> tuple[int, float]:
            epoch, values = self._records[number].reports[-1]
            return epoch, self._objective.sign * values[0]

        return min(waiting, key=standing)

    def _waiting(self) -> dict[int, int]:
        return {one.number: one.epochs for one in self._records if one.status == "waiting"}


def rule(
    settings: ASHASettings | HyperbandSettings | MedianStoppingSettings | NoEarlyStopping,
) -> Rule:
    """The rule that a space asks for."""
    match settings:
        case ASHASettings():
            return SuccessiveHalving(settings.grace_period, settings.reduction_factor)
        case HyperbandSettings():
            return SuccessiveHalving(
                settings.grace_period, settings.reduction_factor, settings.brackets
            )
        case MedianStoppingSettings():
            return MedianStopping(settings.grace_period, settings.min_trials)
        case NoEarlyStopping():
            return Never()
