"""A study: first its tunings, each an ordinary search, then its runs, see `pool.py`.

What goes on after a cut is what stands in the study's folder: a run whose file is there is done, a
tuning goes on from its journal.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tune_srs.config.settings import TrialConfig
from tune_srs.config.yaml import dump_yaml
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import DataError, SearchError
from tune_srs.files import folder_aside, sweep_aside, write_aside
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.run import Run
from tune_srs.space.space import Space
from tune_srs.storage import Storage
from tune_srs.studies import run as runs
from tune_srs.studies.plan import TUNED, StudyPlan
from tune_srs.studies.pool import Failure, outcomes
from tune_srs.studies.run import Facts, Score, Task
from tune_srs.tuning import retries
from tune_srs.tuning.console import Console
from tune_srs.tuning.search import alone, search

Data = Mapping[str, PreparedData]  # by the names of the data sets
Tuned = dict[tuple[str, str, int], TrialRecord]  # by configuration, data set and tuning


def run_study(plan: StudyPlan, data: Data, folder: Path, console: Console, new: bool) -> bool:
    """Run or go on with `plan` in `folder`. True if it ended, False if it was interrupted.

    Raises `ConfigError` if the resources are not there or another process runs the study,
    `SearchError` if a tuning or all of the first runs fail.
    """
    plan.check(folder, resume=not new)
    if new:
        _begin(plan, data, folder)
    with alone(folder):
        sweep_aside(folder)
        try:
            tuned = _tune_all(plan, data, folder, console)
            if tuned is not None:
                _Runs(plan, data, tuned, folder, console).go()
                return True
        except KeyboardInterrupt:
            pass
    console.say(f"interrupted, what has ended is kept; {plan.how_to_resume(folder)}")
    return False


def _begin(plan: StudyPlan, data: Data, folder: Path) -> None:
    """Make the new `folder` of a study, with its plan: whole, or not at all."""
    with folder_aside(folder) as aside:
        plan.write(data, aside)


def _tune_all(plan: StudyPlan, data: Data, folder: Path, console: Console) -> Tuned | None:
    """What the tunings have chosen, those run that are missing; None if one was interrupted."""
    study = plan.study
    spaces = {
        (name, dataset, tuning): space
        for tuning in range(1, study.tunings + 1)
        for dataset in study.tuned_on
        for name in study.configurations
        if (space := study.space(name, dataset, tuning=tuning)) is not None
    }
    tuned: Tuned = {}
    for number, (which, space) in enumerate(spaces.items(), start=1):
        name, dataset, tuning = which
        place = folder / "searches" / f"tuning-{tuning}" / dataset / name
        if not RunPaths(place).best.exists():
            console.say(f"tuning {number}/{len(spaces)}: {name} on {dataset}, in {place}")
            seed = study.tuning_seed(tuning)
            if not _searched(plan, space, seed, data[dataset], place, console):
                return None
        tuned[which] = _chosen(space, place)
        _write_tuned(tuned, folder)
    return tuned


def _searched(
    plan: StudyPlan, space: Space, seed: int, data: PreparedData, place: Path, console: Console
) -> bool:
    """Run a search in `place`, or go on with it; False if it was interrupted."""
    resources = plan.resources
    if resources.storage is not None:
        of_tuning = f"{plan.name}/{place.parent.parent.name}/{place.parent.name}"
        shared = Storage(resources.storage).within(of_tuning).place
        resources = resources.model_copy(update={"storage": shared})
    if place.exists():
        stored = replace(Run(place).plan, resources=resources)
        return search(stored, data, place, console, resume=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    return search(Plan(place.name, space, seed, resources), data, place, console, resume=False)


def _chosen(space: Space, place: Path) -> TrialRecord:
    """The best trial of a search that has ended."""
    best = Run(place).winner
    if best is None:
        raise DataError(f"{place}: no trial gave {space.search.metrics[0]}; delete it and resume")
    return best


def _write_tuned(tuned: Tuned, folder: Path) -> None:
    """`tuned.yaml`: for each configuration and data set the best trial of each tuning."""
    content: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (name, dataset, tuning), trial in tuned.items():
        chosen = {
            "tuning": tuning,
            "values": trial.values,
            "trial": trial.number,
            "epoch": trial.best_epoch,
            "validation": _repeatable(trial.best_metrics),
        }
        content.setdefault(name, {}).setdefault(dataset, []).append(chosen)
    text = dump_yaml(content)
    write_aside(folder / TUNED, lambda aside: aside.write_text(text, encoding="utf-8"))


class _Runs:
    """The runs of a study: which are missing, and what came of each."""

    def __init__(
        self, plan: StudyPlan, data: Data, tuned: Tuned, folder: Path, console: Console
    ) -> None:
        self._plan, self._data, self._folder, self._console = plan, data, folder, console
        self._tasks = runs.tasks(plan.study)
        self._configs = {task: self._config(task, tuned) for task in self._tasks}
        self._known = {task: facts for task in self._tasks if (facts := self._done(task))}

    def go(self) -> None:
        """Run what is missing; nothing of Ray is started if nothing is."""
        missing = {task: self._configs[task] for task in self._tasks if task not in self._known}
        if not missing:
            return
        say = self._console.say
        with closing(outcomes(missing, self._plan, self._data, self._folder, say)) as ended:
            for task, outcome in ended:
                if isinstance(outcome, Failure):
                    self._fail(task, outcome.reason)
                else:
                    self._keep(task, outcome)

    def _keep(self, task: Task, score: Score) -> None:
        facts = replace(
            self._blank(task),
            epoch=score.epoch,
            epochs=score.epochs,
            metrics=_repeatable(score.metrics),
        )
        users = pd.DataFrame({"user": self._data[task.dataset].test_user_ids} | score.per_user)
        self._record(task, facts, users)
        metric = self._plan.study.primary_metric
        self._tell(task, f": {metric} {score.metrics[metric]:.4f}, of epoch {score.epoch}")

    def _fail(self, task: Task, reason: str) -> None:
        self._record(task, replace(self._blank(task), failure=reason), pd.DataFrame())
        self._tell(task, f" failed: {reason}")
        failures = [facts.failure for facts in self._known.values()]
        if in_vain := retries.in_vain(failures, not all(failures), "runs"):
            raise SearchError(
                f"{self._folder}: {in_vain}; fix the study and run it by another name"
            )

    def _record(self, task: Task, facts: Facts, users: pd.DataFrame) -> None:
        runs.write(task.path(self._folder), facts, users)
        self._known[task] = facts

    def _tell(self, task: Task, what: str) -> None:
        self._console.say(f"[{len(self._known)}/{len(self._tasks)}] {task}{what}")

    def _config(self, task: Task, tuned: Tuned) -> TrialConfig:
        study = self._plan.study
        on = task.dataset if task.dataset in study.tuned_on else (*study.tuned_on, None)[0]
        trial = tuned.get((task.configuration, on, task.tuning)) if on else None
        values = trial.values if trial else None
        return study.config(task.configuration, task.dataset, task.seed, values)

    def _blank(self, task: Task) -> Facts:
        fingerprint = self._data[task.dataset].fingerprint
        return Facts(self._configs[task].to_dict(), fingerprint, task.tuning)

    def _done(self, task: Task) -> Facts | None:
        """What is known of a run, if it is the one that is asked for."""
        facts = runs.read_facts(task.path(self._folder))
        blank = self._blank(task)
        return facts if facts and _what(facts) == _what(blank) else None


def _what(facts: Facts) -> tuple[dict[str, Any], str, int]:
    """What a run was asked to be."""
    return facts.config, facts.fingerprint, facts.tuning


def _repeatable(metrics: dict[str, float]) -> dict[str, float]:
    """Without times: the same study again gives the same files."""
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}
