"""What a search gives in the end: the winner, its test scores beside the baselines', its export.

Any other trial of a run that has ended can be exported, too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from tune_srs.config.settings import EvaluationConfig, TrialConfig
from tune_srs.datasets.histories import Histories
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError, DataError, SearchError
from tune_srs.evaluation.evaluator import Evaluation, Evaluator, Scorer, measure
from tune_srs.exports import exported
from tune_srs.exports.exported import Exported, Refit, item_counts, items_of
from tune_srs.exports.portable import check_formats
from tune_srs.model.sasrec import SASRec
from tune_srs.runs import ranks, tables
from tune_srs.runs.begin import Scores, fit_baselines, score_baselines
from tune_srs.runs.journal import Journal, TrialRecord
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan, versions
from tune_srs.runs.run import Run
from tune_srs.space.space import Space, check_refit
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import Best, load_best
from tune_srs.training.loop import train

Intervals = dict[str, tuple[float, float]]


def export_winner(
    folder: Path,
    plan: Plan,
    journal: Journal,
    storage: Storage,
    data: PreparedData,
    say: Callable[[str], None],
) -> None:
    """Score the best trial and the baselines on the test futures, once, and write `best/`.

    Where the search had ended before, the same winner stays, and another one is kept as `best-1`.
    Weights that cannot be read are trained again: a trial repeats itself. Raises `SearchError` if
    no trial gave a metric.
    """
    winner = journal.best()
    if winner is None:
        metric = plan.space.search.metrics[0]
        reason = next((r.reason for r in journal.trials if r.reason), "none was recorded")
        raise SearchError(f"{folder}: no trial gave {metric}; the first reason: {reason}")
    paths = RunPaths(folder)
    if paths.best.exists():
        former = tables.read_json(paths.best_metrics)
        if (former["trial"], former["epoch"]) == (winner.number, winner.best_epoch):
            say("the winner is the same as before")
            return
        paths.best.rename(kept := paths.former_best())
        say(f"the former winner, trial {former['trial']}, is kept in {kept}")
    refit: Literal["validation"] | None = "validation" if plan.space.search.refit else None
    result = _scored(folder, plan, winner, storage, data, say, refit, keep_ranks=True)
    exported.write(result, paths.best)


def export_trial(
    folder: Path,
    to: Path,
    trial: int | None,
    refit: Refit | None,
    formats: Collection[str],
    data_folder: Path,
    say: Callable[[str], None],
) -> None:
    """Write the winner of the ended run in `folder`, or another `trial`, to the new folder `to`.

    With `refit: validation` it is trained again on training and validation, and then scored on the
    test; with `all`, it is scored first, then trained again on all interactions, futures included.
    Raises `ConfigError` for a trial that cannot be exported or a run that has not ended.
    """
    exported.check_free(to)
    check_formats(formats)
    run = Run(folder)
    plan = run.plan
    won, chosen = _chosen(run, trial)
    data = prepare(plan.space.base.data, data_folder, say)
    run.check_data(data)
    if refit is not None:
        check_refit(plan.space.config(chosen.values), f"trial {chosen.number}")
    everything = data.everything if refit == "all" else None  # before it takes time
    before = refit if refit == "validation" else None
    result = _scored(folder, plan, chosen, plan.storage(folder), data, say, before)
    result = replace(result, facts=result.facts | {"won": won})
    if everything is not None:
        result = _learned_again(result, everything, "all", say)
    exported.write(result, to, formats)


def _chosen(run: Run, trial: int | None) -> tuple[bool, TrialRecord]:
    """Return whether the trial to export is the winner, and its record."""
    winner = run.winner
    if winner is None or not run.paths.best.is_dir():
        raise ConfigError(
            f"{run.folder}: has not ended, so nothing has won; {run.plan.how_to_resume(run.folder)}"
        )
    records = run.records
    chosen = winner.number if trial is None else trial
    if not 0 <= chosen < len(records):
        raise ConfigError(
            f"--trial: {run.folder} has no trial {chosen}; it has 0 to {len(records) - 1}"
        )
    if records[chosen].best_epoch is None:
        raise ConfigError(
            f"--trial: {chosen} has no metrics ({records[chosen].reason}); choose another"
        )
    return chosen == winner.number, records[chosen]


def _scored(
    folder: Path,
    plan: Plan,
    record: TrialRecord,
    storage: Storage,
    data: PreparedData,
    say: Callable[[str], None],
    refit: Literal["validation"] | None = None,
    keep_ranks: bool = False,
) -> Exported:
    """A trial's model of its best epoch, with its scores and those of the baselines.

    With `refit` it learns again, from training and validation, before the test is scored. With
    `keep_ranks` the ranks of the test futures go into the folder of the run.
    """
    best = Best(plan.space.search.objectives[0])
    try:
        config = load_best(storage, record.number, best)
    except DataError as error:
        say(f"{error}; training trial {record.number} again for {record.best_epoch} epochs")
        config = _train_again(plan.space, record, best, data)
    if record.epochs < config.train.max_epochs:  # so that training it again ends where it did
        config = config.with_overrides({"train.last_epoch": record.epochs})
    model = SASRec(config.model, data.validation.num_items, torch.Generator())
    model.load_state_dict(best.weights)
    items = items_of(data.item_ids, data.item_titles, data.validation.training)
    given = Exported(config, model.eval(), items, {}, _facts(plan, best, record, config, data))
    learned = data.validation.training
    if refit is not None:
        learned = data.before_test
        given = _learned_again(given, learned, refit, say)

    scorers: dict[str, Scorer] = {"best": given.model}
    evaluator = Evaluator(data.test, config.evaluation, torch.device("cpu"))
    scorers |= fit_baselines(learned)
    found = {name: evaluator.ranks(one) for name, one in scorers.items()}
    if keep_ranks:
        of_scorers = {name: (own.numpy(), alone.numpy()) for name, (own, alone) in found.items()}
        futures = (evaluator.counted.numpy(), evaluator.number.numpy())
        ranks.write(RunPaths(folder).test_ranks, of_scorers, *futures)
    test = {
        name: measure(*own, evaluator.counted, evaluator.number, config.evaluation)
        for name, own in found.items()
    }
    metrics = {
        "trial": record.number,
        "epoch": best.epoch,
        "refit": refit,  # what the weights that scored the test have learned besides
        "validation": {"best": best.metrics} | _baselines(folder, data, config.evaluation),
        "test": _means(test, "test"),
        "intervals": _intervals(test, "test"),  # a selected score, such as validation's, has none
    }
    return replace(given, metrics=metrics)


def _facts(
    plan: Plan, best: Best, record: TrialRecord, config: TrialConfig, data: PreparedData
) -> dict[str, Any]:
    """Where a model comes from."""
    told = ("users", "items", "interactions", "test_futures_in_history")
    sizes = {key: data.manifest[key] for key in told}
    return {
        "run": plan.name,
        "trial": record.number,
        "won": True,
        "metric": best.objective.metric,
        "epoch": best.epoch,
        "refit": None,
        "data": {"name": config.data.name, "fingerprint": data.fingerprint, "inputs": data.inputs}
        | sizes,
        "versions": versions(),
    }


def _learned_again(
    of: Exported, histories: Histories, refit: Refit, say: Callable[[str], None]
) -> Exported:
    """The same configuration, trained on `histories` for the best number of epochs."""
    epochs = of.facts["epoch"]
    say(f"training again, on {len(histories.items)} interactions, for {epochs} epochs")
    config = of.config.with_overrides({"train.last_epoch": epochs})
    for report in train(config, histories):
        weights = report.state.model.state_dict()
    model = SASRec(config.model, histories.num_items, torch.Generator())
    model.load_state_dict(weights)
    items = of.items.assign(count=item_counts(histories))
    return Exported(config, model.eval(), items, of.metrics, of.facts | {"refit": refit})


def _train_again(space: Space, record: TrialRecord, best: Best, data: PreparedData) -> TrialConfig:
    config = space.config(record.values, f"trial {record.number}")
    for report in islice(train(config, data.validation), record.best_epoch):
        best.update(report)
    return config


def _baselines(folder: Path, data: PreparedData, config: EvaluationConfig) -> Scores:
    """As scored when the run began, or again where they can no longer be read."""
    try:
        scores: Scores = tables.read_json(RunPaths(folder).baselines)
    except (FileNotFoundError, DataError):
        scores = score_baselines(data, config)
    return scores


def _means(evaluations: Mapping[str, Evaluation], prefix: str) -> Scores:
    return {
        name: {f"{prefix}/{metric}": value for metric, value in of.means().items()}
        for name, of in evaluations.items()
    }


def _intervals(evaluations: Mapping[str, Evaluation], prefix: str) -> dict[str, Intervals]:
    return {
        name: {f"{prefix}/{metric}": value for metric, value in of.intervals().items()}
        for name, of in evaluations.items()
    }
