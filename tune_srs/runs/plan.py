"""A search as `search.yaml` holds it: everything that is needed to run it again."""

import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

from tune_srs.commands import typed
from tune_srs.config.validation import validated
from tune_srs.config.yaml import dump_yaml, read_yaml
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.files import write_aside
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.resources import Resources
from tune_srs.runs.resumable import Resumable
from tune_srs.space.parameters import Categorical
from tune_srs.space.space import Space
from tune_srs.storage import Storage

PACKAGES = ("tune-srs", "torch", "ray", "optuna", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # a model is exported without Ray, too
            found[name] = version(name)
    return found


SETTINGS = (
    "name", "seed", "resources", "space.description", "space.search", "space.params",
    "data.fingerprint", "data.settings", "data.users", "data.items", "data.interactions",
    "data.test_futures_in_history",
)  # fmt: skip


def read_settings(path: Path) -> dict[str, Any]:
    """Return what `search.yaml` at `path` holds; a `ConfigError` if something is missing."""
    values = read_yaml(path)
    for key in SETTINGS:
        section: Any = values
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is None:
            raise ConfigError(f"{path}: damaged, {key} is missing; start a new search")
    return values


@dataclass(frozen=True)
class Plan(Resumable):
    """A search to be run or resumed."""

    COMMAND: ClassVar[str] = "search"
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
        write_aside(path, lambda aside: aside.write_text(content, encoding="utf-8"))

    @classmethod
    def from_settings(cls, values: dict[str, Any], path: Path) -> Self:
        """Return the plan that `search.yaml` at `path` holds; a `ConfigError` if it is damaged."""
        try:
            return cls(
                values["name"],
                Space.parse(values["space"], f"{path}: space"),
                int(values["seed"]),
                validated(Resources, values["resources"], f"{path}: resources"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: damaged, {error!r} is missing; start a new search"
            ) from error

    def check(self, folder: Path, resume: bool, extends: bool = False) -> None:
        """Raise a `ConfigError`, before anything starts, for what would fail later.

        `extends`: a run that has ended is to go on.
        """
        self.check_folder(folder, resume)
        paths = RunPaths(folder)
        if paths.best.exists() and not paths.extending.exists() and not extends:
            raise ConfigError(
                f"{folder}: has ended already; see: {typed('tune-srs')} results {self.name}; or "
                f"resume it with more --num-trials"
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
        self.check_machine([self.space.base.train])

    def check_times(self, data: PreparedData) -> None:
        """Raise a `ConfigError` for data without times where relevance may depend on them."""
        relevance = self.space.params.get("loss.relevance")
        by_time = self.space.base.loss.relevance == "time" or (
            isinstance(relevance, Categorical) and "time" in relevance.choices
        )
        if by_time and data.validation.training.times is None:
            raise ConfigError(
                f"{self.space.base.data.name}: has no times, which loss.relevance: time needs; "
                f"leave time out of the space, or give a log with times"
            )

    def storage(self, folder: Path) -> Storage:
        """Return where the trials of the run in `folder` keep their checkpoints."""
        if self.resources.storage is None:
            return Storage(str(RunPaths(folder.resolve()).tune))
        return Storage(self.resources.storage).within(self.name)
