"""A tiny study that several test files share."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from support.searches import FIXED
from tune_srs.studies import run as runs
from tune_srs.studies.run import Facts, Task
from tune_srs.studies.spec import Study

OF_DATA = {key: value for key, value in FIXED.items() if key.startswith("data.")}
METRICS = ["test/ndcg@10", "test/next/hr@10"]
STUDY: dict[str, Any] = {
    "description": "a tiny study",
    "metrics": METRICS,
    "select": "val/ndcg@10",
    "seeds": 2,
    "reference": "plain",
    "datasets": {"clean": OF_DATA, "noisy": OF_DATA | {"data.noise.accidental": 0.3}},
    "fixed": {key: value for key, value in FIXED.items() if key not in OF_DATA},
    "configurations": {
        "plain": {"fixed": {"loss.num_positives": 1}},
        "wide": {"fixed": {"loss.num_positives": 2}, "grid": {"loss.relevance": ["linear"]}},
    },
}
TUNE = {
    "dataset": "clean",
    "search": {"trials": 2, "scheduler": "none"},
    "params": {"train.lr": {"type": "categorical", "choices": [0.01, 0.001]}},
}


def write_study(folder: Path, **changes: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False), encoding="utf-8")
    return path


def study_of(folder: Path, **changes: object) -> Study:
    return Study.from_yaml(write_study(folder, **changes), folder / "results")


def keep_run(folder: Path, study: Study, task: Task, values: Any, users: Any = None) -> None:
    """The file of a run with `values` (U,) for every metric, or of one that failed with None."""
    if values is None:
        runs.write(task.path(folder), Facts({}, "f", failure="it diverged"), pd.DataFrame())
        return
    ids = np.arange(len(values)) if users is None else users
    table = pd.DataFrame({"user": ids} | dict.fromkeys(study.metrics, values))
    runs.write(task.path(folder), Facts({}, "f", epoch=1, epochs=2), table)
