"""The parameters of a space: distributions in Optuna's words, active where their parents allow."""

from typing import Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from tune_srs.config.settings import override_keys
from tune_srs.config.validation import Settings, nearest, unknown_keys, validated
from tune_srs.errors import ConfigError

Choice = bool | int | float | str | None


Values = dict[str, Any]


NOT_SEARCHABLE = (
    "data.", "evaluation.", "train.max_epochs", "train.last_epoch", "train.device",
    "train.num_threads",
)  # fmt: skip


class SuggestingTrial(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_categorical(self, name: str, choices: list[Choice]) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...


class Parameter(Settings):
    """The base of distributions: the values of its parents that make a parameter active."""

    when: dict[str, list[Choice]] = Field(
        default_factory=dict, description="parents, each with the values that make this one active"
    )

    def active(self, values: Values) -> bool:
        """Return whether all parents are active and have one of the listed values."""
        return all(
            parent in values and values[parent] in allowed for parent, allowed in self.when.items()
        )


class Categorical(Parameter):
    """A choice among values that have no order."""

    type: Literal["categorical"]
    choices: list[Choice] = Field(min_length=1, description="the values to choose from")

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
    log: bool = Field(False, description="draw on a logarithmic scale; needs low > 0 and no step")
    step: float | None = Field(
        None, gt=0, description="distance between values; None: any value in the range"
    )

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
    """A range of real numbers."""

    type: Literal["float"]

    def suggest(self, trial: SuggestingTrial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class Int(Numeric):
    """A range of whole numbers."""

    type: Literal["int"]
    low: int = Field(description="the lowest value, included")
    high: int = Field(description="the highest value, included")
    step: int | None = Field(None, ge=1, description="distance between values; None: 1")

    def suggest(self, trial: SuggestingTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)


Distribution = Categorical | Float | Int


DISTRIBUTIONS: dict[str, type[Any]] = {"categorical": Categorical, "float": Float, "int": Int}


def parameters(specs: dict[str, dict[str, Any]], source: str) -> dict[str, Distribution]:
    """Return the distributions by name; a `ConfigError` for an unknown name or a parent below."""
    unknown_keys(specs, override_keys(), f"{source}: params")
    params: dict[str, Distribution] = {}
    for name, spec in specs.items():
        place = f"{source}: params.{name}"
        if name.startswith(NOT_SEARCHABLE):
            raise ConfigError(
                f"{place}: cannot be searched, since all trials must share it; put it into fixed"
            )
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
