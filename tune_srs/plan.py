"""A search as `search.yaml` holds it: everything that is needed to run it again."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from tune_srs import results
from tune_srs.config import Settings, dump_yaml, validated
from tune_srs.datasets.sequences import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.space import Space
from tune_srs.train import device_of

PACKAGES = ("tune-srs", "torch", "ray", "optuna", "numpy", "pandas")


def typed(command: str) -> str:
    """How a user types a command that is installed beside this Python: by name or by path."""
    script = Path(sys.executable).parent / command
    found = shutil.which(command)
    if found and Path(found).resolve() == script.resolve():
        return command
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_gpus_per_trial() -> float:
    """Four trials share a GPU, where there is one."""
    return 0.25 if torch.cuda.is_available() else 0.0


class Resources(Settings):
    """What a trial takes; as many trials run at once as fit the machine."""

    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(default_factory=default_gpus_per_trial, ge=0)

    def at_once(self) -> int:
        """How many trials this machine runs at the same time."""
        shares = [available_cpus() / self.cpus_per_trial]
        if self.gpus_per_trial:
            shares.append(torch.cuda.device_count() / self.gpus_per_trial)
        return int(min(shares))


@dataclass(frozen=True)
class Plan:
    """A search to be run or resumed."""

    name: str
    space: Space
    seed: int
    resources: Resources

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seed": self.seed,
            "resources": self.resources.model_dump(),
            "space": self.space.to_dict(),
        }

    def write(self, data: PreparedData, path: Path) -> None:
        versions = {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}
        content = dump_yaml(self.to_dict() | {"data": data.manifest, "versions": versions})
        results.write_aside(path, lambda aside: aside.write_text(content, encoding="utf-8"))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """The plan of an existing run; what it lacks is a `ConfigError`."""
        path = folder / "search.yaml"
        values = results.settings(folder)
        try:
            return cls(
                values["name"],
                Space.from_dict(values["space"], f"{path}: space"),
                int(values["seed"]),
                validated(Resources, values["resources"], f"{path}: resources"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: damaged, {error!r} is missing; start a new search"
            ) from error

    def check(self, folder: Path, resume: bool) -> None:
        """Refuse, before anything starts, a name, folder or resources that cannot be had."""
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ConfigError(
                f"--name: {self.name!r} is no plain folder name; "
                f"use letters, digits, '.', '_' and '-'"
            )
        if folder.exists() and not resume:
            raise ConfigError(
                f"{folder}: exists and is never overwritten; choose another --name, "
                f"or {self.how_to_resume(folder)}"
            )
        if (folder / "best").exists():
            raise ConfigError(
                f"{folder}: has ended already; see: {typed('tune-srs')} results {self.name}"
            )
        device_of(self.space.base.train)
        there = {"cpus": available_cpus(), "gpus": torch.cuda.device_count()}
        for kind, available in there.items():
            asked = getattr(self.resources, f"{kind}_per_trial")
            if asked > available:
                raise ConfigError(
                    f"--{kind}-per-trial: {asked:g} asked, but this machine has {available}; "
                    f"ask for at most that"
                )
        if self.space.base.train.device == "cuda" and not self.resources.gpus_per_trial:
            raise ConfigError("--gpus-per-trial: 0, but train.device is cuda; ask for a share")

    def check_data(self, data: PreparedData, folder: Path) -> None:
        """Refuse to resume on other data than the run began with."""
        began = results.settings(folder)["data"]["fingerprint"]
        if began != data.fingerprint:
            raise ConfigError(
                f"{folder}: began on data with fingerprint {began[:12]}, but it is now "
                f"{data.fingerprint[:12]}; bring the former back, or start a search by another name"
            )

    def how_to_resume(self, folder: Path) -> str:
        place = "" if folder.parent == Path("results") else f" --results-folder {folder.parent}"
        return f"go on with: {typed('tune-srs')} search --resume --name {self.name}{place}"


@dataclass(frozen=True)
class Request:
    """What a user asks for; None where the space or the stored plan decides."""

    name: str
    space: Path | None
    overrides: Mapping[str, Any]
    num_trials: int | None
    seed: int | None
    cpus_per_trial: float | None
    gpus_per_trial: float | None

    def plan(self, stored: Plan | None) -> Plan:
        """A new plan, or the one `stored` by the run to resume, with which all given must agree."""
        fixed = {key: value for key, value in self.overrides.items() if value is not None}
        shares = {"cpus_per_trial": self.cpus_per_trial, "gpus_per_trial": self.gpus_per_trial}
        shares = {key: value for key, value in shares.items() if value is not None}
        if self.space is None:
            if stored is None:
                raise ConfigError("search: SPACE.yaml is missing; see search_spaces/ for some")
            if fixed or shares or self.num_trials is not None or self.seed is not None:
                raise ConfigError("--resume: settings are those of the run; give --name alone")
            return stored
        space = Space.from_yaml(self.space, fixed=fixed, trials=self.num_trials)
        plan = Plan(self.name, space, self.seed or 0, validated(Resources, shares, "search"))
        if stored is not None and plan.to_dict() != stored.to_dict():
            raise ConfigError(
                f"--resume: {self.space} or the options differ from what {self.name} began with; "
                f"give --name alone"
            )
        return plan
