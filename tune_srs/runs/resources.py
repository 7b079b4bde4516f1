"""Where a search runs, and the share of a machine that each trial takes there."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from tune_srs.config.validation import Settings
from tune_srs.errors import ConfigError


def available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> dict[str, float]:
    """Return what Ray starts with on this machine."""
    import torch  # who reads a plan needs no torch

    return {"CPU": available_cpus(), "GPU": torch.cuda.device_count()}


class Resources(Settings):
    """Where a search runs and what a trial takes there; nothing of it changes a trial's numbers."""

    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float | None = Field(None, ge=0, description="None: 0.25 where there is a GPU")
    at_once: int | None = Field(None, ge=1, description="None: as many trials as there is room for")
    address: str | None = Field(None, description="of a Ray cluster; None: this machine alone")
    storage: str | None = Field(
        None, description="place of the checkpoints; None: the run's folder"
    )
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="told of each trial and epoch, beside TensorBoard"
    )

    def of_a_trial(self, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """What a trial takes on a cluster of these nodes."""
        gpus = self.gpus_per_trial
        if gpus is None:
            gpus = 0.25 if any(node.get("GPU") for node in nodes) else 0.0
        return {"CPU": self.cpus_per_trial} | ({"GPU": gpus} if gpus else {})

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many trials run at the same time on a cluster of these nodes."""
        asked = self.of_a_trial(nodes).items()
        fit = (min(node.get(kind, 0) / amount for kind, amount in asked) for node in nodes)
        total = sum(int(number + 1e-9) for number in fit)  # 1 / 0.1 GPUs are ten
        return total if self.at_once is None else min(self.at_once, total)

    def check(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Refuse what can never be scheduled on a cluster of these nodes."""
        where = "this machine" if self.address is None else "the largest node"
        for kind, amount in self.of_a_trial(nodes).items():
            largest = max((node.get(kind, 0) for node in nodes), default=0)
            if amount > largest:
                raise ConfigError(
                    f"--{kind.lower()}s-per-trial: {amount:g} asked, but {where} has {largest:g}; "
                    f"ask for at most that"
                )
        fit = self.room(nodes)
        if fit < (self.at_once or 1):
            raise ConfigError(
                f"--at-once: {self.at_once or 1} asked, but there is room for {fit} such trials; "
                f"ask for at most that, or for less a trial"
            )
