"""One run of a study: train, keep the best epoch, score the test once; and its file.

The file is Parquet, a row a user: `user`, its original id, and a column for each metric that the
study compares, as float64. Its header holds the rest, as JSON: the configuration, the epochs, all
metrics' means. A run that failed has a header with its reason, and no rows.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
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
    """What is to be run; runs of one seed come before those of the next."""

    seed: int
    dataset: str
    configuration: str

    def __str__(self) -> str:
        return f"{self.configuration} on {self.dataset}, seed {self.seed}"

    def path(self, folder: Path) -> Path:
        """Its file in the `folder` of a study."""
        return folder / "runs" / self.dataset / self.configuration / f"seed-{self.seed}.parquet"


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its users' metrics."""

    config: dict[str, Any]
    fingerprint: str  # of the data
    epoch: int = 0  # the best one
    epochs: int = 0  # trained
    metrics: dict[str, float] = field(default_factory=dict)  # val/… of that epoch, test/…
    failure: str | None = None


@dataclass(frozen=True)
class Score:
    """What a run gave."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    per_user: dict[str, npt.NDArray[np.float64]]  # (U,) each, of the test


def tasks(study: Study) -> list[Task]:
    """All runs, in the order in which they begin."""
    return [
        Task(seed, dataset, configuration)
        for seed in study.seed_list
        for dataset in study.datasets
        for configuration in study.configurations
    ]


def score(config: TrialConfig, study: Study, validation: Split, test: Split) -> Score:
    """Train on `validation`, and score `test` once, with the epoch that `study.select` prefers.

    Raises what `train` raises.
    """
    best = Best(Objective(study.select))
    for report in train(config, validation):
        best.update(report)
        if study.patience is not None and report.epoch - best.epoch >= study.patience:
            break
    model = report.state.model
    model.load_state_dict(best.weights)
    evaluation = Evaluator(test, config.evaluation, device_of(config.train))(model.eval())
    means = {f"test/{name}": value for name, value in evaluation.means().items()}
    per_user = {f"test/{name}": values.numpy() for name, values in evaluation.per_user.items()}
    clear_device()
    return Score(
        best.epoch,
        report.epoch,
        best.metrics | means,
        {name: per_user[name] for name in study.metrics},
    )


def write(path: Path, facts: Facts, users: pd.DataFrame) -> None:
    """Put the file of a run at `path`, whole; `users` as in `read`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(users, preserve_index=False)
    table = table.replace_schema_metadata({FACTS: json.dumps(asdict(facts))})
    write_aside(path, lambda aside: parquet.write_table(table, aside, compression="zstd"))


def read_facts(path: Path) -> Facts | None:
    """What stands in the header of a run's file; None if there is no file."""
    if not path.exists():
        return None
    try:
        return Facts(**json.loads(parquet.read_schema(path).metadata[FACTS]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and resume the study") from error


def read_users(path: Path) -> pd.DataFrame:
    """A row a user of the test: `user` and the metrics that the study compares."""
    try:
        users: pd.DataFrame = parquet.read_table(path).to_pandas()
        return users
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and resume the study") from error
