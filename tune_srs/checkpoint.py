"""The state of a training run in a folder: tensors as safetensors, the rest as JSON, no pickle.

A trial's folder holds its last checkpoint. Ray Tune does not know of it: told of a checkpoint, Tune
writes the state of the whole search, too, which takes longer than a short epoch.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tune_srs.config import TrialConfig
from tune_srs.errors import SearchError
from tune_srs.train import EpochReport, new_state

Tensors = dict[str, Tensor]


@dataclass
class Best:
    """The best epoch of a run so far, with its weights."""

    metric: str
    mode: str
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    weights: Tensors = field(default_factory=dict)

    def update(self, report: EpochReport) -> bool:
        """Take over `report` if it is better; True if it was."""
        value = report.metrics[self.metric]
        if self.epoch:
            old = self.metrics[self.metric]
            if (value <= old) if self.mode == "max" else (value >= old):
                return False
        self.epoch, self.metrics = report.epoch, report.metrics
        self.weights = {k: v.detach().clone() for k, v in report.state.model.state_dict().items()}
        return True


@dataclass(frozen=True)
class Checkpoint:
    """A copy of all that a run needs to go on: training may, while it is written."""

    epoch: int
    tensors: Tensors
    best_weights: Tensors
    progress: dict[str, Any]

    @classmethod
    def of(cls, config: TrialConfig, report: EpochReport, best: Best) -> Self:
        state = report.state
        tensors: Tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
        for number, optimizer in enumerate(state.optimizers):
            for parameter, values in optimizer.state_dict()["state"].items():
                prefix = f"optimizer.{number}.{parameter}."
                tensors |= {prefix + name: value for name, value in values.items()}
        tensors = {name: value.detach().clone() for name, value in tensors.items()}
        tensors["generator"] = state.generator.get_state()
        tensors["order"] = state.order.get_state()
        of_best = {"epoch": best.epoch, "metrics": best.metrics}
        of_best |= {"metric": best.metric, "mode": best.mode}
        progress = {"config": config.to_dict(), "epoch": report.epoch, "metrics": report.metrics}
        return cls(report.epoch, tensors, best.weights, progress | {"best": of_best})

    def write(self, trial_folder: Path) -> None:
        """Into `trial_folder` in place of the one before; whole or not there."""
        trial_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aside-", dir=trial_folder) as aside:
            whole = Path(aside) / f"checkpoint_{self.epoch:06d}"
            whole.mkdir()
            save_file(self.tensors, whole / "state.safetensors")
            save_file(self.best_weights, whole / "best.safetensors")
            content = json.dumps(self.progress)
            (whole / "progress.json").write_text(content, encoding="utf-8")
            whole.rename(trial_folder / whole.name)
        _delete(_checkpoints(trial_folder)[:-1])


def _checkpoints(trial_folder: Path) -> list[Path]:
    return sorted(trial_folder.glob("checkpoint_*"))


def _delete(checkpoints: list[Path]) -> None:
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)


def forget(trial_folder: Path) -> None:
    """Delete what an earlier trial with this folder has left."""
    _delete(_checkpoints(trial_folder))


def last(trial_folder: Path) -> Path | None:
    """The checkpoint in `trial_folder`, if there is one."""
    checkpoints = _checkpoints(trial_folder)
    return checkpoints[-1] if checkpoints else None


def load(config: TrialConfig, num_items: int, folder: Path) -> tuple[EpochReport, Best]:
    """The last report, with the state to go on from, and the best epoch, as saved."""
    progress = load_progress(folder)
    best = load_best(folder)
    tensors = load_file(folder / "state.safetensors")
    state = new_state(config, num_items)
    state.epoch = progress.epoch
    state.model.load_state_dict(_part(tensors, "model."))
    state.generator.set_state(tensors["generator"])
    state.order.set_state(tensors["order"])
    for number, optimizer in enumerate(state.optimizers):
        moments: dict[int, Tensors] = {}
        for name, value in _part(tensors, f"optimizer.{number}.").items():
            parameter, _, kind = name.partition(".")
            moments.setdefault(int(parameter), {})[kind] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return EpochReport(progress.epoch, progress.metrics, state), best


@dataclass(frozen=True)
class Progress:
    """How far a trial has come."""

    config: TrialConfig
    epoch: int  # epochs done
    metrics: dict[str, float]  # of the last one
    best: Best  # without its weights


def load_best(folder: Path) -> Best:
    """The best epoch with its weights."""
    best = load_progress(folder).best
    best.weights = load_file(folder / "best.safetensors")
    return best


def load_progress(folder: Path) -> Progress:
    path = folder / "progress.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    config = TrialConfig.from_dict(values["config"], str(path))
    return Progress(config, values["epoch"], values["metrics"], Best(**values["best"]))


def progress_of(trial_folder: Path) -> Progress | None:
    """The same of a trial that may be running: its checkpoint is replaced now and then."""
    folder = last(trial_folder)
    while folder:
        try:
            return load_progress(folder)
        except FileNotFoundError:
            tried, folder = folder, last(trial_folder)
            if tried == folder:
                raise SearchError(f"{folder}: damaged, progress.json is missing") from None
    return None


def _part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
