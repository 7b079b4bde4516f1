"""A search-space file, validated, and the configurations it suggests.

`Space.suggest(trial)` asks an Optuna-like trial (`suggest_categorical`, `suggest_float`,
`suggest_int`) for values; Optuna itself is not needed here.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import Settings, unknown_keys, validated
from tune_srs.config.yaml import read_yaml
from tune_srs.errors import ConfigError
from tune_srs.metric_names import check_metric
from tune_srs.space.parameters import (
    Categorical,
    Choice,
    Distribution,
    SuggestingTrial,
    Values,
    parameters,
)
from tune_srs.space.search import SearchSettings

REHEARSALS = 200


class SpaceFile(Settings):
    """What a space file may hold; `Space.from_dict` checks the rest."""

    description: str = Field("", description="what the search is about; the report shows it")
    search: SearchSettings = Field(
        SearchSettings(), description="metric, budget, sampler and scheduler"
    )
    fixed: dict[str, Any] = Field(
        default_factory=dict,
        description="settings that are the same in every trial, by dotted name",
    )
    params: dict[str, dict[str, Any]] = Field(
        description="distributions of the searched settings, by dotted name"
    )
    first: list[dict[str, Any]] = Field(
        default_factory=list,
        description="points that are tried first, each with values of parameters",
    )


@dataclass(frozen=True)
class Space:
    """A validated space. Values are flat: dotted name → value, active parameters only."""

    description: str
    search: SearchSettings
    fixed: Values
    params: dict[str, Distribution]
    first: list[Values]
    base: TrialConfig  # the defaults and `fixed`

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        """Return the space in a file that a user brings; see `from_dict`."""
        return cls.from_dict(read_yaml(path), str(path), **overrides)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        source: str,
        fixed: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the space that a user brings; `fixed` and `search` replace entries of its own.

        Raises `ConfigError` for anything that could fail in a trial: the space is rehearsed.
        """
        space = cls.parse(values, source, fixed, search)
        space.rehearse(source)
        return space

    @classmethod
    def parse(
        cls,
        values: Mapping[str, Any],
        source: str,
        fixed: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the space in `values`, such as a run has kept it, without a rehearsal.

        Raises `ConfigError` for what is not a space.
        """
        if search and isinstance(values, Mapping) and isinstance(values.get("search", {}), Mapping):
            values = {**values, "search": {**values.get("search", {}), **search}}
        file = validated(SpaceFile, values, source)
        if file.search.sampler.type == "grid" and file.search.trials is not None:
            raise ConfigError(
                f"{source}: a grid runs each point once; leave out --num-trials and search.trials"
            )
        fixed = file.fixed | dict(fixed or {})
        params = parameters(file.params, source)
        for key in fixed:
            if key in params:
                raise ConfigError(
                    f"{source}: {key} is both fixed and searched; remove it from fixed or params"
                )
        base = TrialConfig().with_overrides(fixed, f"{source}: fixed")
        if base.train.last_epoch is not None:
            raise ConfigError(
                f"{source}: train.last_epoch is for a single run; set train.max_epochs for trials"
            )
        return cls(file.description, file.search, fixed, params, file.first, base)

    def to_dict(self) -> dict[str, Any]:
        """Return the space as `from_dict` and `parse` take it."""
        return {
            "description": self.description,
            "search": self.search.model_dump(),
            "fixed": self.fixed,
            "params": {k: p.model_dump(exclude_defaults=True) for k, p in self.params.items()},
            "first": self.first,
        }

    @property
    def trials(self) -> int:
        """The number of trials in a search of this space."""
        if self.search.sampler.type == "grid":
            return len(self.points())
        return self.search.trials or 20

    def early_stopping_note(self) -> str | None:
        """Return why no trial can be stopped early; None if trials can be."""
        scheduler, epochs = self.search.scheduler, self.base.train.max_epochs
        if scheduler.type != "none" and scheduler.grace_period >= epochs:
            return (
                f"note: no trial can be stopped early, since the grace period of "
                f"{scheduler.grace_period} epochs is not less than train.max_epochs={epochs}"
            )
        return None

    def suggest(self, trial: SuggestingTrial) -> Values:
        """Return values for one trial, parents before children."""
        values: Values = {}
        for name, parameter in self.params.items():
            if parameter.active(values):
                values[name] = parameter.suggest(trial, name)
        return values

    def config(self, values: Values, source: str = "space") -> TrialConfig:
        """Return the configuration of a trial with these values of the parameters."""
        return TrialConfig().with_overrides(self.fixed | values, source)

    def points(self) -> list[Values]:
        """Return the points that are tried first: `first`, or every point of a grid."""
        if self.search.sampler.type != "grid":
            return self.first
        names = list(self.params)
        points: list[Values] = []
        for choices in product(*(self.params[name].choices for name in names)):  # type: ignore[union-attr]
            point: Values = {}
            for name, choice in zip(names, choices, strict=True):
                if self.params[name].active(point):
                    point[name] = choice
            if point not in points:
                points.append(point)
        return points

    def _check_metrics(self, source: str) -> None:
        for metric in self.search.metrics:
            check_metric(metric, self.base.evaluation.cutoffs, f"{source}: search.metric")
        continuous = [k for k, p in self.params.items() if not isinstance(p, Categorical)]
        if self.search.sampler.type == "grid" and continuous:
            raise ConfigError(
                f"{source}: search.sampler: a grid needs categorical parameters only, "
                f"but {', '.join(continuous)} are ranges; give their choices"
            )

    def _check_first(self, source: str) -> None:
        if self.first and self.search.sampler.type == "grid":
            raise ConfigError(f"{source}: first: a grid runs every point anyway; remove first")
        for number, point in enumerate(self.first, start=1):
            place = f"{source}: first, entry {number}"
            unknown_keys(point, self.params, place)
            for name, value in point.items():
                if not self.params[name].contains(value):
                    raise ConfigError(f"{place}: {name}={value!r} lies outside its distribution")
                if not self.params[name].active(point):
                    raise ConfigError(
                        f"{place}: {name} is inactive here: its `when` does not hold; remove it"
                    )

    def rehearse(self, source: str) -> None:
        """Raise a `ConfigError` for anything that could fail in a trial: try what a search would.

        That is the metrics, the points of `first`, and configurations drawn at random.
        """
        self._check_metrics(source)
        self._check_first(source)
        dice = _Dice(random.Random(0))
        for _ in range(REHEARSALS):
            values = self.suggest(dice)
            config = self.config(values, f"{source}: a configuration of this space is not valid")
            if self.search.refit:
                check_refit(config, source)


def check_refit(config: TrialConfig, source: str) -> None:
    """Raise a `ConfigError` for what cannot be trained again with the validation futures."""
    if config.loss.relevance == "time":
        raise ConfigError(
            f"{source}: loss.relevance=time needs the times of the futures that a refit learns, "
            f"which prepared data do not keep; leave refit out"
        )


@dataclass(frozen=True)
class _Dice:
    """A stand-in for a trial: it draws uniformly, and the ends of a range often."""

    random: random.Random

    def suggest_categorical(self, name: str, choices: list[Choice]) -> Choice:
        return self.random.choice(choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        return self.random.choice([low, high, self.random.uniform(low, high)])

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self.random.choice([low, high, self.random.randint(low, high)])
