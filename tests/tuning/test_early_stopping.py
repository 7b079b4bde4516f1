"""Early stopping, held to Ray's own schedulers."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from tune_srs.space.space import Space
from tune_srs.tuning.early_stopping import MedianStopping, Never, Rule, SuccessiveHalving, rule

EPOCHS = 12


class RayController:
    """What Ray's schedulers ask of Tune: whether others wait for a place."""

    def get_live_trials(self) -> list[Any]:
        return []


class RayTrial:
    """What Ray's schedulers ask of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


def decisions(seed: int, stops: Callable[[int, int, float], bool]) -> list[tuple[int, int, bool]]:
    """A search of eight trials, three at a time: each report and whether it stopped its trial."""
    dice, made = random.Random(seed), []
    waiting, running = list(range(8)), dict[int, int]()
    while waiting or running:
        while waiting and len(running) < 3:
            running[waiting.pop(0)] = 0
        trial = dice.choice(list(running))
        running[trial] += 1
        stopped = stops(trial, running[trial], round(dice.random(), 2))
        made.append((trial, running[trial], stopped))
        if stopped or running[trial] == EPOCHS:
            del running[trial]
    return made


def as_ray_does(scheduler: Any) -> Callable[[int, int, float], bool]:
    trials: dict[int, RayTrial] = {}

    def stops(trial: int, epoch: int, value: float) -> bool:
        if trial not in trials:
            trials[trial] = RayTrial(trial)
            scheduler.on_trial_add(None, trials[trial])
        result = {"epoch": epoch, "value": value}
        decision = scheduler.on_trial_result(RayController(), trials[trial], result)
        return bool(decision == TrialScheduler.STOP)

    return stops


@given(seed=st.integers(0, 10**6), grace=st.integers(1, 4), factor=st.integers(2, 4))
def test_successive_halving_decides_as_ray_s_asha(seed: int, grace: int, factor: int) -> None:
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode="max",
        grace_period=grace,
        reduction_factor=factor,
        max_t=10**6,  # a trial's last epoch is nobody's to stop
    )
    ours = decisions(seed, SuccessiveHalving(grace, factor).stops)
    assert ours == decisions(seed, as_ray_does(scheduler))


@given(seed=st.integers(0, 10**6), grace=st.integers(1, 4), least=st.integers(1, 4))
def test_median_stopping_decides_as_ray_s(seed: int, grace: int, least: int) -> None:
    scheduler = MedianStoppingRule(
        time_attr="epoch",
        metric="value",
        mode="max",
        grace_period=grace,
        min_samples_required=least,
        hard_stop=True,
    )
    ours = decisions(seed, MedianStopping(grace, least).stops)
    assert ours == decisions(seed, as_ray_does(scheduler))


def test_worked_by_hand() -> None:
    halving = SuccessiveHalving(grace_period=2, reduction_factor=2)
    assert not halving.stops(0, 1, 0.0)  # no rung
    assert not halving.stops(0, 2, 0.5)  # the first to come
    assert not halving.stops(1, 2, 0.7)
    assert halving.stops(2, 2, 0.59)  # below the median of 0.5 and 0.7
    assert not halving.stops(1, 4, 0.1)  # the first on the second rung
    assert halving.stops(2, 2, 0.59)  # the same question again: the same answer


@pytest.mark.parametrize(
    "make",
    [
        lambda: SuccessiveHalving(2, 2),
        lambda: SuccessiveHalving(1, 3, brackets=3),
        lambda: MedianStopping(2, 2),
    ],
)
@given(seed=st.integers(0, 10**6))
def test_fed_again_it_stands_where_it_stood(make: Callable[[], Rule], seed: int) -> None:
    made: list[tuple[int, int, float]] = []
    first = make()

    def stops(trial: int, epoch: int, value: float) -> bool:
        again = make()
        for other in sorted(made):  # by trial, as the journal's records are
            again.stops(*other)
        made.append((trial, epoch, value))
        stopped = first.stops(trial, epoch, value)
        assert again.stops(trial, epoch, value) == stopped
        return stopped

    decisions(seed, stops)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("asha", SuccessiveHalving),
        ("hyperband", SuccessiveHalving),
        ("median", MedianStopping),
        ("none", Never),
    ],
)
def test_a_space_names_its_rule(kind: str, expected: type[Rule]) -> None:
    params = {"train.lr": {"type": "categorical", "choices": [0.1]}}
    space = Space.from_dict({"params": params, "search": {"scheduler": {"type": kind}}}, "space")
    assert isinstance(rule(space.search.scheduler), expected)
    assert not Never().stops(0, 1, -1.0)


def test_hyperband_s_brackets_differ_in_their_grace_period() -> None:
    halving = SuccessiveHalving(grace_period=1, reduction_factor=3, brackets=3)
    brackets = [halving.bracket(trial) for trial in range(300)]
    assert brackets == [halving.bracket(trial) for trial in range(300)]
    counts = [brackets.count(number) for number in range(3)]
    assert counts[0] > counts[1] > counts[2] > 0
    for number, grace_period in enumerate((1, 3, 9)):
        good, poor, *_ = (trial for trial, own in enumerate(brackets) if own == number)
        stopped = []
        for epoch in range(1, 10):
            halving.stops(good, epoch, 1.0)
            stopped.append(halving.stops(poor, epoch, 0.0))
        assert stopped.index(True) + 1 == grace_period
