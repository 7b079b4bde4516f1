"""Search-space files: what is accepted, what is refused and how, what is suggested."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from tune_srs.config.settings import TrialConfig
from tune_srs.errors import ConfigError
from tune_srs.space.space import Space

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


def space_of(params: dict[str, Any], **sections: Any) -> Space:
    return Space.from_dict({"params": params} | sections, "space.yaml")


LR = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
POSITIVES = {"type": "categorical", "choices": [1, 5]}
RELEVANCE = {
    "type": "categorical",
    "choices": ["fixed", "power"],
    "when": {"loss.num_positives": [5]},
}
RATE = {"type": "float", "low": 0.5, "high": 2.0, "when": {"loss.relevance": ["power"]}}
CONDITIONAL = {"loss.num_positives": POSITIVES, "loss.relevance": RELEVANCE, "loss.rate": RATE}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_of_the_repository_is_valid_and_round_trips(path: Path) -> None:
    space = Space.from_yaml(path)
    assert Space.from_dict(space.to_dict(), "again") == space


def test_the_paper_grid_has_every_relevance_with_every_number_of_positives_once() -> None:
    (path,) = (path for path in SPACES if path.stem == "paper-grid")
    points = Space.from_yaml(path).points()
    pairs = {(point["loss.relevance"], point["loss.num_positives"]) for point in points}
    relevances = ("fixed", "linear", "power", "exponential")
    assert len(points) == Space.from_yaml(path).trials == 24
    assert pairs == {(name, count) for name in relevances for count in (1, 2, 3, 4, 5, 10)}


def test_a_grid_skips_what_is_inactive() -> None:
    params = {name: CONDITIONAL[name] for name in ("loss.num_positives", "loss.relevance")}
    space = space_of(params, search={"sampler": {"type": "grid"}})
    assert space.points() == [
        {"loss.num_positives": 1},
        {"loss.num_positives": 5, "loss.relevance": "fixed"},
        {"loss.num_positives": 5, "loss.relevance": "power"},
    ]


def test_optuna_gets_conditional_parameters_only_where_they_are_active() -> None:
    space = space_of(CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        values = space.suggest(study.ask())
        assert ("loss.relevance" in values) == (values["loss.num_positives"] == 5)
        assert ("loss.rate" in values) == (values.get("loss.relevance") == "power")
        assert isinstance(space.config(values), TrialConfig)
        seen.add(tuple(values))
    assert len(seen) == 3


def test_a_configuration_is_defaults_then_fixed_then_suggested() -> None:
    space = space_of({"train.lr": LR}, fixed={"model.hidden_units": 32, "train.batch_size": "16"})
    config = space.config({"train.lr": 0.005})
    assert (config.model.hidden_units, config.train.batch_size, config.train.lr) == (32, 16, 0.005)
    assert config.model.num_blocks == TrialConfig().model.num_blocks


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no metric": ({"params": {"train.lr": LR}, "search": {"metric": []}}, "metric: expected one"),
    "a metric twice": (
        {"params": {"train.lr": LR}, "search": {"metric": ["val/ndcg@10", "val/ndcg@10"]}},
        "metric: expected one name or several different",
    ),
    "a mode too many": (
        {"params": {"train.lr": LR}, "search": {"mode": ["max", "min"]}},
        "got 2 for 1 metrics",
    ),
    "time first": (
        {"params": {"train.lr": LR}, "search": {"metric": "time/train_s", "mode": "min"}},
        "put it after another",
    ),
    "cmaes for two metrics": (
        {
            "params": {"train.lr": LR},
            "search": {"metric": ["val/ndcg@10", "val/hr@10"], "sampler": "cmaes"},
        },
        "cmaes optimises one metric only",
    ),
    "a budget without a unit": (
        {"params": {"train.lr": LR}, "search": {"time_budget": "90"}},
        "such as 90s, 45m or 2h30m",
    ),
    "a negative budget": (
        {"params": {"train.lr": LR}, "search": {"time_budget": "-2h"}},
        "such as 90s, 45m or 2h30m",
    ),
    "no patience": ({"params": {"train.lr": LR}, "search": {"patience": 0}}, "patience"),
    "another scheduler's option": (
        {"params": {"train.lr": LR}, "search": {"scheduler": {"type": "none", "brackets": 2}}},
        "unknown key search.scheduler.brackets, did you mean",
    ),
    "a misspelt option of a sampler": (
        {"params": {"train.lr": LR}, "search": {"sampler": {"type": "tpe", "startup": 3}}},
        "unknown key search.sampler.startup, did you mean search.sampler.startup_trials?",
    ),
    "first points of a grid": (
        {
            "params": {"loss.num_positives": {"type": "categorical", "choices": [1, 2]}},
            "search": {"sampler": "grid"},
            "first": [{"loss.num_positives": 1}],
        },
        "a grid runs every point anyway",
    ),
    "misspelt parameter": ({"params": {"train.lrr": LR}}, "did you mean train.lr?"),
    "parameter without its section": ({"params": {"lr": LR}}, "did you mean train.lr?"),
    "misspelt section": ({"params": {"train.lr": LR}, "fixd": {}}, "did you mean fixed?"),
    "misspelt fixed": (
        {"params": {"train.lr": LR}, "fixed": {"model.hiden_units": 3}},
        "did you mean model.hidden_units?",
    ),
    "misspelt type": ({"params": {"train.lr": LR | {"type": "flaot"}}}, "did you mean float?"),
    "misspelt key of a parameter": (
        {"params": {"train.lr": {"type": "float", "lo": 1, "high": 2}}},
        "unknown key lo, did you mean low?",
    ),
    "a type that is a list": (
        {"params": {"train.lr": LR | {"type": ["float"]}}},
        "did you mean float?",
    ),
    "a choice twice": (
        {"params": {"loss.num_positives": {"type": "categorical", "choices": [1, 2, 1]}}},
        "choices must differ",
    ),
    "no type": ({"params": {"train.lr": {"low": 1, "high": 2}}}, "params.train.lr.type"),
    "low above high": (
        {"params": {"train.lr": LR | {"low": 1.0}}},
        "low <= high must hold, but got low=1.0, high=0.01",
    ),
    "log from zero": ({"params": {"train.lr": LR | {"low": 0}}}, "low > 0 must hold with log"),
    "log and step": ({"params": {"train.lr": LR | {"step": 0.1}}}, "exclude each other"),
    "empty choices": (
        {"params": {"loss.num_positives": {"type": "categorical", "choices": []}}},
        "params.loss.num_positives: choices",
    ),
    "invalid choice": (
        {"params": {"loss.relevance": {"type": "categorical", "choices": ["fixed", "quadratic"]}}},
        "quadratic",
    ),
    "invalid range": ({"params": {"model.dropout": {"type": "float", "low": 0, "high": 2}}}, "2"),
    "parent below": (
        {"params": {"loss.relevance": RELEVANCE, "loss.num_positives": POSITIVES}},
        "loss.num_positives is below declared; declare it in params, above loss.relevance",
    ),
    "parent missing": ({"params": {"loss.relevance": RELEVANCE}}, "declare it in params"),
    "parent never so": (
        {
            "params": {
                "loss.num_positives": POSITIVES,
                "loss.relevance": RELEVANCE | {"when": {"loss.num_positives": [7]}},
            }
        },
        "loss.num_positives is never 7",
    ),
    "without the condition it needs": (
        {
            "params": {"loss.relevance": {"type": "categorical", "choices": ["fixed", "power"]}}
            | {"loss.rate": {"type": "float", "low": 0.5, "high": 2.0}}
        },
        "rate has no effect on relevance fixed or linear",
    ),
    "nothing to search": ({"params": {}}, "nothing to search"),
    "no params": ({}, "params: Field required"),
    "fixed and searched": (
        {"params": {"train.lr": LR}, "fixed": {"train.lr": 0.1}},
        "both fixed and searched",
    ),
    "the data searched": (
        {"params": {"data.num_futures": {"type": "int", "low": 1, "high": 2}}},
        "cannot be searched",
    ),
    "the metric's own settings searched": (
        {"params": {"evaluation.seed": {"type": "int", "low": 1, "high": 2}}},
        "cannot be searched",
    ),
    "unknown metric": (
        {"params": {"train.lr": LR}, "search": {"metric": "val/ndgc_rel@10"}},
        "did you mean val/ndcg_rel@10?",
    ),
    "the test as metric": (
        {"params": {"train.lr": LR}, "search": {"metric": "test/ndcg@10"}},
        "unknown metric test/ndcg@10, did you mean val/",
    ),
    "unknown cutoff": (
        {"params": {"train.lr": LR}, "search": {"metric": "val/ndcg@7"}},
        "unknown metric val/ndcg@7",
    ),
    "unknown scheduler": (
        {"params": {"train.lr": LR}, "search": {"scheduler": {"type": "ash"}}},
        "search.scheduler: type must be one of",
    ),
    "no trials": ({"params": {"train.lr": LR}, "search": {"trials": 0}}, "search.trials"),
    "grid of a range": (
        {"params": {"train.lr": LR}, "search": {"sampler": {"type": "grid"}}},
        "a grid needs categorical parameters",
    ),
    "a first point of an unknown parameter": (
        {"params": {"train.lr": LR}, "first": [{"train.seed": 1}]},
        "first, entry 1: unknown key train.seed",
    ),
    "a first point outside": (
        {"params": {"train.lr": LR}, "first": [{"train.lr": 1.0}]},
        "train.lr=1.0 lies outside its distribution",
    ),
    "a first point inactive": (
        {"params": CONDITIONAL, "first": [{"loss.num_positives": 1, "loss.rate": 1.0}]},
        "loss.rate is inactive here",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_spaces_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Space.from_dict(values, "space.yaml")
    assert message in str(refused.value)
    assert str(refused.value).startswith("space.yaml: ")
    assert "\n" not in str(refused.value)


def test_a_grid_takes_no_number_of_trials() -> None:
    (path,) = (path for path in SPACES if path.stem == "paper-grid")
    with pytest.raises(ConfigError, match="leave out --num-trials"):
        Space.from_yaml(path, search={"trials": 3})


def test_where_a_run_ends_is_not_for_trials() -> None:
    params = {"train.lr": {"type": "float", "low": 0.1, "high": 1.0}}
    with pytest.raises(ConfigError, match=r"train\.last_epoch is for a single run"):
        Space.from_dict({"fixed": {"train.last_epoch": 3}, "params": params}, "space")


def test_only_what_a_user_brings_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed: list[str] = []
    monkeypatch.setattr(Space, "rehearse", lambda self, source: rehearsed.append(source))
    space = Space.from_dict({"params": CONDITIONAL}, "brought")
    assert Space.parse(space.to_dict(), "kept") == space
    assert rehearsed == ["brought"]
