"""Trials as Optuna knows them: for its samplers, its importances, and `optuna.db`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tune_srs.files import write_aside
from tune_srs.runs.journal import TrialRecord
from tune_srs.space.objective import Objective
from tune_srs.space.parameters import Categorical, Distribution, Int
from tune_srs.space.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)
STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "waiting": TrialState.PRUNED,
    "unfinished": TrialState.RUNNING,
}


def new_study(objectives: Sequence[Objective]) -> optuna.Study:
    """Return an empty study in memory."""
    return optuna.create_study(directions=[_direction(one) for one in objectives])


def frozen(record: TrialRecord, space: Space) -> FrozenTrial:
    """Return a trial as Optuna would have it.

    A complete one has the values of its best epoch; one that was stopped, or waits, is pruned and
    has those of its last. Optuna takes reports, and a value of a pruned trial, only where one
    metric is searched.
    """
    objectives = space.search.objectives
    state = STATES[record.status]
    single = len(objectives) == 1
    values: Sequence[float] | None = None
    if state == TrialState.COMPLETE:
        best = objectives[0].best(record.reports, lambda report: report[1][0])
        values = best and best[1]
    elif state == TrialState.PRUNED and single and record.reports:
        values = record.reports[-1][1]
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(record.values),
        distributions=distributions(record.values, space),
        intermediate_values={epoch: one[0] for epoch, one in record.reports} if single else None,
    )


def distributions(names: Iterable[str], space: Space) -> dict[str, BaseDistribution]:
    """Return the distributions of some parameters in Optuna's classes."""
    return {name: _distribution(space.params[name]) for name in names}


def write_study(records: Sequence[TrialRecord], space: Space, path: Path, name: str) -> None:
    """Write the trials that have ended into an sqlite file at `path`, in one step.

    Optuna asks the database before each value that it adds, so that a trial of 20 epochs takes it
    some 30 ms.
    """

    def write(aside: Path) -> None:
        url = sqlalchemy.URL.create("sqlite", database=str(aside))
        storage = optuna.storages.RDBStorage(url.render_as_string())
        # the file is put into its place when it is whole: nothing of it need be safe before
        sqlalchemy.event.listen(storage.engine, "connect", _write_without_waiting)
        storage.engine.dispose()  # the connections so far
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[_direction(one) for one in space.search.objectives],
        )
        study.add_trials([frozen(record, space) for record in records if record.ended])
        storage.engine.dispose()

    write_aside(path, write)


def _direction(objective: Objective) -> StudyDirection:
    return StudyDirection.MAXIMIZE if objective.mode == "max" else StudyDirection.MINIMIZE


def _write_without_waiting(connection: sqlalchemy.PoolProxiedConnection, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=OFF")


def _distribution(parameter: Distribution) -> BaseDistribution:
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Int):
        return IntDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1
        )
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
