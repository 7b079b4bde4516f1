"""The state of a trial in two files: safetensors with JSON in their header, no pickle.

A trial continues from `last.safetensors`, three times as large as the weights; it is deleted when
the trial has ended. `best.safetensors` holds the weights of its best epoch, and stays.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tune_srs.config.settings import TrialConfig
from tune_srs.errors import DataError
from tune_srs.space.objective import Objective
from tune_srs.storage import Storage, trial_name
from tune_srs.training.loop import EpochReport, TrainState, new_state

Tensors = dict[str, Tensor]
LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass
class Best:
    """The best epoch of a trial so far, with its weights; epoch 0 is before the first."""

    objective: Objective
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    weights: Tensors = field(default_factory=dict)

    def update(self, report: EpochReport) -> bool:
        """Take over `report` if it is better; True if it was."""
        metric = self.objective.metric
        if self.epoch and not self.objective.better(report.metrics[metric], self.metrics[metric]):
            return False
        self.epoch, self.metrics = report.epoch, report.metrics
        self.weights = {k: v.detach().clone() for k, v in report.state.model.state_dict().items()}
        return True


@dataclass(frozen=True)
class Checkpoint:
    """A copy of all that a trial needs to continue: training goes on while it is written."""

    last: bytes
    best: bytes | None  # if this epoch is the best so far

    @classmethod
    def of(cls, config: TrialConfig, report: EpochReport, best: Best) -> Self:
        facts = {"config": config.to_dict(), "epoch": report.epoch, "metrics": report.metrics}
        last = save(_tensors(report.state), {"facts": json.dumps(facts)})
        if best.epoch < report.epoch:
            return cls(last, None)
        return cls(last, save(best.weights, {"facts": json.dumps(facts)}))

    def write(self, storage: Storage, trial: int) -> None:
        """Write both files in place of those before.

        An interruption between the files leaves a best epoch that comes again.
        """
        if self.best is not None:
            storage.write(_name(trial, BEST), self.best)
        storage.write(_name(trial, LAST), self.last)


def load_last(
    storage: Storage, trial: int, config: TrialConfig, num_items: int, best: Best
) -> EpochReport | None:
    """Return the last report of `trial`, with the state to continue from; None if there is none.

    Fills `best` with that of the trial. A checkpoint of another configuration counts as none: it is
    of a trial that the journal no longer knows. Raises `DataError` for a damaged one.
    """
    content = storage.read(_name(trial, LAST))
    if content is None:
        return None
    path = f"{storage.place}/{_name(trial, LAST)}"
    tensors, facts = _parsed(content, path)
    if facts["config"] != config.to_dict():
        return None
    state = new_state(config, num_items)
    try:
        _restore(state, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: damaged ({error})") from error
    state.epoch = facts["epoch"]
    load_best(storage, trial, best)
    return EpochReport(facts["epoch"], facts["metrics"], state)


def load_best(storage: Storage, trial: int, best: Best) -> TrialConfig:
    """Fill `best` with that of `trial` and return its configuration.

    Raises `DataError` if it cannot be read.
    """
    path = f"{storage.place}/{_name(trial, BEST)}"
    content = storage.read(_name(trial, BEST))
    if content is None:
        raise DataError(f"{path}: missing")
    best.weights, facts = _parsed(content, path)
    best.epoch, best.metrics = facts["epoch"], facts["metrics"]
    return TrialConfig.from_dict(facts["config"], path)


def saved_epochs(storage: Storage, trial: int) -> list[tuple[int, dict[str, float]]]:
    """Return the epochs, with their metrics, of the files that can be read, the earlier first."""
    epochs = {}
    for file in (LAST, BEST):
        content = storage.read(_name(trial, file))
        if content is not None:
            with suppress(DataError):
                _, facts = _parsed(content, file)
                epochs[facts["epoch"]] = facts["metrics"]
    return sorted(epochs.items())


def forget_last(storage: Storage, trial: int) -> None:
    """Delete the file that only a trial that continues needs."""
    storage.delete(_name(trial, LAST))


def last_name(trial: int) -> str:
    """Return the name of the file that a trial continues from."""
    return _name(trial, LAST)


def _name(trial: int, file: str) -> str:
    return f"{trial_name(trial)}/{file}"


def _tensors(state: TrainState) -> Tensors:
    tensors: Tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    if state.relevance is not None:
        tensors |= {f"relevance.{k}": v for k, v in state.relevance.state_dict().items()}
    for number, optimizer in enumerate(state.optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            prefix = f"optimizer.{number}.{parameter}."
            tensors |= {prefix + name: value for name, value in values.items()}
    tensors["generator"] = state.generator.get_state()
    tensors["order"] = state.order.get_state()
    return tensors


def _restore(state: TrainState, tensors: Tensors) -> None:
    state.model.load_state_dict(_part(tensors, "model."))
    if state.relevance is not None:
        state.relevance.load_state_dict(_part(tensors, "relevance."))
    state.generator.set_state(tensors["generator"])
    state.order.set_state(tensors["order"])
    for number, optimizer in enumerate(state.optimizers):
        moments: dict[int, Tensors] = {}
        for name, value in _part(tensors, f"optimizer.{number}.").items():
            parameter, _, kind = name.partition(".")
            moments.setdefault(int(parameter), {})[kind] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _parsed(content: bytes, path: str) -> tuple[Tensors, dict[str, Any]]:
    """Return tensors and facts of a file; its header is JSON behind eight bytes of its length."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, json.loads(header["__metadata__"]["facts"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error})") from error
