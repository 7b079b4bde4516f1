"""Optuna as a searcher of Ray Tune that keeps the fidelity of every trial.

Ray's own OptunaSearch tells Optuna that a trial which the scheduler stopped early is complete, with
the value of its last epoch. Here such a trial is told as pruned, with all its reports, which TPE
and the importances know how to read; one that raised, or whose metric is no number, as failed.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune_srs.space.objective import Objective
from tune_srs.tuning.messages import EpochDone, from_result

Values = Mapping[str, Any]
Report = tuple[int, Sequence[float]]  # epoch, and a value per objective


@dataclass
class _Running:
    trial: optuna.Trial
    best: Sequence[float] = ()


class OptunaSearcher(Searcher):
    """Suggests `{"trial": number, **space(trial)}`.

    Results hold messages, see `messages.py`. The value of a complete trial is that of its best
    epoch. Of several objectives the first one decides which epoch that is; Optuna takes no reports
    of such trials.

    `study`: the trials of earlier sessions, those that go on enqueued under their numbers.
    `space`: called with an `optuna.Trial`, returns the configuration.
    `objectives`: what to optimise.
    `sampler`: returns the sampler for a trial's number; each trial has a new one, without a state.
    `points`: values of parameters, tried first; the first ones belong to the trials in `study`.
    `at_once`: no suggestion while this many trials run, so each one has seen every ended trial.
    `unfinished`: the reports so far of the trials that go on, by number.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Callable[[optuna.Trial], dict[str, Any]],
        objectives: Sequence[Objective],
        sampler: Callable[[int], BaseSampler],
        *,
        points: Sequence[Values] = (),
        at_once: Callable[[], float] = lambda: math.inf,
        unfinished: Mapping[int, Sequence[Report]] | None = None,
    ) -> None:
        super().__init__(metric=objectives[0].metric, mode=objectives[0].mode)
        self.study = study
        self._space = space
        self._objectives = objectives
        self._sampler = sampler
        self._at_once = at_once
        self._running: dict[str, _Running] = {}  # by Ray's id
        self._unfinished = dict(unfinished or {})
        self._begun = len(study.get_trials(deepcopy=False))
        for point in points[self._begun :]:
            study.enqueue_trial(dict(point))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._running) >= self._at_once():
            return None
        if not self._unfinished:
            self.study.sampler = self._sampler(self._begun)
            self._begun += 1
        trial = self.study.ask()  # what is enqueued comes first, in the order of the numbers
        values = self._space(trial)
        running = self._running[trial_id] = _Running(trial)
        for step, report in self._unfinished.pop(trial.number, ()):
            self._take(running, step, report)
        return {"trial": trial.number, **values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        message = from_result(result)
        if isinstance(message, EpochDone):
            self._take(self._running[trial_id], message.epoch, self._values(message))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        running = self._running.pop(trial_id)
        message = from_result(result) if result and not error else None
        values = self._values(message) if isinstance(message, EpochDone) else [math.nan]
        if not isinstance(message, EpochDone) or not all(map(math.isfinite, values)):
            self.study.tell(running.trial, state=TrialState.FAIL)
            return
        # the report on which a scheduler stops a trial comes here only
        self._take(running, message.epoch, values)
        if message.finished:
            self.study.tell(running.trial, running.best)
        else:
            self.study.tell(running.trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the next session builds its `study` from the trials so far."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("give the trials so far as `study`")

    def _values(self, message: EpochDone) -> list[float]:
        return [message.metrics.get(one.metric, math.nan) for one in self._objectives]

    def _take(self, running: _Running, epoch: int, values: Sequence[float]) -> None:
        """Note a report; that of an epoch may come again, since a resumed trial repeats some."""
        if not all(map(math.isfinite, values)):
            return
        if not running.best or self._objectives[0].better(values[0], running.best[0]):
            running.best = values
        if len(self._objectives) == 1:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The reported value is ignored")
                running.trial.report(values[0], epoch)
