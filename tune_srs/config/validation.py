"""Settings that refuse what they do not know, and errors that name every fault at once."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from tune_srs.errors import ConfigError

Model = TypeVar("Model", bound="Settings")


Seed = Annotated[int, Field(ge=0, lt=2**63 - 1)]  # what torch accepts


class Settings(BaseModel):
    """Base of all settings: immutable, and no key is accepted that does nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError("expected a number or text, not a boolean")
        return value


def dotted_keys(settings: type[Settings], prefix: str = "") -> list[str]:
    """Return the dotted name of every setting, in order: `data.name`, …, `evaluation.seed`."""
    keys: list[str] = []
    for name, field in settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            keys += dotted_keys(section, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def nearest(name: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """Return `, did you mean …?` with the likeliest of `known`, or a list of all of them.

    A correct name in a wrong or missing section comes first; it may also be one of `elsewhere`.
    """
    known = list(known)
    field = name.rpartition(".")[2]
    moved = [key for key in (*known, *elsewhere) if key.rpartition(".")[2] == field]
    matches = difflib.get_close_matches(name, moved or known, n=1, cutoff=0 if moved else 0.5)
    return f", did you mean {matches[0]}?" if matches else f"; known: {', '.join(known)}"


def unknown_keys(keys: Iterable[str], known: Iterable[str], source: str) -> None:
    """Raise a `ConfigError` that names each of `keys` that is not in `known`."""
    known = list(known)
    faults = [f"unknown key {key}{nearest(key, known)}" for key in keys if key not in known]
    if faults:
        raise ConfigError(f"{source}: " + "; ".join(faults))


def validated(settings: type[Model], values: object, source: str) -> Model:
    """Return `values` as `settings`; a `ConfigError` lists all faults in one line."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_faults(error, settings))
        raise ConfigError(f"{source}: {faults}") from error


def _faults(error: ValidationError, settings: type[Settings]) -> list[str]:
    faults = []
    for fault in error.errors():
        path, owner = _resolved(fault["loc"], settings)
        place = ".".join(path)
        if fault["type"] == "extra_forbidden":
            known = [".".join([*path[:-1], name]) for name in getattr(owner, "model_fields", {})]
            faults.append(f"unknown key {place}{nearest(place, known, dotted_keys(settings))}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", message)
            given = (
                ""
                if isinstance(fault["input"], dict)
                else f", but got {reprlib.repr(fault['input'])}"
            )
            given = "" if "but got" in message else given
            faults.append(f"{place}: {message}{given}" if place else message + given)
    return faults


def _resolved(place: Sequence[str | int], settings: type[Settings]) -> tuple[list[str], Any]:
    """Return the user's keys that lead to a fault, and the settings that should hold the last one.

    `place` is Pydantic's, which counts the tag of a union's member as a key.
    """
    path: list[str] = []
    owner: Any = None
    inner: Any = settings
    for part in map(str, place):
        if member := _member(inner, part):
            inner = member
        else:
            path.append(part)
            field = getattr(inner, "model_fields", {}).get(part)
            owner, inner = inner, getattr(field, "annotation", None)
    return path, owner


def _member(union: Any, tag: str) -> Any:
    """Return the member of a union that `tag` marks, or None."""
    marked = [get_args(member) for member in get_args(union)]
    return next((settings for settings, *marks in filter(None, marked) if Tag(tag) in marks), None)
