"""What a search is worth: the yardsticks before it, the winner's test score and export after it."""

import json
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from tune_srs import export, ranks, results
from tune_srs.baselines import BASELINES
from tune_srs.checkpoint import Best, load_best
from tune_srs.config import EvaluationConfig, TrialConfig
from tune_srs.datasets.sequences import PreparedData
from tune_srs.errors import ConfigError, DataError, SearchError
from tune_srs.evaluate import Evaluation, Evaluator, measure
from tune_srs.journal import Journal, TrialRecord
from tune_srs.model import SASRec
from tune_srs.plan import Plan
from tune_srs.space import Space
from tune_srs.storage import Storage
from tune_srs.training import train

Scores = dict[str, dict[str, float]]  # of the winner or a baseline, by its name


def begin(plan: Plan, data: PreparedData, folder: Path) -> None:
    """Make the new `folder` of a run, with its plan and the yardsticks: whole, or not at all."""
    scores = _score_baselines(data, plan.space.base.evaluation)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent) as parent:
        aside = Path(parent) / folder.name
        aside.mkdir()
        plan.write(data, aside / "search.yaml")
        (aside / "yardsticks.json").write_text(json.dumps(scores, indent=2), encoding="utf-8")
        try:
            aside.rename(folder)
        except OSError:
            if folder.exists():
                raise ConfigError(
                    f"{folder}: exists and is never overwritten; choose another --name"
                ) from None
            raise


def export_winner(
    folder: Path,
    plan: Plan,
    journal: Journal,
    storage: Storage,
    data: PreparedData,
    say: Callable[[str], None],
) -> None:
    """Score the best trial and the baselines on the test futures, once, and write `best/`.

    Weights that cannot be read are trained again: a trial repeats itself. Raises `SearchError` if
    no trial gave a metric.
    """
    winner = journal.best()
    metric, mode = plan.space.search.metrics[0], plan.space.search.modes[0]
    if winner is None:
        reason = next((r.reason for r in journal.trials if r.reason), "none was recorded")
        raise SearchError(f"{folder}: no trial gave {metric}; the first reason: {reason}")
    best = Best(metric, mode)
    try:
        config = load_best(storage, winner.number, best)
    except DataError as error:
        say(f"{error}; training trial {winner.number} again for {winner.best_epoch} epochs")
        config = _train_again(plan.space, winner, best, data)
    # as many epochs as the trial had, so that training it again ends where it did
    config = config.with_overrides({"train.max_epochs": winner.epochs})

    model = SASRec(config.model, data.validation.num_items, torch.Generator())
    model.load_state_dict(best.weights)
    test = _test(folder, model.eval(), data, config.evaluation)
    validation = {"best": best.metrics} | _yardsticks(folder, data, config.evaluation)
    metrics = {
        "trial": winner.number, "epoch": best.epoch, "validation": validation, "test": test
    }  # fmt: skip
    export.write(folder / "best", plan.name, config, best.weights, data, metrics)


def _test(folder: Path, model: SASRec, data: PreparedData, config: EvaluationConfig) -> Scores:
    """Scores of `model` and the baselines on the test futures; their ranks go to a file."""
    evaluator = Evaluator(data.test, config, torch.device("cpu"))
    scorers = {"best": model} | {name: make(data.validation) for name, make in BASELINES.items()}
    found = {name: evaluator.ranks(scorer) for name, scorer in scorers.items()}
    ranks.write(folder, found, evaluator.counted)
    return {
        name: _named(measure(*own, evaluator.counted, config), "test")
        for name, own in found.items()
    }


def _named(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    return {f"{prefix}/{metric}": value for metric, value in evaluation.means().items()}


def _yardsticks(folder: Path, data: PreparedData, config: EvaluationConfig) -> Scores:
    """As scored when the run began, or again where they can no longer be read."""
    try:
        scores: Scores = results.read_json(folder / "yardsticks.json")
    except (FileNotFoundError, DataError):
        scores = _score_baselines(data, config)
    return scores


def _train_again(space: Space, winner: TrialRecord, best: Best, data: PreparedData) -> TrialConfig:
    config = space.config(winner.values, f"trial {winner.number}")
    for report in islice(train(config, data.validation), winner.best_epoch):
        best.update(report)
    return config


def _score_baselines(data: PreparedData, config: EvaluationConfig) -> Scores:
    """On the validation futures; they learn from the training histories."""
    evaluator = Evaluator(data.validation, config, torch.device("cpu"))
    return {
        name: _named(evaluator(make(data.validation)), "val") for name, make in BASELINES.items()
    }
