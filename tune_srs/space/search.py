"""The section `search` of a space: metrics, budget, sampler and scheduler."""

from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tune_srs.config.validation import Settings
from tune_srs.space.objective import Mode, Objective


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

    @property
    def objectives(self) -> list[Objective]:
        """Each metric with its mode; the first one decides which epoch and trial is the best."""
        return [Objective(*pair) for pair in zip(self.metrics, self.modes, strict=True)]


def seconds(duration: str) -> float:
    """`90s`, `45m`, `2h30m`, `1d` → seconds; a ValueError for anything else."""
    try:
        value = pd.Timedelta(duration).total_seconds()
    except ValueError:
        value = 0.0
    if not value > 0 or duration.strip().isdigit():
        raise ValueError(f"expected a duration such as 90s, 45m or 2h30m, but got {duration!r}")
    return value
