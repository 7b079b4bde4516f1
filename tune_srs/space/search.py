"""The section `search` of a space: metrics, budget, sampler and scheduler."""

from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tune_srs.config.validation import Settings
from tune_srs.space.objective import Mode, Objective


class ASHASettings(Settings):
    """Asynchronous successive halving (arXiv 1810.05934)."""

    type: Literal["asha"] = "asha"
    grace_period: int = Field(20, ge=1, description="epochs after which a trial waits first")
    reduction_factor: int = Field(3, ge=2, description="one trial in this many passes each rung")
    max_waiting: int = Field(
        100, ge=1, description="trials that may wait with their checkpoints; the worst is stopped"
    )


class HyperbandSettings(Settings):
    """Asynchronous Hyperband (arXiv 1603.06560): ASHA in brackets of ever longer grace periods."""

    type: Literal["hyperband"]
    grace_period: int = Field(5, ge=1, description="grace period of the first bracket, in epochs")
    reduction_factor: int = Field(3, ge=2, description="one trial in this many passes each rung")
    max_waiting: int = Field(
        100, ge=1, description="trials that may wait with their checkpoints; the worst is stopped"
    )
    brackets: int = Field(
        3, ge=1, description="number of brackets, with grace periods of 1, f, f² … times the first"
    )


class MedianStoppingSettings(Settings):
    """Stops trials that stay below the median of the others' running averages (Vizier, 2017)."""

    type: Literal["median"]
    grace_period: int = Field(20, ge=1, description="epochs before a trial may be stopped")
    min_trials: int = Field(3, ge=1, description="number of other trials that a comparison needs")


class NoEarlyStopping(Settings):
    """Every trial trains to its end."""

    type: Literal["none"]


class TPESettings(Settings):
    """Optuna's tree-structured Parzen estimator."""

    type: Literal["tpe"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="random trials before TPE begins")
    multivariate: bool = Field(True, description="model all parameters together")
    group: bool = Field(
        True, description="model conditional parameters in groups; needs multivariate"
    )
    constant_liar: bool = Field(
        True, description="assume that running trials turn out poor, so that proposals differ"
    )

    @model_validator(mode="after")
    def _groups_are_of_several(self) -> Self:
        if self.group and not self.multivariate:
            raise ValueError("group needs multivariate: true; set group: false")
        return self


class GPSettings(Settings):
    """Optuna's Gaussian process; parameters with `when` are drawn independently."""

    type: Literal["gp"]
    startup_trials: int = Field(10, ge=1, description="random trials before the process begins")


class CMAESSettings(Settings):
    """CMA-ES over the ranges that are always active; the other parameters are drawn randomly."""

    type: Literal["cmaes"]
    startup_trials: int = Field(10, ge=1, description="random trials before CMA-ES begins")


class RandomSettings(Settings):
    """Draws each trial at random, independently of the others."""

    type: Literal["random"]


class GridSettings(Settings):
    """Runs every point of the space exactly once."""

    type: Literal["grid"]


class QMCSettings(Settings):
    """Draws from a scrambled Sobol sequence: random, but even over the whole space."""

    type: Literal["qmc"]


def _by_type(setting: str, *types: str) -> Discriminator:
    """Return what picks the settings of one of `types` by their `type`."""

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


class SearchSettings(Settings):
    """The `search` section of a space.

    If there are several metrics, Optuna optimises all of them at once. The first one decides which
    epoch of a trial is its best, which trials are stopped early and which trial is exported.
    """

    metric: str | list[str] = Field(
        "val/ndcg_rel@10",
        description="metric to optimise, as an epoch reports it; several give a Pareto set",
    )
    mode: Mode | list[Mode] = Field(
        "max", description="max or min; one for all metrics, or one for each"
    )
    trials: int | None = Field(
        None, ge=1, description="number of trials; None: 20, or all points of a grid"
    )
    time_budget: str | None = Field(
        None,
        description="end the search after this time, such as 45m or 2h30m; pauses do not count",
    )
    stale_trials: int | None = Field(
        None,
        ge=1,
        description="end the search when this many trials in a row have not improved it",
    )
    patience: int | None = Field(
        None, ge=1, description="end a trial after this many epochs without improvement"
    )
    refit: bool = Field(
        False,
        description="train the winner again, on training and validation together, for its best "
        "number of epochs; then score the test",
    )
    scheduler: Scheduler = Field(
        ASHASettings(), description="what stops trials early: its name, or its type and settings"
    )
    sampler: Sampler = Field(
        TPESettings(),
        description="what proposes configurations: its name, or its type and settings",
    )

    @field_validator("scheduler", "sampler", mode="before")
    @classmethod
    def _accept_bare_name(cls, value: Any) -> Any:
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
            raise ValueError(
                f"metric: expected one name or several different names, but got {self.metric}"
            )
        if self.metrics[0].startswith("time/"):
            raise ValueError(
                f"metric: the first one decides which epoch of a trial is exported, but "
                f"{self.metrics[0]} cannot decide that; put it after another metric"
            )
        if len(self.metrics) > 1 and self.sampler.type == "cmaes":
            raise ValueError("sampler: cmaes optimises one metric only; use tpe, gp, qmc or random")
        if isinstance(self.mode, list) and len(self.mode) != len(self.metrics):
            raise ValueError(
                f"mode: got {len(self.mode)} for {len(self.metrics)} metrics; "
                f"give one for all, or one for each"
            )
        return self

    @property
    def metrics(self) -> list[str]:
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def objectives(self) -> list[Objective]:
        """Each metric with its mode; the first one decides which epoch and trial is the best."""
        modes = self.mode if isinstance(self.mode, list) else [self.mode] * len(self.metrics)
        return [Objective(*pair) for pair in zip(self.metrics, modes, strict=True)]


def seconds(duration: str) -> float:
    """Return the seconds of `90s`, `45m`, `2h30m`, `1d`; raise `ValueError` for anything else."""
    try:
        value = pd.Timedelta(duration).total_seconds()
    except ValueError:
        value = 0.0
    if not value > 0 or duration.strip().isdigit():
        raise ValueError(f"expected a duration such as 90s, 45m or 2h30m, but got {duration!r}")
    return value
