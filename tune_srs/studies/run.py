"""One run of a study: train, keep the best epoch, score the test once, write the file.

The file is Parquet with one row per user: `user` is the original id, and each metric that the study
compares has a column of float64. The header holds JSON: the configuration, the epochs and the means
of all metrics. If a run failed, the header holds the reason, and there are no rows.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import DataError
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.files import write_aside
from tune_srs.space.objective import Objective
from tune_srs.studies.spec import Study
from tune_srs.training.checkpoint import Best
from tune_srs.training.loop import clear_device, device_of, train

FACTS = b"tune_srs"


@dataclass(frozen=True, order=True)
class Task:
    """A run by its seed, data set and configuration; runs of one seed precede those of the next.

    The seed tells the tuning, too, since no two tunings share one.
    """

    seed: int
    dataset: str
    configuration: str
    tuning: int = 1

    def __str__(self) -> str:
        of_which = f" of tuning {self.tuning}" if self.tuning > 1 else ""
        return f"{self.configuration} on {self.dataset}, seed {self.seed}{of_which}"

    def path(self, folder: Path) -> Path:
        """Return the file of the run in the `folder` of a study."""
        return folder / "runs" / self.dataset / self.configuration / f"seed-{self.seed}.parquet"


@dataclass(frozen=True)
class Facts:
    """What is known of a run besides its users' metrics: the header of its file."""

    config: dict[str, Any]
    fingerprint: str  # of the data
    tuning: int = 1  # whose winner it is
    epoch: int = 0  # the best one
    epochs: int = 0  # trained
    metrics: dict[str, float] = field(default_factory=dict)  # val/… of that epoch, test/…
    failure: str | None = None


@dataclass(frozen=True)
class Score:
    """The outcome of a run that did not fail."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    per_user: dict[str, npt.NDArray[np.float64]]  # (U,) each, of the test


def tasks(study: Study) -> list[Task]:
    """Return all runs, in the order in which they begin."""
    return [
        Task(seed, dataset, configuration, tuning)
        for tuning in range(1, study.tunings + 1)
        for seed in study.seeds_of(tuning)
        for dataset in study.datasets
        for configuration in study.configurations
    ]


def splits_of(data: PreparedData, study: Study) -> tuple[Split, Split]:
    """Return what a run trains on, and what it scores in the end.

    The latter's training histories are what the weights that are scored have learned.
    """
    test = data.test
    return data.validation, replace(test, training=data.before_test) if study.refit else test


def score(config: TrialConfig, study: Study, validation: Split, test: Split) -> Score:
    """Train on `validation`, then score `test` once, at the best epoch by `study.select`.

    With `study.refit` the training histories of `test` are learned anew before. Raises what `train`
    raises.
    """
    best = Best(Objective(study.select))
    for report in train(config, validation):
        best.update(report)
        if study.patience is not None and report.epoch - best.epoch >= study.patience:
            break
    model, epochs = report.state.model, report.epoch
    model.load_state_dict(best.weights)
    if study.refit:
        again = config.with_overrides({"train.last_epoch": best.epoch})
        for report in train(again, test.training):
            model = report.state.model
    evaluation = Evaluator(test, config.evaluation, device_of(config.train))(model.eval())
    means = {f"test/{name}": value for name, value in evaluation.means().items()}
    per_user = {f"test/{name}": values.numpy() for name, values in evaluation.per_user.items()}
    clear_device()
    return Score(
        best.epoch,
        epochs,
        best.metrics | means,
        {name: per_user[name] for name in study.metrics},
    )


def write(path: Path, facts: Facts, users: pd.DataFrame) -> None:
    """Write the file of a run at `path`, whole or not at all; `users` as `read_users` gives it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(users, preserve_index=False)
    table = table.replace_schema_metadata({FACTS: json.dumps(asdict(facts))})
    write_aside(path, lambda aside: parquet.write_table(table, aside, compression="zstd"))


def read_facts(path: Path) -> Facts | None:
    """Return the header of a run's file; None if there is no file."""
    if not path.exists():
        return None
    try:
        return Facts(**json.loads(parquet.read_schema(path).metadata[FACTS]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and resume the study") from error


def read_users(path: Path) -> pd.DataFrame:
    """Return one row per test user: `user` and the metrics that the study compares."""
    try:
        users: pd.DataFrame = parquet.read_table(path).to_pandas()
        return users
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and resume the study") from error
