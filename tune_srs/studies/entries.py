"""The configurations of a study's file: what each entry says, and what it stands for."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from tune_srs.config.validation import Settings, validated
from tune_srs.errors import ConfigError
from tune_srs.runs.run import Run
from tune_srs.space.parameters import Choice, Values

OF_THE_DATA = ("data.", "evaluation.")


class Entry(Settings):
    """One configuration or several: what is fixed in them, and what is tuned."""

    fixed: Values = Field(default_factory=dict, description="settings by dotted name")
    params: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="distributions, as in a space, that are tuned before the runs",
    )
    grid: dict[str, list[Choice]] = Field(
        default_factory=dict,
        description="lists of values; each combination of them makes a configuration",
    )
    search: str | None = Field(
        None, description="name of a search that has ended; its best trials make configurations"
    )
    top: int | None = Field(None, ge=1, description="number of its best trials; None: 1")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.search is not None and self.grid:
            raise ValueError("grid and search exclude each other; make two configurations")
        if any(len(set(choices)) < max(1, len(choices)) for choices in self.grid.values()):
            raise ValueError("grid: each setting needs a list of different values")
        if self.search is None and self.top is not None:
            raise ValueError("top takes the best trials of a search; name it: search: RUN")
        return self


def entries(configurations: Mapping[str, Any], source: str) -> dict[str, Entry]:
    """Return the entries, validated one by one, so that an error names its configuration."""
    return {
        name: validated(Entry, entry, f"{source}: configurations.{name}")
        for name, entry in configurations.items()
    }


def expanded(
    name: str, entry: Entry, fixed_for_all: Values, results_folder: Path
) -> dict[str, Entry]:
    """Return the configurations that an entry of the file stands for, by name."""
    if entry.search is not None:
        winners = _winners(results_folder, entry.search, entry.top or 1)
        numbers = [""] if entry.top is None else [f"-{i + 1}" for i in range(len(winners))]
        return {
            name + number: Entry(fixed=_settings_of(winner, fixed_for_all) | entry.fixed)
            for number, winner in zip(numbers, winners, strict=True)
        }
    if not entry.grid:
        return {name: entry}
    points = [
        dict(zip(entry.grid, values, strict=True)) for values in product(*entry.grid.values())
    ]
    return {
        "-".join([name, *map(str, point.values())]): Entry(
            fixed=entry.fixed | point, params=entry.params
        )
        for point in points
    }


def _winners(results_folder: Path, name: str, top: int) -> list[tuple[Values, Values]]:
    """Return what is fixed in a search, and the values of each of its `top` trials, best first."""
    run = Run.load(name, results_folder)
    if not run.paths.best.exists():
        raise ConfigError(f"{run.folder}: the search has not ended; resume it first")
    if len(run.scored) < top:
        raise ConfigError(
            f"{run.folder}: top is {top}, but only {len(run.scored)} trials have "
            f"{run.objective.metric}"
        )
    best_first = sorted(run.scored, key=lambda record: -run.objective.sign * run.value(record))
    return [(run.space.fixed, record.values) for record in best_first[:top]]


def _settings_of(winner: tuple[Values, Values], fixed_for_all: Values) -> Values:
    """Return a winner's settings, without those its search fixed and the study fixes otherwise."""
    searched_with, found = winner
    kept = {
        key: value
        for key, value in searched_with.items()
        if key not in fixed_for_all and not key.startswith((*OF_THE_DATA, "train.seed"))
    }
    return kept | found
