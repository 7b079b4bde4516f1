"""Early stopping, held to the paper and to Ray's scheduler."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from tune_srs.runs.journal import TrialRecord
from tune_srs.space.space import Space
from tune_srs.tuning.early_stopping import (
    Judge,
    MedianStopping,
    Never,
    Rule,
    SuccessiveHalving,
    Verdict,
    rule,
)
from tune_srs.tuning.messages import EpochDone, TrialFailed

EPOCHS = 12


class RayController:
    """What Ray's schedulers ask of Tune: whether others wait for a place."""

    def get_live_trials(self) -> list[Any]:
        return []


class RayTrial:
    """What Ray's schedulers ask of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


def decisions(
    seed: int, takes: Callable[[int, int, float], Verdict]
) -> list[tuple[int, int, Verdict]]:
    """A search of eight trials, three at a time: each report, and what became of its trial."""
    dice, made = random.Random(seed), []
    waiting, running = list(range(8)), dict[int, int]()
    while waiting or running:
        while waiting and len(running) < 3:
            running[waiting.pop(0)] = 0
        trial = dice.choice(list(running))
        running[trial] += 1
        verdict = takes(trial, running[trial], round(dice.random(), 2))
        made.append((trial, running[trial], verdict))
        if verdict != "go on" or running[trial] == EPOCHS:
            del running[trial]
    return made


def as_ray_does(scheduler: Any) -> Callable[[int, int, float], Verdict]:
    trials: dict[int, RayTrial] = {}

    def takes(trial: int, epoch: int, value: float) -> Verdict:
        if trial not in trials:
            trials[trial] = RayTrial(trial)
            scheduler.on_trial_add(None, trials[trial])
        result = {"epoch": epoch, "value": value}
        decision = scheduler.on_trial_result(RayController(), trials[trial], result)
        return "stop" if decision == TrialScheduler.STOP else "go on"

    return takes


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
    ours = decisions(seed, MedianStopping(grace, least).takes)
    assert ours == decisions(seed, as_ray_does(scheduler))


def test_worked_by_hand() -> None:
    halving = SuccessiveHalving(grace_period=2, reduction_factor=2)
    assert halving.takes(0, 1, 0.0) == "go on"  # no rung
    assert halving.takes(0, 2, 0.5) == "wait"  # half of one trial is none
    assert halving.promoted({0: 2}, at_least_one=False) is None
    assert halving.promoted({0: 2}, at_least_one=True) == 0
    assert halving.takes(1, 2, 0.7) == "go on"  # the better one of two
    assert halving.takes(2, 2, 0.6) == "wait"
    assert halving.takes(3, 2, 0.1) == "wait"  # now two of four pass: trials 1 and 2
    assert halving.promoted({0: 2, 2: 2, 3: 2}, at_least_one=False) == 2
    assert halving.takes(1, 4, 0.2) == "wait"  # alone on the second rung
    assert halving.takes(2, 4, 0.1) == "wait"
    assert halving.promoted({0: 2, 3: 2, 1: 4, 2: 4}, at_least_one=False) == 1  # higher up first
    assert halving.promoted({0: 2, 3: 2, 2: 4}, at_least_one=False) is None
    assert halving.takes(1, 2, 0.7) == "go on"  # the same question again: the same answer


def get_job(
    rungs: dict[int, dict[int, float]], promoted: dict[int, set[int]], factor: int
) -> int | None:
    """Algorithm 2 of arXiv 1810.05934, lines 10 to 19, word by word: the trial to promote."""
    for rung in sorted(rungs, reverse=True):
        ordered = sorted(rungs[rung], key=lambda trial: (-rungs[rung][trial], trial))
        candidates = ordered[: len(ordered) // factor]
        promotable = [trial for trial in candidates if trial not in promoted[rung]]
        if promotable:
            promoted[rung].add(promotable[0])
            return promotable[0]
    return None


@given(seed=st.integers(0, 10**6), grace=st.integers(1, 3), factor=st.integers(2, 4))
def test_successive_halving_promotes_as_in_its_paper(seed: int, grace: int, factor: int) -> None:
    """A worker at a time; what goes on at once is what the paper would promote next."""
    dice, halving = random.Random(seed), SuccessiveHalving(grace, factor)
    rungs: dict[int, dict[int, float]] = {}
    promoted: dict[int, set[int]] = {}
    epochs: dict[int, int] = {}
    waiting: dict[int, int] = {}
    trial = 0
    for _ in range(60):
        epoch = grace if trial not in epochs else epochs[trial] * factor
        epochs[trial], value = epoch, round(dice.random(), 2)
        rungs.setdefault(epoch, {})[trial] = value
        promoted.setdefault(epoch, set())
        verdict = halving.takes(trial, epoch, value)
        expected = get_job(rungs, promoted, factor)
        if verdict == "go on":
            # the paper might take up a trial that waits first; this one would then follow
            while expected not in (None, trial):
                expected = get_job(rungs, promoted, factor)
            assert expected == trial
            continue
        waiting[trial] = epoch
        assert halving.promoted(waiting, at_least_one=False) == expected
        if expected is None:
            trial = len(epochs)  # a new one
        else:
            trial = expected
            del waiting[trial]


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

    def takes(trial: int, epoch: int, value: float) -> Verdict:
        again = make()
        for other in sorted(made):  # by trial, as the journal's records are
            again.takes(*other)
        made.append((trial, epoch, value))
        verdict = first.takes(trial, epoch, value)
        assert again.takes(trial, epoch, value) == verdict
        waiting = dict.fromkeys(range(8), 2)
        for least in (False, True):
            assert again.promoted(waiting, least) == first.promoted(waiting, least)
        return verdict

    decisions(seed, takes)


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
    assert Never().takes(0, 1, -1.0) == "go on"
    assert Never().promoted({0: 1}, at_least_one=True) is None


def records(*given: tuple[str, list[float]]) -> list[TrialRecord]:
    """Of a status and the value of each epoch."""
    return [
        TrialRecord(
            number,
            {"train.lr": 0.1},
            0.0,
            status,  # type: ignore[arg-type]
            reports=[(epoch, (value,)) for epoch, value in enumerate(values, start=1)],
        )
        for number, (status, values) in enumerate(given)
    ]


def space_with(**scheduler: object) -> Space:
    params = {"train.lr": {"type": "categorical", "choices": [0.1]}}
    search = {"metric": "val/ndcg@10", "scheduler": {"type": "asha"} | scheduler}
    return Space.from_dict({"params": params, "search": search}, "space")


def epoch_done(epoch: int, value: float, finished: bool = False) -> EpochDone:
    return EpochDone(epoch, {"val/ndcg@10": value}, finished)


def test_a_trial_that_has_passed_a_rung_is_not_held_there_again() -> None:
    """Its worker repeats the last epoch that it saved."""
    known = records(("waiting", [0.1, 0.9]), ("unfinished", [0.1, 0.2]))
    judge = Judge(space_with(grace_period=2, reduction_factor=2), known)
    assert judge.of(1, epoch_done(2, 0.2)) == "wait"  # noted, but cut before it was judged
    known[1].passed = 2
    assert judge.of(1, epoch_done(2, 0.2)) == "go on"
    assert judge.of(1, epoch_done(3, 0.3)) == "go on"
    assert judge.of(1, epoch_done(4, 0.3, finished=True)) == "go on"
    assert judge.of(1, TrialFailed("reason", "Traceback")) == "go on"


def test_the_worst_of_too_many_that_wait_is_superfluous() -> None:
    waiting = [("waiting", [0.1, 0.5, 0.4, 0.2]), ("waiting", [0.5, 0.4]), ("waiting", [0.5, 0.3])]
    known = records(*waiting, ("complete", [0.9, 0.9]))
    judge = Judge(space_with(grace_period=2, reduction_factor=2, max_waiting=2), known)
    assert judge.waits
    assert judge.superfluous() == 2
    known[2].status = "stopped"
    assert judge.superfluous() is None
    assert not Judge(space_with(type="median", grace_period=2), known).waits


def test_hyperband_s_brackets_differ_in_their_grace_period() -> None:
    halving = SuccessiveHalving(grace_period=1, reduction_factor=3, brackets=3)
    brackets = [halving.bracket(trial) for trial in range(300)]
    assert brackets == [halving.bracket(trial) for trial in range(300)]
    counts = [brackets.count(number) for number in range(3)]
    assert counts[0] > counts[1] > counts[2] > 0
    for number, grace_period in enumerate((1, 3, 9)):
        good, poor, *_ = (trial for trial, own in enumerate(brackets) if own == number)
        verdicts = []
        for epoch in range(1, 10):
            halving.takes(good, epoch, 1.0)
            verdicts.append(halving.takes(poor, epoch, 0.0))
        assert verdicts.index("wait") + 1 == grace_period
