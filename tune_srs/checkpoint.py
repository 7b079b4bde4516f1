"""The state of a training run in a folder: tensors as safetensors, the rest as JSON, no pickle."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tune_srs.config import TrialConfig
from tune_srs.train import EpochReport, TrainState, new_state

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


def save(config: TrialConfig, state: TrainState, best: Best, folder: Path) -> None:
    """Write all that `load` needs into the existing `folder`."""
    tensors: Tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for number, optimizer in enumerate(state.optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            prefix = f"optimizer.{number}.{parameter}."
            tensors |= {prefix + name: value for name, value in values.items()}
    tensors["generator"] = state.generator.get_state()
    tensors["order"] = state.order.get_state()
    save_file(tensors, folder / "state.safetensors")
    save_file(best.weights, folder / "best.safetensors")
    of_best = {"epoch": best.epoch, "metrics": best.metrics}
    of_best |= {"metric": best.metric, "mode": best.mode}
    progress = {"config": config.to_dict(), "epoch": state.epoch, "best": of_best}
    (folder / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def load(config: TrialConfig, num_items: int, folder: Path) -> tuple[TrainState, Best]:
    """The state and the best epoch as saved, to go on as if never interrupted."""
    _, epoch, best = load_best(folder)
    tensors = load_file(folder / "state.safetensors")
    state = new_state(config, num_items)
    state.epoch = epoch
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
    return state, best


def load_best(folder: Path) -> tuple[TrialConfig, int, Best]:
    """The configuration, the epochs done, and the best epoch with its weights."""
    config, epochs, best = load_progress(folder)
    best.weights = load_file(folder / "best.safetensors")
    return config, epochs, best


def load_progress(folder: Path) -> tuple[TrialConfig, int, Best]:
    """The same, without the weights."""
    path = folder / "progress.json"
    progress = json.loads(path.read_text(encoding="utf-8"))
    config = TrialConfig.from_dict(progress["config"], str(path))
    return config, progress["epoch"], Best(**progress["best"])


def _part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
