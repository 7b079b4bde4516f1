"""Folders of runs made without training: a real plan and real files, but metrics of our own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from support.searches import METRIC, SPACE
from tune_srs.datasets.prepare import prepare
from tune_srs.runs import begin, ranks, tables
from tune_srs.runs.journal import Journal, Status
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.space import Space


@dataclass
class Trial:
    """What becomes of a trial: the metric after each epoch, and its end."""

    values: dict[str, Any]
    curve: Sequence[float]
    status: Status | None = "complete"  # None: it goes on
    reason: str | None = None
    seconds: Sequence[float] = field(default_factory=list)  # an epoch, training and evaluation


def make_run(folder: Path, trials: Sequence[Trial], **changes: Any) -> Path:
    """The run `folder`, of the tests' space with `changes`."""
    space = Space.from_dict(SPACE | {"first": []} | changes, "space")
    data = prepare(space.base.data, folder.parent / "data")
    begin.make_folder(Plan(folder.name, space, 7, Resources()), data, folder)
    journal = Journal(folder, space.search.objectives)
    for number, trial in enumerate(trials):
        journal.begin(number, trial.values)
        times = trial.seconds or [1.0] * len(trial.curve)
        for epoch, (value, seconds) in enumerate(zip(trial.curve, times, strict=True), start=1):
            own = {"time/train_s": seconds / 2, "time/evaluate_s": seconds / 2}
            journal.report(number, epoch, {METRIC: value, "train/loss": 1 / epoch} | own)
        if trial.status:
            journal.end(number, trial.status, trial.reason)
    tables.write_trials(RunPaths(folder).trials, journal.trials, space)
    return folder


def random_ranks(folder: Path, scorers: Sequence[str], users: int = 40, futures: int = 3) -> None:
    """Ranks on the test futures from 0 to 29; every seventh user has one future twice."""
    random = np.random.default_rng(0)
    counted = np.ones((users, futures), dtype=bool)
    counted[::7, -1] = False
    found = {
        name: (random.integers(0, 30, (users, futures)), random.integers(0, 30, users))
        for name in scorers
    }
    number = np.full(users, futures)
    ranks.write(RunPaths(folder).test_ranks, found, counted, number)
