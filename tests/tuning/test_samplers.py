"""Samplers by name."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tune_srs.space.space import Space
from tune_srs.tuning.samplers import make_sampler, value_at

PARAMS = {
    "train.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.8, "step": 0.2},
    "model.num_blocks": {"type": "int", "low": 1, "high": 3},
    "loss.num_positives": {"type": "categorical", "choices": [1, 2, 3, 5]},
    "loss.relevance": {
        "type": "categorical",
        "choices": ["linear", "power"],
        "when": {"loss.num_positives": [2, 3, 5]},
    },
    "loss.rate": {
        "type": "float",
        "low": 0.1,
        "high": 2.0,
        "log": True,
        "when": {"loss.relevance": ["power"]},
    },
}


def space_with(sampler: dict[str, Any]) -> Space:
    return Space.from_dict({"params": PARAMS, "search": {"sampler": sampler}}, "space")


def searched(sampler: dict[str, Any], trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """What is proposed where a learning rate near 0.001 is best."""
    space = space_with(sampler)
    make = make_sampler(space, seed)
    study = optuna.create_study(direction="maximize")
    proposed = []
    for number in range(trials):
        study.sampler = make(number)
        trial = study.ask()
        values = space.suggest(trial)
        space.config(values)  # valid
        proposed.append(values)
        study.tell(trial, -((math.log10(values["train.lr"]) + 3) ** 2))
    return proposed


SAMPLERS: list[dict[str, Any]] = [
    {"type": "tpe", "startup_trials": 5},
    {"type": "tpe", "startup_trials": 5, "group": False, "multivariate": False},
    {"type": "tpe", "startup_trials": 5, "constant_liar": False},
    {"type": "gp", "startup_trials": 5},
    {"type": "cmaes", "startup_trials": 5},
    {"type": "random"},
    {"type": "qmc"},
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: str(sampler["type"]))
def test_each_proposes_valid_points_that_its_seed_decides(sampler: dict[str, Any]) -> None:
    proposed = searched(sampler, 8)
    assert proposed == searched(sampler, 8)
    assert proposed != searched(sampler, 8, seed=1)
    assert len({point["train.lr"] for point in proposed}) == 8


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_those_that_learn_come_nearer(kind: str) -> None:
    distances = [
        abs(math.log10(point["train.lr"]) + 3)
        for point in searched({"type": kind, "startup_trials": 10}, 20 if kind == "gp" else 60)
    ]
    assert sum(distances[-10:]) / 10 < 0.8 * sum(distances[:10]) / 10


def test_quasi_random_points_are_even_in_every_parameter() -> None:
    points = searched({"type": "qmc"}, 64)
    for choice in (1, 2, 3, 5):
        assert sum(point["loss.num_positives"] == choice for point in points) == 16
    below = sum(point["train.lr"] < 1e-3 for point in points)
    assert below == 32
    active = [point for point in points if "loss.rate" in point]
    assert 16 <= len(active) <= 32  # 3/4 have a relevance, half of them a rate


def test_group_needs_multivariate() -> None:
    with pytest.raises(Exception, match="group needs multivariate"):
        space_with({"type": "tpe", "multivariate": False})


@given(
    share=st.floats(0, 1, exclude_max=True),
    distribution=st.sampled_from(
        [
            FloatDistribution(0.1, 5.0),
            FloatDistribution(0.1, 5.0, log=True),
            FloatDistribution(0.0, 1.0, step=0.25),
            IntDistribution(1, 9),
            IntDistribution(1, 9, step=2),
            IntDistribution(1, 100, log=True),
            CategoricalDistribution(["a", "b", None]),
        ]
    ),
)
def test_a_share_of_a_distribution_lies_in_it(share: float, distribution: BaseDistribution) -> None:
    value = value_at(share, distribution)
    assert distribution._contains(distribution.to_internal_repr(value))


def test_every_value_of_a_discrete_distribution_gets_the_same_share() -> None:
    shares = [(place + 0.5) / 1000 for place in range(1000)]
    for distribution, count in (
        (IntDistribution(1, 9, step=2), 5),
        (FloatDistribution(0.0, 1.0, step=0.25), 5),
        (CategoricalDistribution([1, 2, 3, 4]), 4),
    ):
        values = [value_at(share, distribution) for share in shares]
        assert len(set(values)) == count
        assert all(values.count(value) == 1000 / count for value in set(values))
