"""The plan of a study, as `study.yaml` holds it: everything that is needed to run it again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from tune_srs.config.validation import nearest, validated
from tune_srs.config.yaml import dump_yaml, read_yaml
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.files import write_aside
from tune_srs.runs.plan import versions
from tune_srs.runs.resources import Resources
from tune_srs.runs.resumable import Resumable, check_unchanged
from tune_srs.studies.spec import Study
from tune_srs.tuning.request import given

FILE = "study.yaml"
TUNED = "tuned.yaml"  # the trial that each tuning chose


@dataclass(frozen=True)
class StudyPlan(Resumable):
    """A study to be run or resumed."""

    COMMAND: ClassVar[str] = "study"
    name: str
    study: Study
    resources: Resources

    def write(self, data: Mapping[str, PreparedData], folder: Path) -> None:
        """Write `study.yaml` into `folder`; `data` by the names of the data sets."""
        content = {
            "name": self.name,
            "resources": self.resources.model_dump(),
            "study": self.study.to_dict(),
            "data": {name: one.manifest for name, one in data.items()},
            "versions": versions(),
        }
        text = dump_yaml(content)
        write_aside(folder / FILE, lambda aside: aside.write_text(text, encoding="utf-8"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the plan of the study in `folder`; a `ConfigError` if it is missing or damaged."""
        path = folder / FILE
        values = read_yaml(path)
        for key in ("name", "study", "resources", "data"):
            if key not in values:
                raise ConfigError(f"{path}: damaged, {key} is missing; start a new study")
        return cls(
            str(values["name"]),
            Study.parse(values["study"], f"{path}: study"),
            validated(Resources, values["resources"], f"{path}: resources"),
        )

    def check(self, folder: Path, resume: bool) -> None:
        """Raise a `ConfigError`, before anything starts, for what would fail later."""
        self.check_folder(folder, resume)
        self.check_machine(config.train for config in self.study.configs())

    def check_data(self, data: Mapping[str, PreparedData], folder: Path) -> None:
        """Raise a `ConfigError` if `data` are not those that the study in `folder` began with."""
        began = read_yaml(folder / FILE)["data"]
        for name, one in data.items():
            check_unchanged(
                began[name]["fingerprint"], one.fingerprint, f"{folder}: {name}", self.COMMAND
            )


@dataclass(frozen=True)
class StudyRequest:
    """What a user asks of a study; None where the file or the stored plan decides."""

    name: str
    spec: Path | None
    overrides: Mapping[str, Any]
    seeds: int | None
    resources: Mapping[str, Any]

    def plan(self, results_folder: Path, stored: StudyPlan | None) -> StudyPlan:
        """Return a new plan, or the one that the study to resume has `stored`.

        Raises a `ConfigError` if the request differs from what is stored.
        """
        kept = stored.resources.model_dump() if stored else {}
        resources = validated(Resources, kept | given(self.resources), "study")
        if self.spec is None:
            if stored is None:
                raise ConfigError("study: STUDY.yaml is missing; see studies/ for some")
            if self.overrides or self.seeds is not None:
                raise ConfigError(
                    "--resume: a study keeps its settings; give only --name and, if needed, "
                    "other resources"
                )
            return replace(stored, resources=resources)
        study = Study.from_yaml(self.spec, results_folder, self.overrides, self.seeds)
        if stored and study.to_dict() != stored.study.to_dict():
            raise ConfigError(
                f"--resume: {self.spec} or the options differ from what {self.name} began with; "
                f"give --name alone"
            )
        return StudyPlan(self.name, study, resources)


def study_folder(results_folder: Path, name: str) -> Path:
    """Return the folder of a study; a `ConfigError` names those that exist if it is none."""
    folder = results_folder / name
    if not (folder / FILE).is_file():
        known = sorted(path.parent.name for path in results_folder.glob(f"*/{FILE}"))
        hint = nearest(name, known) if known else "; there are none yet, see tune-srs study --help"
        raise ConfigError(f"{results_folder}: there is no study called {name}{hint}")
    return folder
