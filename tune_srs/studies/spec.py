"""The file of a study, validated: configurations, data sets, and how they are compared.

In a file, `grid:` and `search:` stand for several configurations. `Study.from_yaml` replaces them
with the configurations themselves, so that a stored study does not depend on another search.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from tune_srs.config.data import DataConfig
from tune_srs.config.settings import TrialConfig, override_keys
from tune_srs.config.validation import Seed, Settings, dotted_keys, nearest, unknown_keys, validated
from tune_srs.config.yaml import read_yaml
from tune_srs.errors import ConfigError
from tune_srs.metric_names import check_metric, names
from tune_srs.space.parameters import Values
from tune_srs.space.space import Space, check_refit
from tune_srs.studies.entries import OF_THE_DATA, Entry, entries, expanded

EACH = "each"


class Tuning(Settings):
    """How configurations are tuned before they run, all of them alike."""

    dataset: str = Field(
        EACH, description="the data set to tune on; each: tune on every data set separately"
    )
    tunings: int = Field(
        1,
        ge=1,
        description="independent tunings of every configuration, each with other seeds and a "
        "winner of its own, which runs with every seed",
    )
    search: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the tuning, as in a space, without metric and mode",
    )
    params: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="distributions for every configuration that does not fix the setting",
    )

    @model_validator(mode="after")
    def _has_one_budget_for_all(self) -> Self:
        if "train.seed" in self.params:
            raise ValueError("params: tuning train.seed would select a lucky run; leave it out")
        if {"metric", "mode"} & set(self.search):
            raise ValueError(
                "search: the metric is the study's `select`; leave out metric and mode"
            )
        sampler = self.search.get("sampler")
        kind = sampler.get("type") if isinstance(sampler, dict) else sampler
        if kind == "grid":
            raise ValueError(
                "search: with a grid, budgets differ between configurations; use trials"
            )
        return self


class Study(Settings):
    """Configurations, data sets and seeds; each combination of them is a run."""

    description: str = Field("", description="what the study is about")
    metrics: list[str] = Field(
        ["test/ndcg@10"], min_length=1, description="test metrics to compare"
    )
    primary: str | None = Field(
        None,
        description="the one of the metrics that the verdict rests on; the others are secondary; "
        "None: the first",
    )
    select: str = Field(
        "val/ndcg_rel@10",
        description="validation metric that picks the epoch of each run, and the tuned trial",
    )
    seeds: int | list[Seed] = Field(
        5, description="seeds of the trainings of a tuning; a number n means 1 … n"
    )
    patience: int | None = Field(
        None, ge=1, description="end a run after this many epochs without improvement"
    )
    refit: bool = Field(
        False,
        description="train each run again, on training and validation together, for its best "
        "number of epochs; then score the test",
    )
    reference: str = Field(description="the configuration that the others are compared with")
    datasets: dict[str, Values] = Field(
        min_length=1, description="settings of data and evaluation per data set, by dotted name"
    )
    fixed: Values = Field(
        default_factory=dict, description="settings of all configurations, by dotted name"
    )
    configurations: dict[str, dict[str, Any]] = Field(
        min_length=1, description="configurations, by names that you choose"
    )
    tune: Tuning | None = Field(
        None, description="how configurations are tuned; None: they are not"
    )

    @classmethod
    def from_yaml(
        cls,
        path: Path,
        results_folder: Path,
        overrides: Mapping[str, Any] | None = None,
        seeds: int | None = None,
    ) -> Self:
        """Return the study in a file; `overrides` are fixed in all configurations or data sets.

        Raises `ConfigError` for anything that could fail in a run or a tuning.
        """
        values: dict[str, Any] = validated(cls, read_yaml(path), str(path)).model_dump()
        if seeds is not None:
            values["seeds"] = seeds
        for key, value in (overrides or {}).items():
            of_data = key.startswith(OF_THE_DATA)
            for section in values["datasets"].values() if of_data else [values["fixed"]]:
                section[key] = value
        written = entries(values["configurations"], str(path))
        values["configurations"] = {}
        for name, entry in written.items():
            several = expanded(name, entry, values["fixed"], results_folder)
            if twice := set(several) & set(values["configurations"]):
                raise ConfigError(f"{path}: two configurations are called {min(twice)}; rename one")
            for one, single in several.items():
                if lost := set(single.fixed) & set(overrides or {}):
                    raise ConfigError(
                        f"--set: {min(lost)} is fixed in the configuration {one}; leave it out"
                    )
                values["configurations"][one] = single.model_dump(exclude_defaults=True)
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Return the study that a user brings, without `grid` and `search`.

        Raises `ConfigError` for anything that could fail in a run or a tuning: the spaces of the
        tunings are rehearsed.
        """
        study = cls.parse(values, source)
        for dataset in study.tuned_on:
            for name in study.configurations:
                if space := study.space(name, dataset, source):
                    search = space.search.model_copy(update={"refit": study.refit})
                    replace(space, search=search).rehearse(_tuning(name, dataset, source))
        return study

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str) -> Self:
        """Return the study in `values`, such as a study has kept it, without a rehearsal.

        Raises `ConfigError` for what is not a study.
        """
        study = validated(cls, values, source)
        study._check_names(source)
        study._check_keys(source)
        largest_seed = max(study.seeds_of(study.tunings))
        for dataset in study.datasets:
            for name in study.configurations:
                config = study.config(name, dataset, largest_seed, source=f"{source}: ")
                if study.refit:
                    check_refit(config, f"{source}: {name} on {dataset}")
        study._check_metrics(source)
        return study

    def to_dict(self) -> dict[str, Any]:
        """Return the study as `from_dict` and `parse` take it."""
        return self.model_dump(mode="json")

    @property
    def primary_metric(self) -> str:
        """The metric that the verdict rests on."""
        return self.primary or self.metrics[0]

    @property
    def tunings(self) -> int:
        """The number of independent tunings; 1 also where nothing is tuned."""
        return self.tune.tunings if self.tune else 1

    @property
    def sample(self) -> str:
        """What the trainings are a sample of: `tunings` if there are several, else `seeds`."""
        return "tunings" if self.tunings > 1 else "seeds"

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the runs of the first tuning.

        A number of seeds leaves out 0, with which the tuning trains: no run was chosen by its luck.
        """
        return list(range(1, self.seeds + 1)) if isinstance(self.seeds, int) else self.seeds

    def tuning_seed(self, tuning: int) -> int:
        """Return the seed of a tuning, from 1: of its sampler and of its trainings.

        The seeds of its runs follow it, as they follow 0 in the first tuning. So no two trainings
        of a configuration share a seed, also where it has nothing to be tuned.
        """
        return (tuning - 1) * (max(self.seed_list) + 1)

    def seeds_of(self, tuning: int) -> list[int]:
        """Return the seeds of the runs of a tuning, from 1."""
        return [self.tuning_seed(tuning) + seed for seed in self.seed_list]

    @property
    def tuned_on(self) -> list[str]:
        """The data sets on which configurations are tuned."""
        if self.tune is None:
            return []
        return list(self.datasets) if self.tune.dataset == EACH else [self.tune.dataset]

    def data(self) -> dict[str, DataConfig]:
        """Return the settings of each data set."""
        return {name: self.config(self.reference, name, 0).data for name in self.datasets}

    def configs(self) -> list[TrialConfig]:
        """Return each configuration before its tuning, on the first data set."""
        return [self.config(name, next(iter(self.datasets)), 0) for name in self.configurations]

    def entry(self, name: str) -> Entry:
        """Return what the file says of a configuration."""
        return Entry.model_validate(self.configurations[name])

    def config(
        self, name: str, dataset: str, seed: int, tuned: Values | None = None, source: str = ""
    ) -> TrialConfig:
        """Return what a run trains: the settings of all, then its own, then the tuned ones."""
        fixed = self.fixed | self.entry(name).fixed | self.datasets[dataset]
        values = fixed | (tuned or {}) | {"train.seed": seed}
        return TrialConfig().with_overrides(values, f"{source}{name} on {dataset}")

    def space(
        self, name: str, dataset: str, source: str = "study", tuning: int = 1
    ) -> Space | None:
        """Return the space that tunes a configuration on a data set; None if it is not tuned."""
        if self.tune is None:
            return None
        entry = self.entry(name)
        params = {k: spec for k, spec in self.tune.params.items() if k not in entry.fixed}
        if not (params := params | entry.params):
            return None
        values = {
            "description": f"{name} on {dataset}",
            "search": self.tune.search | {"metric": self.select, "mode": "max"},
            "fixed": self.fixed
            | entry.fixed
            | self.datasets[dataset]
            | {"train.seed": self.tuning_seed(tuning)},
            "params": params,
        }
        return Space.parse(values, _tuning(name, dataset, source))

    def _check_names(self, source: str) -> None:
        for name in (*self.configurations, *self.datasets):
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ConfigError(
                    f"{source}: {name!r} cannot name a folder; use letters, digits, '._-'"
                )
        if self.reference not in self.configurations:
            close = nearest(self.reference, self.configurations)
            raise ConfigError(
                f"{source}: reference: there is no configuration {self.reference}{close}"
            )
        if EACH in self.datasets or (self.tune and self.tune.dataset not in {EACH, *self.datasets}):
            close = nearest(self.tune.dataset if self.tune else EACH, [EACH, *self.datasets])
            raise ConfigError(
                f"{source}: tune.dataset: expected `each` or a data set, none of which may be "
                f"called `each`{close}"
            )
        if not self.seed_list or len(set(self.seed_list)) < len(self.seed_list):
            raise ConfigError(
                f"{source}: seeds: expected at least one, all different, but got {self.seeds}"
            )

    def _check_keys(self, source: str) -> None:
        for name, overrides in self.datasets.items():
            known = [key for key in dotted_keys(TrialConfig) if key.startswith(OF_THE_DATA)]
            unknown_keys(overrides, known, f"{source}: datasets.{name}")
        _check_fixed(self.fixed, f"{source}: fixed")
        for name, entry in entries(self.configurations, source).items():
            place = f"{source}: configurations.{name}"
            _check_fixed(entry.fixed, place)
            if entry.params and self.tune is None:
                raise ConfigError(
                    f"{place}: params are to be tuned, but there is no `tune`; "
                    f"add it, or list values in `grid`"
                )

    def _check_metrics(self, source: str) -> None:
        if len(set(self.metrics)) < len(self.metrics):
            raise ConfigError(f"{source}: metrics: one occurs twice; remove it")
        if self.primary_metric not in self.metrics:
            close = nearest(self.primary_metric, self.metrics)
            raise ConfigError(f"{source}: primary: {self.primary} is none of the metrics{close}")
        for dataset in self.datasets:
            cutoffs = self.config(self.reference, dataset, 0).evaluation.cutoffs
            known = [f"test/{name}" for name in names(cutoffs)]
            for metric in self.metrics:
                if metric not in known:
                    close = nearest(metric, known)
                    raise ConfigError(f"{source}: metrics: unknown metric {metric}{close}")
            if not self.select.startswith("val/"):
                raise ConfigError(
                    f"{source}: select: {self.select} is not a validation metric; use one of val/…"
                )
            check_metric(self.select, cutoffs, f"{source}: select")


def _tuning(name: str, dataset: str, source: str) -> str:
    """Return how an error names the space of a tuning."""
    return f"{source}: tuning {name} on {dataset}"


def _check_fixed(fixed: Values, place: str) -> None:
    """Raise a `ConfigError` for settings that a configuration must share with the others."""
    unknown_keys(fixed, override_keys(), place)
    for key in fixed:
        if key.startswith(OF_THE_DATA):
            raise ConfigError(f"{place}: {key} belongs to the data; put it into datasets")
        if key == "train.seed":
            raise ConfigError(f"{place}: train.seed is set by `seeds`; leave it out")
