"""What a search is worth: the yardsticks before it, the winner's test score and export after it."""

from pathlib import Path

import torch

from tune_srs import checkpoint, export, results
from tune_srs.baselines import BASELINES
from tune_srs.config import EvaluationConfig
from tune_srs.datasets.sequences import PreparedData, Sequences
from tune_srs.errors import SearchError
from tune_srs.evaluate import Evaluator
from tune_srs.model import SASRec

Scores = dict[str, dict[str, float]]  # of the winner or a baseline, by its name


def yardsticks(data: PreparedData, config: EvaluationConfig) -> Scores:
    """The baselines' scores on the validation futures."""
    return _score_baselines(data, data.validation, config, "val")


def export_winner(folder: Path, name: str, metric: str, mode: str, data: PreparedData) -> None:
    """Score the best trial and the baselines on the test futures, once, and write `best/`.

    Raises `SearchError` if no trial gave a metric.
    """
    table = results.trials(folder)
    if metric not in table or table[metric].isna().all():
        reason = next(iter(table["error"].dropna()), "none was recorded")
        raise SearchError(f"{folder}: no trial gave {metric}; the first error: {reason}")
    ranked = table.dropna(subset=metric).sort_values(metric, ascending=mode == "min", kind="stable")
    number = int(ranked["trial"].iloc[0])
    last = checkpoint.last(trial_folder(folder, number))
    if last is None:
        raise SearchError(f"{folder}: trial {number} has no checkpoint; was it deleted?")
    progress, best = checkpoint.load_progress(last), checkpoint.load_best(last)
    # as many epochs as the trial had, so that training it again ends where it did
    config = progress.config.with_overrides({"train.max_epochs": progress.epoch})

    model = SASRec(config.model, data.validation.num_items, torch.Generator())
    model.load_state_dict(best.weights)
    scores = Evaluator(data.test, config.evaluation, torch.device("cpu"))(model.eval()).means()
    test = {"best": {f"test/{key}": value for key, value in scores.items()}}
    test |= _score_baselines(data, data.test, config.evaluation, "test")
    validation = {"best": best.metrics}
    validation |= results.read_json(folder / "yardsticks.json")
    metrics = {"trial": number, "epoch": best.epoch, "validation": validation, "test": test}
    export.write(folder / "best", name, config, best.weights, data, metrics)


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of the run in `folder` keeps what it writes."""
    return folder / "tune" / f"trial_{number:05d}"


def _score_baselines(
    data: PreparedData, split: Sequences, config: EvaluationConfig, prefix: str
) -> Scores:
    """They learn from the training histories only, whatever `split` they are scored on."""
    evaluator = Evaluator(split, config, torch.device("cpu"))
    scores = {name: evaluator(make(data.validation)).means() for name, make in BASELINES.items()}
    return {
        name: {f"{prefix}/{metric}": value for metric, value in values.items()}
        for name, values in scores.items()
    }
