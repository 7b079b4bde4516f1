"""A search-space file, validated, and the configurations it suggests.

`Space.suggest(trial)` asks an Optuna-like trial (`suggest_categorical`, `suggest_float`,
`suggest_int`) for values; Optuna itself is not needed here.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from tune_srs.config import (
    Settings,
    TrialConfig,
    dotted_keys,
    nearest,
    read_yaml,
    unknown_keys,
    validated,
)
from tune_srs.errors import ConfigError
from tune_srs.metrics import check_metric

Choice = bool | int | float | str | None
Values = dict[str, Any]
FIXED_BY_NATURE = ("data.", "evaluation.", "train.max_epochs", "train.device", "train.num_threads")
REHEARSALS = 200


class SuggestingTrial(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_categorical(self, name: str, choices: list[Choice]) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...


class Parameter(Settings):
    """What a distribution has in common: the values of its parents that make it active."""

    when: dict[str, list[Choice]] = Field(default_factory=dict)

    def active(self, values: Values) -> bool:
        """All parents are active and have one of the listed values."""
        return all(
            parent in values and values[parent] in allowed for parent, allowed in self.when.items()
        )


class Categorical(Parameter):
    type: Literal["categorical"]
    choices: list[Choice] = Field(min_length=1)

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ, but got {self.choices}")
        return self

    def suggest(self, trial: SuggestingTrial, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def contains(self, value: Any) -> bool:
        return value in self.choices


class Numeric(Parameter):
    """A range; `log` and `step` exclude each other, as in Optuna."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold with log, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError(f"log and step exclude each other, but got step={self.step}")
        return self

    def contains(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Float(Numeric):
    type: Literal["float"]

    def suggest(self, trial: SuggestingTrial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class Int(Numeric):
    type: Literal["int"]
    low: int
    high: int
    step: int | None = Field(None, ge=1)

    def suggest(self, trial: SuggestingTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)


Distribution = Categorical | Float | Int
DISTRIBUTIONS: dict[str, type[Any]] = {"categorical": Categorical, "float": Float, "int": Int}


class SchedulerSettings(Settings):
    """Which trials are stopped early: ASHA (arXiv 1810.05934) or none."""

    type: Literal["asha", "none"] = "asha"
    grace_period: int = Field(20, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: int = Field(3, ge=2, description="one in so many passes a rung")


class SamplerSettings(Settings):
    """Who proposes: Optuna's TPE, uniform random, or every point of a grid once."""

    type: Literal["tpe", "random", "grid"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="random ones before TPE begins")


class SearchSettings(Settings):
    """The `search` section of a space."""

    metric: str = "val/ndcg_rel@10"
    mode: Literal["max", "min"] = "max"
    trials: int | None = Field(None, ge=1, description="None: 20, or all of a grid")
    scheduler: SchedulerSettings = SchedulerSettings()
    sampler: SamplerSettings = SamplerSettings()


class _SpaceFile(Settings):
    description: str = ""
    search: SearchSettings = SearchSettings()
    fixed: dict[str, Any] = Field(default_factory=dict)
    params: dict[str, dict[str, Any]]
    baselines: list[dict[str, Any]] = Field(default_factory=list)


@dataclass(frozen=True)
class Space:
    """A validated space. Values are flat: dotted name → value, active parameters only."""

    description: str
    search: SearchSettings
    fixed: Values
    params: dict[str, Distribution]
    baselines: list[Values]
    base: TrialConfig  # the defaults and `fixed`

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        return cls.from_dict(read_yaml(path), str(path), **overrides)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        source: str,
        fixed: Mapping[str, Any] | None = None,
        trials: int | None = None,
    ) -> Self:
        """Validate a space; `fixed` replaces entries of its own, `trials` its number of trials.

        Raises `ConfigError` for anything that could fail in a trial: the space is rehearsed.
        """
        file = validated(_SpaceFile, values, source)
        search = file.search
        if trials is not None:
            if search.sampler.type == "grid":
                raise ConfigError(f"{source}: a grid runs each point once; leave out --num-trials")
            wanted = search.model_dump() | {"trials": trials}
            search = validated(SearchSettings, wanted, f"{source}: search")
        fixed = file.fixed | dict(fixed or {})
        params = _parameters(file.params, source)
        for key in fixed:
            if key in params:
                raise ConfigError(
                    f"{source}: {key} is both fixed and searched; remove it from fixed or params"
                )
        base = TrialConfig().with_overrides(fixed, f"{source}: fixed")
        space = cls(file.description, search, fixed, params, file.baselines, base)
        space._check_metric(source)
        space._check_baselines(source)
        space._rehearse(source)
        return space

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes."""
        return {
            "description": self.description,
            "search": self.search.model_dump(),
            "fixed": self.fixed,
            "params": {k: p.model_dump(exclude_defaults=True) for k, p in self.params.items()},
            "baselines": self.baselines,
        }

    @property
    def trials(self) -> int:
        """How many trials a search of this space has."""
        if self.search.sampler.type == "grid":
            return len(self.points())
        return self.search.trials or 20

    def early_stopping_note(self) -> str | None:
        """Why no trial can be stopped early, if the settings have it so."""
        scheduler, epochs = self.search.scheduler, self.base.train.max_epochs
        if scheduler.type == "asha" and scheduler.grace_period >= epochs:
            return (
                f"note: no trial can be stopped early, as the grace period of "
                f"{scheduler.grace_period} epochs is not less than train.max_epochs={epochs}"
            )
        return None

    def suggest(self, trial: SuggestingTrial) -> Values:
        """Values for one trial, parents before children."""
        values: Values = {}
        for name, parameter in self.params.items():
            if parameter.active(values):
                values[name] = parameter.suggest(trial, name)
        return values

    def config(self, values: Values, source: str = "space") -> TrialConfig:
        return self.base.with_overrides(values, source)

    def points(self) -> list[Values]:
        """What is tried first: the baselines, or every point of a grid."""
        if self.search.sampler.type != "grid":
            return self.baselines
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

    def _check_metric(self, source: str) -> None:
        check_metric(self.search.metric, self.base.evaluation.cutoffs, f"{source}: search.metric")
        continuous = [k for k, p in self.params.items() if not isinstance(p, Categorical)]
        if self.search.sampler.type == "grid" and continuous:
            raise ConfigError(
                f"{source}: search.sampler: a grid needs categorical parameters only, "
                f"but {', '.join(continuous)} are ranges; give their choices"
            )

    def _check_baselines(self, source: str) -> None:
        for number, point in enumerate(self.baselines, start=1):
            place = f"{source}: baselines, entry {number}"
            unknown_keys(point, self.params, place)
            for name, value in point.items():
                if not self.params[name].contains(value):
                    raise ConfigError(f"{place}: {name}={value!r} lies outside its distribution")
                if not self.params[name].active(point):
                    raise ConfigError(
                        f"{place}: {name} is inactive here, its `when` does not hold; remove it"
                    )

    def _rehearse(self, source: str) -> None:
        """Suggest and validate as a search would, so that no trial fails on its settings."""
        dice = _Dice(random.Random(0))
        for _ in range(REHEARSALS):
            values = self.suggest(dice)
            self.config(values, f"{source}: a configuration of this space is not valid")


@dataclass(frozen=True)
class _Dice:
    """A trial that draws uniformly, ends of ranges included."""

    random: random.Random

    def suggest_categorical(self, name: str, choices: list[Choice]) -> Choice:
        return self.random.choice(choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        return self.random.choice([low, high, self.random.uniform(low, high)])

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self.random.choice([low, high, self.random.randint(low, high)])


def _parameters(specs: dict[str, dict[str, Any]], source: str) -> dict[str, Distribution]:
    """The distributions, each with a known name and with parents above it."""
    unknown_keys(specs, dotted_keys(), f"{source}: params")
    params: dict[str, Distribution] = {}
    for name, spec in specs.items():
        place = f"{source}: params.{name}"
        if name.startswith(FIXED_BY_NATURE):
            raise ConfigError(f"{place}: cannot be searched, trials must share it; use fixed")
        kind = spec.get("type")
        if not isinstance(kind, str) or kind not in DISTRIBUTIONS:
            raise ConfigError(f"{place}.type: unknown {kind}{nearest(str(kind), DISTRIBUTIONS)}")
        parameter: Distribution = validated(DISTRIBUTIONS[kind], spec, place)
        for parent, allowed in parameter.when.items():
            if parent not in params:
                where = "below" if parent in specs else "not"
                raise ConfigError(
                    f"{place}.when: {parent} is {where} declared; "
                    f"declare it in params, above {name}"
                )
            for value in allowed:
                if not params[parent].contains(value):
                    raise ConfigError(f"{place}.when: {parent} is never {value!r}; correct it")
        params[name] = parameter
    if not params:
        raise ConfigError(f"{source}: params: nothing to search; declare at least one parameter")
    return params
