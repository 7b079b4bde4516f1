"""How a run begins: its folder is made, with the plan and the scores of the baselines.

Needs torch, as baselines are scored like models; what reads a run does not import this.
"""

import json
from pathlib import Path

import torch

from tune_srs.config.settings import EvaluationConfig
from tune_srs.datasets.histories import Histories
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.evaluation.baselines import BASELINES
from tune_srs.evaluation.evaluator import Evaluator, Scorer
from tune_srs.files import folder_aside
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan

Scores = dict[str, dict[str, float]]  # metrics in 0 … 1, by the name of a scorer


def make_folder(plan: Plan, data: PreparedData, folder: Path) -> None:
    """Make the new `folder` of a run, with its plan and the baselines: whole, or not at all.

    Raises `ConfigError` if there is such a folder.
    """
    scores = score_baselines(data, plan.space.base.evaluation)
    try:
        with folder_aside(folder) as aside:
            plan.write(data, RunPaths(aside).settings)
            RunPaths(aside).baselines.write_text(json.dumps(scores, indent=2), encoding="utf-8")
    except OSError:
        if folder.exists():
            raise ConfigError(
                f"{folder}: exists and is never overwritten; choose another --name"
            ) from None
        raise


def score_baselines(data: PreparedData, config: EvaluationConfig) -> Scores:
    """Return the metrics `val/…` of each baseline on the validation futures."""
    evaluator = Evaluator(data.validation, config, torch.device("cpu"))
    return {
        name: {f"val/{metric}": value for metric, value in evaluator(scorer).means().items()}
        for name, scorer in fit_baselines(data.validation.training).items()
    }


def fit_baselines(histories: Histories) -> dict[str, Scorer]:
    """Return the baselines, which learn from what the model learns from."""
    return {name: make(histories) for name, make in BASELINES.items()}
