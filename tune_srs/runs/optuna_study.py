"""A search as an Optuna study: out of its journal, and into the file that Optuna's tools read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from tune_srs.files import write_aside
from tune_srs.runs.journal import TrialRecord
from tune_srs.tuning.searcher import PastTrial

STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "unfinished": None,
}


def past_trial(record: TrialRecord) -> PastTrial:
    """What a searcher is told of a trial of an earlier session."""
    return PastTrial(STATES[record.status], record.values, record.reports)


def write_study(study: optuna.Study, path: Path, name: str) -> None:
    """A copy of the trials of `study` that have ended as an sqlite file, put there in one step."""

    def write(aside: Path) -> None:
        url = sqlalchemy.URL.create("sqlite", database=str(aside))
        storage = optuna.storages.RDBStorage(url.render_as_string())
        optuna.create_study(storage=storage, study_name=name, directions=study.directions)
        trials = study.get_trials(deepcopy=False, states=[s for s in TrialState if s.is_finished()])
        with storage.engine.begin() as connection:
            for table, rows in _rows(trials).items():
                if rows:
                    columns, values = ", ".join(rows[0]), ", ".join(f":{name}" for name in rows[0])
                    insert = f"INSERT INTO {table} ({columns}) VALUES ({values})"
                    connection.execute(sqlalchemy.text(insert), rows)
        storage.engine.dispose()

    write_aside(path, write)


def _rows(trials: Sequence[FrozenTrial]) -> dict[str, list[dict[str, Any]]]:
    """The rows of `trials` in Optuna's tables.

    `Study.add_trials` would ask the database before each value that it adds, some milliseconds
    each: minutes for a few hundred trials.
    """
    rows: dict[str, list[dict[str, Any]]] = {
        "trials": [],
        "trial_params": [],
        "trial_values": [],
        "trial_intermediate_values": [],
    }
    for key, trial in enumerate(trials, start=1):
        rows["trials"].append(
            {
                "trial_id": key,
                "number": trial.number,
                "study_id": 1,
                "state": trial.state.name,
                "datetime_start": trial.datetime_start,
                "datetime_complete": trial.datetime_complete,
            }
        )
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            rows["trial_params"].append(
                {
                    "trial_id": key,
                    "param_name": name,
                    "param_value": distribution.to_internal_repr(value),
                    "distribution_json": distribution_to_json(distribution),
                }
            )
        for objective, value in enumerate(trial.values or ()):
            rows["trial_values"].append(
                {
                    "trial_id": key,
                    "objective": objective,
                    "value": value,
                    "value_type": "FINITE",
                }
            )
        for step, value in trial.intermediate_values.items():
            rows["trial_intermediate_values"].append(
                {
                    "trial_id": key,
                    "step": step,
                    "intermediate_value": value,
                    "intermediate_value_type": "FINITE",
                }
            )
    return rows
