"""A search as `search.yaml` holds it: everything that is needed to run it again."""

import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from tune_srs import results
from tune_srs.config import Settings, dump_yaml, validated
from tune_srs.datasets.sequences import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.space import Categorical, Space
from tune_srs.storage import Storage
from tune_srs.training.loop import device_of

PACKAGES = ("tune-srs", "torch", "ray", "optuna", "numpy", "pandas")


def typed(command: str) -> str:
    """How a user types a command that is installed beside this Python: by name or by path."""
    script = Path(sys.executable).parent / command
    found = shutil.which(command)
    if found and Path(found).resolve() == script.resolve():
        return command
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # a model is exported without Ray, too
            found[name] = version(name)
    return found


def place(folder: Path) -> str:
    """What a command needs to find what lies in `folder`, beside its name."""
    if folder.parent == Path("results"):
        return ""
    return f" --results-folder {shlex.quote(str(folder.parent))}"


def check_name(name: str) -> None:
    """A `ConfigError` unless a folder can have this name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(
            f"--name: {name!r} is no plain folder name; use letters, digits, '.', '_' and '-'"
        )


def available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> dict[str, float]:
    """What Ray starts with on this machine."""
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
            "resources": self.resources.model_dump(mode="json"),
            "space": self.space.to_dict(),
        }

    def write(self, data: PreparedData, path: Path) -> None:
        content = dump_yaml(self.to_dict() | {"data": data.manifest, "versions": versions()})
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
        check_name(self.name)
        if folder.exists() and not resume:
            raise ConfigError(
                f"{folder}: exists and is never overwritten; choose another --name, "
                f"or {self.how_to_resume(folder)}"
            )
        if (folder / "best").exists():
            raise ConfigError(
                f"{folder}: has ended already; see: {typed('tune-srs')} results {self.name}"
            )
        for tracker in self.resources.trackers:
            spec = find_spec(tracker)
            if spec is None or spec.origin is None:  # None: a mere folder of that name
                raise ConfigError(
                    f"--track: {tracker} is not installed; pip install 'tune-srs[{tracker}]', "
                    f"or leave it out"
                )
        if self.space.base.train.device == "cuda" and self.resources.gpus_per_trial == 0:
            raise ConfigError("--gpus-per-trial: 0, but train.device is cuda; ask for a share")
        if self.resources.address is None:
            device_of(self.space.base.train)
            self.resources.check([this_machine()])

    def check_times(self, data: PreparedData) -> None:
        """Refuse data without times where relevance may depend on them."""
        relevance = self.space.params.get("loss.relevance")
        by_time = self.space.base.loss.relevance == "time" or (
            isinstance(relevance, Categorical) and "time" in relevance.choices
        )
        if by_time and data.validation.training.times is None:
            raise ConfigError(
                f"{self.space.base.data.name}: has no times, which loss.relevance: time needs; "
                f"leave time out of the space, or give a log with times"
            )

    def check_data(self, data: PreparedData, folder: Path) -> None:
        """Refuse to resume on other data than the run began with."""
        began = results.settings(folder)["data"]["fingerprint"]
        if began != data.fingerprint:
            raise ConfigError(
                f"{folder}: began on data with fingerprint {began[:12]}, but it is now "
                f"{data.fingerprint[:12]}; bring the former back, or start a search by another name"
            )

    def storage(self, folder: Path) -> Storage:
        """Where the trials of the run in `folder` keep their checkpoints."""
        if self.resources.storage is None:
            return Storage(str(folder.resolve() / "tune"))
        return Storage(self.resources.storage).within(self.name)

    def how_to_resume(self, folder: Path) -> str:
        command = f"{typed('tune-srs')} search --resume --name {self.name}{place(folder)}"
        return f"go on with: {command}"


@dataclass(frozen=True)
class Request:
    """What a user asks for; None where the space or the stored plan decides."""

    name: str
    space: Path | Mapping[str, Any] | None  # a file, or what is in it
    overrides: Mapping[str, Any]
    search: Mapping[str, Any]  # settings of the space's section `search`
    seed: int | None
    resources: Mapping[str, Any]

    def plan(self, stored: Plan | None) -> Plan:
        """A new plan, or the one `stored` by the run to resume, with which all given must agree."""
        fixed, search, asked = map(given, (self.overrides, self.search, self.resources))
        kept = stored.resources.model_dump() if stored else {}
        resources = validated(Resources, kept | asked, "search")
        if stored and resources.storage != stored.resources.storage:
            raise ConfigError(
                f"--storage: the checkpoints are in {stored.resources.storage or 'the run'}; "
                f"leave it out"
            )
        if self.space is None:
            if stored is None:
                raise ConfigError("search: SPACE.yaml is missing; see search_spaces/ for some")
            if fixed or search or self.seed is not None:
                raise ConfigError(
                    "--resume: settings are those of the run; give --name and, if need be, "
                    "other resources"
                )
            return replace(stored, resources=resources)
        if isinstance(self.space, Path):
            space = Space.from_yaml(self.space, fixed=fixed, search=search)
        else:
            space = Space.from_dict(self.space, "space", fixed=fixed, search=search)
        plan = Plan(self.name, space, self.seed or 0, resources)
        if stored and plan.to_dict() != replace(stored, resources=resources).to_dict():
            raise ConfigError(
                f"--resume: the space or the options differ from what {self.name} began with; "
                f"give --name alone"
            )
        return plan


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that were not asked for."""
    return {name: value for name, value in options.items() if value is not None}
