"""A search as an Optuna study: out of its journal, and into the file that Optuna's tools read."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

from tune_srs.journal import TrialRecord
from tune_srs.results import write_aside
from tune_srs.searcher import PastTrial

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
        storage = optuna.storages.RDBStorage(f"sqlite:///{aside}")
        copy = optuna.create_study(storage=storage, study_name=name, directions=study.directions)
        copy.add_trials(trial for trial in study.trials if trial.state.is_finished())
        storage.engine.dispose()

    write_aside(path, write)
