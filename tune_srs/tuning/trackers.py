"""Trackers of experiments that a search can report to as well, through Ray's own callbacks.

They stay on this machine unless the environment says otherwise: MLflow writes a database into the
run's folder (`MLFLOW_TRACKING_URI` names another place), Weights & Biases writes there offline
(`WANDB_MODE=online` sends).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.constants import TRAINING_ITERATION
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.experiment import Trial

from tune_srs.tuning.messages import TrialFailed, from_result

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("WANDB_MODE", "offline")


def callbacks(names: Sequence[str], folder: Path) -> list[tune.Callback]:
    """One for each of `names`, for the run in `folder`; they must be installed."""
    make = {"mlflow": _mlflow, "wandb": _wandb}
    return [make[name](folder.resolve()) for name in names]


def _mlflow(folder: Path) -> tune.Callback:
    place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return MLflow(tracking_uri=place, experiment_name=folder.name)


def _wandb(folder: Path) -> tune.Callback:
    return WeightsAndBiases(
        project="tune_srs", group=folder.name, dir=str(folder), mode=os.environ["WANDB_MODE"]
    )


class MLflow(MLflowLoggerCallback):
    """A run a trial; its names of metrics have `_at_` for `@`, which MLflow does not allow."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        if told := _told(result):
            values = {key.replace("@", "_at_"): value for key, value in told.items()}
            super().log_trial_result(iteration, trial, values)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        super().log_trial_end(trial, failed or not _told(trial.last_result))


class WeightsAndBiases(WandbLoggerCallback):
    """A run a trial, in a group a search."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        if told := _told(result):
            super().log_trial_result(iteration, trial, told)


def _told(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of an epoch, and its number where Ray looks for the step; or None."""
    message = from_result(result)
    if isinstance(message, TrialFailed):
        return None
    return message.metrics | {TRAINING_ITERATION: message.epoch}
