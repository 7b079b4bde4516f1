"""Optuna as a searcher of Ray Tune that keeps the fidelity of every trial.

Ray's own OptunaSearch tells Optuna that a trial which the scheduler stopped early is complete, with
the value of its last epoch. Here such a trial is told as pruned, with all its reports, which TPE
and the importances know how to read; one that raised, or whose metric is no number, as failed.
"""

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune_srs.results import write_aside
from tune_srs.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaSearcher(Searcher):
    """Suggests configurations `{"trial": number, dotted name: value, …}` from a `Space`.

    A result must hold `epoch`, the metric, and `finished`: whether the trial ended by itself. While
    `at_once` trials run none is suggested, so that each suggestion knows all that have ended.
    """

    def __init__(self, space: Space, seed: int, at_once: int) -> None:
        super().__init__(metric=space.search.metric, mode=space.search.mode)
        self._space = space
        self._at_once = at_once
        self._trials: dict[str, optuna.Trial] = {}  # running ones, by Ray's id
        self.study = optuna.create_study(
            direction="maximize" if space.search.mode == "max" else "minimize",
            sampler=_sampler(space, seed),
        )
        for point in space.points():
            self.study.enqueue_trial(point)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._trials) >= self._at_once:
            return None
        trial = self._trials[trial_id] = self.study.ask()
        trial.set_user_attr("trial_id", trial_id)
        return {"trial": trial.number, **self._space.suggest(trial)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if math.isfinite(result[self.metric]):
            _report(self._trials[trial_id], result[self.metric], result["epoch"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._trials.pop(trial_id)
        value = (result or {}).get(self.metric, math.nan)
        if error or result is None or not math.isfinite(value):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        # the report on which a scheduler stops a trial comes here only
        _report(trial, value, result["epoch"])
        if result["finished"]:
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps((self.study, self._trials)))

    def restore(self, checkpoint_path: str) -> None:
        self.study, self._trials = pickle.loads(Path(checkpoint_path).read_bytes())


def write_study(study: optuna.Study, path: Path) -> None:
    """A copy of `study` as an sqlite file, written aside and renamed."""

    def write(aside: Path) -> None:
        storage = f"sqlite:///{aside}"
        copy = optuna.create_study(
            storage=storage, study_name=path.parent.name, direction=study.direction
        )
        copy.add_trials(study.trials)

    write_aside(path, write)


def _report(trial: optuna.Trial, value: float, epoch: int) -> None:
    """Report, also an epoch that was reported before: a resumed trial repeats some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The reported value is ignored")
        trial.report(value, step=epoch)


def _sampler(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler asked for; of a grid every point is enqueued, so none is left to sample."""
    if space.search.sampler.type != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=space.search.sampler.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
