"""A finished run without Ray, and an exported model, that several test files look at."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from support.searches import FIXED, SPACE
from tune_srs.config.settings import ModelConfig, TrialConfig
from tune_srs.datasets.histories import Histories
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.exports.exported import Exported, items_of
from tune_srs.model.sasrec import SASRec
from tune_srs.runs import begin
from tune_srs.runs.journal import Journal
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.space import Space
from tune_srs.training.checkpoint import Best, Checkpoint
from tune_srs.training.loop import train
from tune_srs.tuning import winner

POINTS: tuple[dict[str, Any], ...] = (
    {"train.lr": 0.01, "loss.num_positives": 2, "loss.relevance": "power"},
    {"train.lr": 1e-7, "loss.num_positives": 1},
    {"train.lr": 1e-7, "loss.num_positives": 2, "loss.relevance": "linear"},
)  # the first one wins, the last one is stopped early
EPOCHS, EPOCHS_OF_THE_STOPPED = 3, 2
WARM_UP = 2.5  # epochs: the rate depends on where a run is, and on how long it was to be


def silent(message: str) -> None:
    """A `say` for calls whose messages do not matter."""


def write_run(folder: Path) -> PreparedData:
    """Write `results/tiny` and `data` under `folder`: a run of three trials that has ended."""
    fixed = FIXED | {"train.max_epochs": EPOCHS, "train.warmup_epochs": WARM_UP}
    plan = Plan("tiny", Space.from_dict(SPACE | {"fixed": fixed}, "space"), 0, Resources())
    data = prepare(plan.space.base.data, folder / "data", silent)
    run = folder / "results" / "tiny"
    begin.make_folder(plan, data, run)
    journal = Journal(run, plan.space.search.objectives)
    for number, values in enumerate(POINTS):
        journal.begin(number, values)
        best = Best(plan.space.search.objectives[0])
        config = plan.space.config(values)
        stopped = number == len(POINTS) - 1
        for report in islice(
            train(config, data.validation), EPOCHS_OF_THE_STOPPED if stopped else EPOCHS
        ):
            best.update(report)
            Checkpoint.of(config, report, best).write(plan.storage(run), number)
            journal.report(number, report.epoch, report.metrics)
        journal.end(number, "stopped" if stopped else "complete")
    winner.export_winner(run, plan, journal, plan.storage(run), data, silent)
    return data


def untrained(histories: Histories, ids: list[int] | list[str], **changes: object) -> Exported:
    """An export of random weights, as of a model that has learned from `histories`."""
    model = {"hidden_units": 8, "max_length": 6, "num_heads": 2} | changes
    config = TrialConfig(model=ModelConfig.model_validate(model))
    network = SASRec(config.model, len(ids), torch.Generator().manual_seed(3)).eval()
    items = items_of(pd.Series(ids), None, histories)
    facts = {
        "data": {"name": "mine", "fingerprint": "f", "inputs": []},
        "versions": {},
        "refit": None,
    }
    return Exported(config, network, items, {}, facts)


def with_titles(exported: Exported, titles: list[str]) -> Exported:
    return replace(exported, items=exported.items.assign(title=titles))
