"""Which trials are stopped early: rules that see every report of every trial, in order.

A rule is fed again from the journal when a search is resumed and then stands where it stood. Ray's
schedulers serve the tests as a reference and not the search: they draw brackets from numpy's global
state, and take a report that comes again for a new one.
"""

from collections import defaultdict
from typing import Protocol

import numpy as np

from tune_srs.runs.journal import Journal
from tune_srs.space.search import (
    ASHASettings,
    HyperbandSettings,
    MedianStoppingSettings,
    NoEarlyStopping,
)
from tune_srs.space.space import Space
from tune_srs.tuning.messages import Message, TrialFailed

EARLY = "early stopping"  # the reason of a trial that a rule has stopped


class Rule(Protocol):
    """Takes each report and says whether its trial should stop."""

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        """The higher the `value`, the better. A report that comes again is judged again."""


class Never:
    """Every trial trains to its end."""

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        return False


class SuccessiveHalving:
    """ASHA (arXiv 1810.05934): at the epochs g, g f, g f², … the best 1/f of the trials go on.

    With more than one bracket, asynchronous Hyperband (arXiv 1603.06560): bracket b has the grace
    period g f^b, and a trial is compared with those of its bracket only.
    """

    def __init__(self, grace_period: int, reduction_factor: int, brackets: int = 1) -> None:
        self._grace_period = grace_period
        self._factor = reduction_factor
        # as in Hyperband, each bracket spends about the same: the quickest gets the most trials
        sizes = np.array([float(reduction_factor) ** -b * (b + 1) for b in range(brackets)])
        self._shares = sizes / sizes.sum()
        self._brackets: dict[int, int] = {}
        self._rungs: defaultdict[tuple[int, int], dict[int, float]] = defaultdict(dict)

    def bracket(self, trial: int) -> int:
        """At random, but of a trial always the same."""
        if trial not in self._brackets:
            random = np.random.default_rng(trial)
            self._brackets[trial] = int(random.choice(len(self._shares), p=self._shares))
        return self._brackets[trial]

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        bracket = self.bracket(trial)
        rung = self._grace_period * self._factor**bracket
        while rung < epoch:
            rung *= self._factor
        if rung != epoch:
            return False
        reached = self._rungs[bracket, rung]
        others = [other for number, other in reached.items() if number != trial]
        reached[trial] = value
        if not others:
            return False
        return bool(value < np.percentile(others, 100 * (1 - 1 / self._factor)))


class MedianStopping:
    """Stops a trial whose best value is below the median of the others' running averages.

    Averages run from the grace period to the same epoch (Golovin et al., "Google Vizier", 2017).
    """

    def __init__(self, grace_period: int, min_trials: int) -> None:
        self._grace_period = grace_period
        self._min_trials = min_trials
        self._best: dict[int, float] = {}
        self._sums: defaultdict[int, dict[int, float]] = defaultdict(dict)  # epoch → trial → sum

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        self._best[trial] = max(value, self._best.get(trial, value))
        if epoch < self._grace_period:
            return False
        self._sums[epoch][trial] = self._sums[epoch - 1].get(trial, 0.0) + value
        others = [total for number, total in self._sums[epoch].items() if number != trial]
        if len(others) < self._min_trials:
            return False
        averages = np.array(others) / (epoch - self._grace_period + 1)
        return bool(self._best[trial] < np.median(averages))


class Judge:
    """Decides which trials of a search stop, after the reports of its earlier sessions."""

    def __init__(self, space: Space, journal: Journal) -> None:
        self._objective = space.search.objectives[0]
        self._journal = journal
        self._rule = rule(space.search.scheduler)
        for record in journal.trials:
            for epoch, values in record.reports:
                self._rule.stops(record.number, epoch, self._objective.sign * values[0])

    def stops(self, number: int, message: Message) -> bool:
        """Return whether a trial should stop after this message."""
        if isinstance(message, TrialFailed):  # it ends by itself
            return False
        if message.epoch < self._journal.trials[number].epochs:  # it repeats what was judged
            return False
        value = self._objective.sign * message.metrics[self._objective.metric]
        return self._rule.stops(number, message.epoch, value)


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
