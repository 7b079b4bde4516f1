"""What a user asks of a search, checked against the stored plan of the run to resume."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_srs.config.validation import validated
from tune_srs.errors import ConfigError
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.parameters import Categorical
from tune_srs.space.space import Space

EXTENDABLE = {"trials", "time_budget", "stale_trials"}
MAX_EPOCHS = "train.max_epochs"


@dataclass(frozen=True)
class Request:
    """What a user asks for; None where the space or the stored plan decides."""

    name: str
    space: Path | Mapping[str, Any] | None  # a file, or what is in it
    overrides: Mapping[str, Any]
    search: Mapping[str, Any]  # settings of the space's section `search`
    seed: int | None
    resources: Mapping[str, Any]
    retry_failed: bool = False  # trials that have failed are trained again

    @property
    def extends(self) -> bool:
        """Whether a run that has ended is to go on."""
        return self.retry_failed or bool(given(self.search) or given(self.overrides))

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
            space = extended(stored.space, fixed, search, self.seed)
            return replace(stored, resources=resources, space=space)
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


def extended(
    space: Space, fixed: Mapping[str, Any], search: Mapping[str, Any], seed: int | None
) -> Space:
    """Return the space of a run to resume with larger limits; a `ConfigError` for other changes."""
    if seed is not None or set(search) - EXTENDABLE or set(fixed) - {MAX_EPOCHS}:
        raise ConfigError(
            "--resume: a run keeps its settings; give only --name, larger limits (--num-trials, "
            "--time-budget, --stale-trials, --max-epochs) and, if needed, other resources"
        )
    before, epochs = space.base.train, fixed.get(MAX_EPOCHS)
    if epochs is not None and epochs < before.max_epochs:
        raise ConfigError(
            f"--max-epochs: the run has trained up to {before.max_epochs} epochs; ask for more"
        )
    schedules = space.params.get("train.schedule")
    varied = isinstance(schedules, Categorical) and "cosine" in schedules.choices
    if epochs not in (None, before.max_epochs) and (before.schedule == "cosine" or varied):
        raise ConfigError(
            f"--max-epochs: train.schedule=cosine lowers the rate until epoch {before.max_epochs}, "
            f"so that epochs of trials with another last epoch cannot be compared; begin another "
            f"search"
        )
    trials = search.get("trials")
    if trials is not None and trials < space.trials:
        raise ConfigError(f"--num-trials: the run has {space.trials} already; ask for more")
    values = space.to_dict()
    return Space.from_dict(values, "space", search=search, fixed=fixed)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that were not asked for."""
    return {name: value for name, value in options.items() if value is not None}
