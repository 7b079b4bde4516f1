"""Who proposes configurations: Optuna's samplers by name, each of them made anew for every trial.

A sampler is seeded by the search's seed and the trial's number, so that what is proposed depends on
the trials so far only, and not on whether the search was interrupted in between.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from tune_srs.space.search import CMAESSettings, GPSettings, QMCSettings, TPESettings
from tune_srs.space.space import Space

MakeSampler = Callable[[int], BaseSampler]


def make_sampler(space: Space, seed: int) -> MakeSampler:
    """Trial number → the sampler that proposes it."""
    settings = space.search.sampler

    def make(number: int) -> BaseSampler:
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        match settings:
            case TPESettings():
                return TPESampler(
                    seed=own_seed,
                    n_startup_trials=settings.startup_trials,
                    multivariate=settings.multivariate,
                    group=settings.group,
                    constant_liar=settings.constant_liar,
                )
            case GPSettings():
                return GPSampler(
                    seed=own_seed,
                    n_startup_trials=settings.startup_trials,
                    warn_independent_sampling=False,
                )
            case CMAESSettings():
                return CmaEsSampler(
                    seed=own_seed,
                    n_startup_trials=settings.startup_trials,
                    warn_independent_sampling=False,
                )
            case QMCSettings():
                return SobolSampler(list(space.params), seed, number)
            case _:  # of a grid every point is enqueued, so none is left to sample
                return RandomSampler(seed=own_seed)

    def quietly(number: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(number)

    return quietly


class SobolSampler(BaseSampler):
    """Trial i gets point i of a scrambled Sobol sequence with a dimension a parameter.

    Optuna's own QMC sampler draws categorical and conditional parameters independently, and keeps
    its place in the sequence in the study; here the place is the trial's number.
    """

    def __init__(self, names: Sequence[str], seed: int, place: int) -> None:
        """`place`: of the study's first trial in the sequence."""
        self._dimensions = {name: place for place, name in enumerate(names)}
        self._seed, self._place = seed, place

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        from scipy.stats import qmc  # half a second, which other samplers need not wait

        sequence = qmc.Sobol(len(self._dimensions), rng=self._seed)
        if place := self._place + trial.number:  # not even by none, says scipy, before the first
            sequence.fast_forward(place)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The balance properties of Sobol")
            point = sequence.random(1)[0]
        return value_at(float(point[self._dimensions[param_name]]), param_distribution)


def value_at(share: float, distribution: BaseDistribution) -> Any:
    """The value below which `share` (0 ≤ share < 1) of the distribution lies."""
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[int(share * len(distribution.choices))]
        case FloatDistribution(log=True):
            low, high = math.log(distribution.low), math.log(distribution.high)
            return min(math.exp(low + share * (high - low)), distribution.high)
        case FloatDistribution(step=None):
            return distribution.low + share * (distribution.high - distribution.low)
        case FloatDistribution(step=float(step)):
            steps = round((distribution.high - distribution.low) / step)
            return distribution.low + int(share * (steps + 1)) * step
        case IntDistribution(log=True):
            low, high = math.log(distribution.low - 0.5), math.log(distribution.high + 0.5)
            value = round(math.exp(low + share * (high - low)))
            return min(max(value, distribution.low), distribution.high)
        case IntDistribution():
            steps = (distribution.high - distribution.low) // distribution.step
            return distribution.low + int(share * (steps + 1)) * distribution.step
        case _:
            raise TypeError(f"unknown distribution {distribution}")
