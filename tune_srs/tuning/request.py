"""What a user asks of a search, checked against the stored plan of the run to resume."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_srs.config.validation import validated
from tune_srs.errors import ConfigError
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.space import Space


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
                    "--resume: a run keeps its settings; give only --name and, if needed, "
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
