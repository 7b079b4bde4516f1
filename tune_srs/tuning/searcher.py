"""Optuna as a searcher of Ray Tune that keeps the fidelity of every trial.

Ray's own OptunaSearch tells Optuna that a trial which the scheduler stopped early is complete, with
the value of its last epoch. Here such a trial is told as pruned, with all its reports, which TPE
and the importances know how to read; one that raised, or whose metric is no number, as failed.

Nothing in this file is about recommenders, or about this package.
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

optuna.logging.set_verbosity(optuna.logging.WARNING)

Values = Mapping[str, Any]


Report = tuple[int, Sequence[float]]  # step, and a value per metric


@dataclass
class _Running:
    trial: optuna.Trial
    best: Sequence[float] = ()


class OptunaSearcher(Searcher):
    """Suggests `{"trial": number, **space(trial)}`.

    A result must hold the metrics, `time_attr` (an increasing integer), and `finished`: whether the
    trial ended by itself; one that holds `error` failed. The value of a complete trial is that of
    its best step. Of several metrics the first one decides which step that is; Optuna takes no
    reports of such trials.

    `study`: the trials of earlier sessions, those that go on enqueued under their numbers.
    `space`: called with an `optuna.Trial`, returns the configuration.
    `metrics`, `modes`: what to optimise, and "max" or "min" for each.
    `sampler`: returns the sampler for a trial's number; each trial has a new one, without a state.
    `points`: values of parameters, tried first; the first ones belong to the trials in `study`.
    `at_once`: no suggestion while this many trials run, so each one has seen every ended trial.
    `unfinished`: the reports so far of the trials that go on, by number.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Callable[[optuna.Trial], dict[str, Any]],
        metrics: Sequence[str],
        modes: Sequence[str],
        sampler: Callable[[int], BaseSampler],
        *,
        time_attr: str = "training_iteration",
        points: Sequence[Values] = (),
        at_once: Callable[[], float] = lambda: math.inf,
        unfinished: Mapping[int, Sequence[Report]] | None = None,
    ) -> None:
        super().__init__(metric=metrics[0], mode=modes[0])
        self.study = study
        self._space = space
        self._metrics = metrics
        self._sampler = sampler
        self._time_attr = time_attr
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
        if "error" not in result:
            self._take(self._running[trial_id], result[self._time_attr], self._values(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        running = self._running.pop(trial_id)
        values = self._values(result or {})
        if error or not result or "error" in result or not all(map(math.isfinite, values)):
            self.study.tell(running.trial, state=TrialState.FAIL)
            return
        # the report on which a scheduler stops a trial comes here only
        self._take(running, result[self._time_attr], values)
        if result["finished"]:
            self.study.tell(running.trial, running.best)
        else:
            self.study.tell(running.trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the next session builds its `study` from the trials so far."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("give the trials so far as `study`")

    def _values(self, result: Values) -> list[float]:
        return [result.get(metric, math.nan) for metric in self._metrics]

    def _take(self, running: _Running, step: int, values: Sequence[float]) -> None:
        """Note a report, also of a step that was reported before: a resumed trial repeats some."""
        if not all(map(math.isfinite, values)):
            return
        if not running.best or self._better(values, running.best):
            running.best = values
        if len(self._metrics) == 1:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The reported value is ignored")
                running.trial.report(values[0], step)

    def _better(self, values: Sequence[float], than: Sequence[float]) -> bool:
        return values[0] > than[0] if self.mode == "max" else values[0] < than[0]
