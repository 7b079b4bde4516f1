"""A study as `study.yaml` holds it: everything that is needed to run it again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_srs.commands import place, typed
from tune_srs.config.validation import nearest, validated
from tune_srs.config.yaml import dump_yaml, read_yaml
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError
from tune_srs.files import write_aside
from tune_srs.runs.plan import check_name, versions
from tune_srs.runs.resources import Resources, this_machine
from tune_srs.studies.spec import Study
from tune_srs.training.loop import device_of
from tune_srs.tuning.request import given

FILE = "study.yaml"
TUNED = "tuned.yaml"  # what the tunings chose


@dataclass(frozen=True)
class StudyPlan:
    """A study to be run or resumed."""

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
    def read(cls, folder: Path) -> "StudyPlan":
        path = folder / FILE
        values = read_yaml(path)
        try:
            return cls(
                values["name"],
                Study.from_dict(values["study"], f"{path}: study"),
                validated(Resources, values["resources"], f"{path}: resources"),
            )
        except KeyError as error:
            raise ConfigError(f"{path}: damaged, {error} is missing; start a new study") from error

    def check(self, folder: Path, resume: bool) -> None:
        """Refuse, before anything starts, a name, folder or resources that cannot be had."""
        check_name(self.name)
        if folder.exists() and not resume:
            raise ConfigError(
                f"{folder}: exists and is never overwritten; choose another --name, "
                f"or {self.how_to_resume(folder)}"
            )
        if self.resources.address is None:
            for config in self.study.configs():
                device_of(config.train)
            self.resources.check([this_machine()])

    def check_data(self, data: Mapping[str, PreparedData], folder: Path) -> None:
        """Refuse to resume on other data than the study began with."""
        began = read_yaml(folder / FILE)["data"]
        for name, one in data.items():
            if began[name]["fingerprint"] != one.fingerprint:
                raise ConfigError(
                    f"{folder}: {name} began on data with fingerprint "
                    f"{began[name]['fingerprint'][:12]}, but it is now {one.fingerprint[:12]}; "
                    f"bring the former back, or start a study by another name"
                )

    def how_to_resume(self, folder: Path) -> str:
        command = f"{typed('tune-srs')} study --resume --name {self.name}{place(folder)}"
        return f"go on with: {command}"


@dataclass(frozen=True)
class StudyRequest:
    """What a user asks for; None where the file or the stored plan decides."""

    name: str
    spec: Path | None
    overrides: Mapping[str, Any]
    seeds: int | None
    resources: Mapping[str, Any]

    def plan(self, results_folder: Path, stored: StudyPlan | None) -> StudyPlan:
        """A new plan, or the one `stored` by the study to resume, with which all must agree."""
        kept = stored.resources.model_dump() if stored else {}
        resources = validated(Resources, kept | given(self.resources), "study")
        if self.spec is None:
            if stored is None:
                raise ConfigError("study: SPEC.yaml is missing; see studies/ for some")
            if self.overrides or self.seeds is not None:
                raise ConfigError(
                    "--resume: settings are those of the study; give --name and, if need be, "
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
    """The folder of an existing study, or a `ConfigError` that names those there are."""
    folder = results_folder / name
    if not (folder / FILE).is_file():
        known = sorted(path.parent.name for path in results_folder.glob(f"*/{FILE}"))
        hint = nearest(name, known) if known else "; there are none yet, see tune-srs study --help"
        raise ConfigError(f"{results_folder}: no study named {name}{hint}")
    return folder
