"""A search-space file, validated, and the configurations it suggests.

`Space.suggest(trial)` asks an Optuna-like trial (`suggest_categorical`, `suggest_float`,
`suggest_int`) for values; Optuna itself is not needed here.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import pandas as pd
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tune_srs.config import (
    Settings,
    TrialConfig,
    nearest,
    override_keys,
    read_yaml,
    unknown_keys,
    validated,
)
from tune_srs.errors import ConfigError
from tune_srs.evaluation.metrics import check_metric

Choice = bool | int | float | str | None
Values = dict[str, Any]
FIXED_BY_NATURE = (
    "data.", "evaluation.", "train.max_epochs", "train.last_epoch", "train.device",
    "train.num_threads",
)  # fmt: skip
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

    when: dict[str, list[Choice]] = Field(
        default_factory=dict, description="parents, each with the values that make this one active"
    )

    def active(self, values: Values) -> bool:
        """All parents are active and have one of the listed values."""
        return all(
            parent in values and values[parent] in allowed for parent, allowed in self.when.items()
        )


class Categorical(Parameter):
    type: Literal["categorical"]
    choices: list[Choice] = Field(min_length=1, description="different values")

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

    low: float = Field(description="the lowest value, included")
    high: float = Field(description="the highest value, included")
    log: bool = Field(False, description="on a logarithmic scale; low > 0, no step")
    step: float | None = Field(None, gt=0, description="from one value to the next")

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
    low: int = Field(description="the lowest value, included")
    high: int = Field(description="the highest value, included")
    step: int | None = Field(None, ge=1, description="from one value to the next; None: 1")

    def suggest(self, trial: SuggestingTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)


Distribution = Categorical | Float | Int
DISTRIBUTIONS: dict[str, type[Any]] = {"categorical": Categorical, "float": Float, "int": Int}


class ASHASettings(Settings):
    """Asynchronous successive halving (arXiv 1810.05934)."""

    type: Literal["asha"] = "asha"
    grace_period: int = Field(20, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: int = Field(3, ge=2, description="one in so many passes a rung")


class HyperbandSettings(Settings):
    """Asynchronous Hyperband (arXiv 1603.06560): ASHA in brackets of ever longer grace periods."""

    type: Literal["hyperband"]
    grace_period: int = Field(5, ge=1, description="epochs, in the bracket that is quickest")
    reduction_factor: int = Field(3, ge=2, description="one in so many passes a rung")
    brackets: int = Field(3, ge=1, description="grace periods of 1, f, f² … times the shortest")


class MedianStoppingSettings(Settings):
    """Stops what stays below the median of the others' running averages (Vizier, 2017)."""

    type: Literal["median"]
    grace_period: int = Field(20, ge=1, description="epochs before a trial may be stopped")
    min_trials: int = Field(3, ge=1, description="others needed for a comparison")


class NoEarlyStopping(Settings):
    """Every trial trains to its end."""

    type: Literal["none"]


class TPESettings(Settings):
    """Optuna's tree-structured Parzen estimator."""

    type: Literal["tpe"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="random ones before TPE begins")
    multivariate: bool = Field(True, description="models parameters together")
    group: bool = Field(True, description="conditional parameters in groups; multivariate only")
    constant_liar: bool = Field(True, description="takes running trials for poor ones")

    @model_validator(mode="after")
    def _groups_are_of_several(self) -> Self:
        if self.group and not self.multivariate:
            raise ValueError("group needs multivariate: true; set group: false")
        return self


class GPSettings(Settings):
    """Optuna's Gaussian process; parameters with `when` are drawn independently."""

    type: Literal["gp"]
    startup_trials: int = Field(10, ge=1, description="random ones before the process begins")


class CMAESSettings(Settings):
    """CMA-ES over the ranges that are always active; the other parameters are drawn randomly."""

    type: Literal["cmaes"]
    startup_trials: int = Field(10, ge=1, description="random ones before CMA-ES begins")


class RandomSettings(Settings):
    """Each trial for itself."""

    type: Literal["random"]


class GridSettings(Settings):
    """Every point of the space exactly once."""

    type: Literal["grid"]


class QMCSettings(Settings):
    """A scrambled Sobol sequence: random, but even over the whole space."""

    type: Literal["qmc"]


def _by_type(setting: str, *types: str) -> Discriminator:
    """Tells the settings of one of `types` by the `type` that they, or a mapping, have."""

    def type_of(value: Any) -> Any:
        return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)

    return Discriminator(
        type_of,
        custom_error_type=setting,
        custom_error_message=f"type must be one of {', '.join(types)}",
    )


Scheduler = Annotated[
    Annotated[ASHASettings, Tag("asha")]
    | Annotated[HyperbandSettings, Tag("hyperband")]
    | Annotated[MedianStoppingSettings, Tag("median")]
    | Annotated[NoEarlyStopping, Tag("none")],
    _by_type("scheduler", "asha", "hyperband", "median", "none"),
]
Sampler = Annotated[
    Annotated[TPESettings, Tag("tpe")]
    | Annotated[GPSettings, Tag("gp")]
    | Annotated[CMAESSettings, Tag("cmaes")]
    | Annotated[RandomSettings, Tag("random")]
    | Annotated[GridSettings, Tag("grid")]
    | Annotated[QMCSettings, Tag("qmc")],
    _by_type("sampler", "tpe", "gp", "cmaes", "random", "grid", "qmc"),
]
Mode = Literal["max", "min"]


class SearchSettings(Settings):
    """The `search` section of a space.

    Of several metrics, the first one decides which epoch is a trial's best, which trials are
    stopped early and which one is exported; Optuna searches for all of them at the same time.
    """

    metric: str | list[str] = Field(
        "val/ndcg_rel@10", description="what an epoch reports; several give a Pareto set"
    )
    mode: Mode | list[Mode] = Field("max", description="one for all metrics, or one for each")
    trials: int | None = Field(None, ge=1, description="None: 20, or all of a grid")
    time_budget: str | None = Field(None, description="such as 90s, 45m or 2h30m, pauses left out")
    stale_trials: int | None = Field(
        None, ge=1, description="ends when so many in a row have not improved the first metric"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without improvement after which a trial is complete"
    )
    scheduler: Scheduler = Field(
        ASHASettings(), description="stops trials early; its name, or its type and settings"
    )
    sampler: Sampler = Field(
        TPESettings(), description="proposes configurations; its name, or its type and settings"
    )

    @field_validator("scheduler", "sampler", mode="before")
    @classmethod
    def _a_name_alone_will_do(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("time_budget")
    @classmethod
    def _is_a_duration(cls, value: str | None) -> str | None:
        if value is not None:
            seconds(value)
        return value

    @model_validator(mode="after")
    def _a_mode_for_each_metric(self) -> Self:
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metric: expected one name or different ones, got {self.metric}")
        if self.metrics[0].startswith("time/"):
            raise ValueError(
                f"metric: the first one decides which epoch of a trial is exported, which "
                f"{self.metrics[0]} cannot; put it behind another"
            )
        if len(self.metrics) > 1 and self.sampler.type == "cmaes":
            raise ValueError("sampler: cmaes takes one metric; use tpe, gp, qmc or random")
        if isinstance(self.mode, list) and len(self.mode) != len(self.metrics):
            raise ValueError(
                f"mode: {len(self.mode)} given for {len(self.metrics)} metrics; "
                f"give one for all or one for each"
            )
        return self

    @property
    def metrics(self) -> list[str]:
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def modes(self) -> list[Mode]:
        """One for each of `metrics`."""
        return self.mode if isinstance(self.mode, list) else [self.mode] * len(self.metrics)


def seconds(duration: str) -> float:
    """`90s`, `45m`, `2h30m`, `1d` → seconds; a ValueError for anything else."""
    try:
        value = pd.Timedelta(duration).total_seconds()
    except ValueError:
        value = 0.0
    if not value > 0 or duration.strip().isdigit():
        raise ValueError(f"expected a duration such as 90s, 45m or 2h30m, but got {duration!r}")
    return value


class SpaceFile(Settings):
    """What a file may hold; `Space.from_dict` checks the rest."""

    description: str = Field("", description="what the search is about, for its report")
    search: SearchSettings = Field(SearchSettings(), description="how it is searched")
    fixed: dict[str, Any] = Field(default_factory=dict, description="the same in every trial")
    params: dict[str, dict[str, Any]] = Field(description="what is searched: distributions")
    baselines: list[dict[str, Any]] = Field(
        default_factory=list, description="values of parameters that are tried first"
    )


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
        search: Mapping[str, Any] | None = None,
    ) -> Self:
        """Validate a space; `fixed` and `search` replace entries of its own.

        Raises `ConfigError` for anything that could fail in a trial: the space is rehearsed.
        """
        file = validated(SpaceFile, values, source)
        asked = file.search.model_dump() | dict(search or {})
        settings = validated(SearchSettings, asked, f"{source}: search")
        if settings.sampler.type == "grid" and settings.trials is not None:
            raise ConfigError(
                f"{source}: a grid runs each point once; leave out --num-trials and search.trials"
            )
        fixed = file.fixed | dict(fixed or {})
        params = _parameters(file.params, source)
        for key in fixed:
            if key in params:
                raise ConfigError(
                    f"{source}: {key} is both fixed and searched; remove it from fixed or params"
                )
        base = TrialConfig().with_overrides(fixed, f"{source}: fixed")
        if base.train.last_epoch is not None:
            raise ConfigError(
                f"{source}: train.last_epoch is for a single run; trials have train.max_epochs"
            )
        space = cls(file.description, settings, fixed, params, file.baselines, base)
        if file.baselines and settings.sampler.type == "grid":
            raise ConfigError(f"{source}: baselines: a grid runs its own points; remove them")
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
        if scheduler.type != "none" and scheduler.grace_period >= epochs:
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
        return TrialConfig().with_overrides(self.fixed | values, source)

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
        for metric in self.search.metrics:
            check_metric(metric, self.base.evaluation.cutoffs, f"{source}: search.metric")
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
    unknown_keys(specs, override_keys(), f"{source}: params")
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
