"""The searcher alone, driven as Ray Tune drives it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.optuna_study import new_study, study_of, write_study
from tune_srs.space.objective import Mode, Objective
from tune_srs.space.space import Space
from tune_srs.tuning.messages import EpochDone, TrialFailed, to_result
from tune_srs.tuning.samplers import make_sampler
from tune_srs.tuning.searcher import OptunaSearcher

METRIC = "val/ndcg_rel@10"
TIME = "time/train_s"
SPACE = Space.from_dict(
    {"params": {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}}}, "space"
)
FIRST = {"train.lr": 0.002}
FAILED = to_result(TrialFailed("out of memory", "Traceback"))


def searcher_with(
    metrics: Sequence[str] = (METRIC,),
    modes: Sequence[Mode] = ("max",),
    sampler: Callable[[int], BaseSampler] = lambda number: RandomSampler(seed=number),
    at_once: float = math.inf,
    past: Sequence[TrialRecord] = (),
) -> OptunaSearcher:
    objectives = [Objective(*pair) for pair in zip(metrics, modes, strict=True)]
    study = study_of(past, SPACE) if past else new_study(objectives)
    return OptunaSearcher(
        study,
        SPACE.suggest,
        objectives,
        sampler,
        points=[FIRST],
        at_once=lambda: at_once,
        unfinished={one.number: one.reports for one in past if not one.ended},
    )


def result(
    epoch: int, value: float, finished: bool = False, seconds: float = 1.0
) -> dict[str, Any]:
    return to_result(EpochDone(epoch, {METRIC: value, TIME: seconds}, finished))


def suggested(searcher: OptunaSearcher, trial_id: str) -> dict[str, Any]:
    suggestion = searcher.suggest(trial_id)
    assert suggestion is not None
    return suggestion


def told(searcher: OptunaSearcher) -> list[optuna.trial.FrozenTrial]:
    return searcher.study.trials


def test_points_come_first_and_values_are_flat() -> None:
    searcher = searcher_with()
    assert searcher.suggest("a") == {"trial": 0, "train.lr": 0.002}
    second = suggested(searcher, "b")
    assert second["trial"] == 1
    assert 0.001 <= second["train.lr"] <= 0.01


def test_no_more_are_suggested_than_run_at_once() -> None:
    searcher = searcher_with(at_once=2)
    assert searcher.suggest("a")
    assert searcher.suggest("b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", result(1, 0.1, finished=True))
    assert searcher.suggest("c")


@pytest.mark.parametrize(("mode", "best"), [("max", 0.4), ("min", 0.1)])
def test_a_finished_trial_is_complete_with_its_best_value(mode: Mode, best: float) -> None:
    searcher = searcher_with(modes=[mode])
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.1))
    searcher.on_trial_result("a", result(2, 0.4))
    searcher.on_trial_complete("a", result(3, 0.3, finished=True))
    (trial,) = told(searcher)
    assert trial.state == TrialState.COMPLETE
    assert trial.value == best
    assert trial.intermediate_values == {1: 0.1, 2: 0.4, 3: 0.3}


def test_a_stopped_trial_is_pruned_with_all_its_reports() -> None:
    searcher = searcher_with()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.1))
    searcher.on_trial_complete("a", result(2, 0.05))  # the report that stopped it
    (trial,) = told(searcher)
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.1, 2: 0.05}


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (None, True),
        (result(2, 0.2), True),
        (None, False),
        (result(2, math.nan), False),
        (result(2, math.inf, finished=True), False),
        (to_result(EpochDone(2, {}, finished=True)), False),
        (FAILED, False),
    ],
)
def test_what_gave_no_value_has_failed_and_runs_no_longer(
    last: dict[str, Any] | None, error: bool
) -> None:
    searcher = searcher_with(at_once=1)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, math.nan))
    searcher.on_trial_complete("a", last, error=error)
    assert [trial.state for trial in told(searcher)] == [TrialState.FAIL]
    assert searcher.suggest("b")


def test_an_error_may_be_reported_before_the_end() -> None:
    searcher = searcher_with()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5))
    searcher.on_trial_result("a", FAILED)
    searcher.on_trial_complete("a", FAILED)
    assert [trial.state for trial in told(searcher)] == [TrialState.FAIL]


def test_of_two_metrics_the_first_decides_which_step_counts() -> None:
    searcher = searcher_with(metrics=[METRIC, TIME], modes=["max", "min"])
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.3, seconds=5.0))
    searcher.on_trial_complete("a", result(2, 0.2, finished=True))
    searcher.suggest("b")
    searcher.on_trial_complete("b", result(1, 0.1))  # stopped early
    first, second = told(searcher)
    assert (first.state, first.values) == (TrialState.COMPLETE, [0.3, 5.0])
    assert second.state == TrialState.PRUNED
    assert searcher.study.directions == [
        optuna.study.StudyDirection.MAXIMIZE,
        optuna.study.StudyDirection.MINIMIZE,
    ]


PAST = [
    TrialRecord(0, FIRST, 0.0, "complete", reports=[(1, (0.1,)), (2, (0.4,)), (3, (0.3,))]),
    TrialRecord(1, {"train.lr": 0.004}, 0.0, reports=[(1, (0.2,))]),
    TrialRecord(2, {"train.lr": 0.005}, 0.0, "stopped", reports=[(1, (0.1,)), (2, (0.05,))]),
    TrialRecord(3, {"train.lr": 0.006}, 0.0, "failed"),
    TrialRecord(4, {"train.lr": 0.007}, 0.0),
]


def test_a_new_session_goes_on_with_the_trials_that_had_not_ended() -> None:
    searcher = searcher_with(past=PAST)
    assert searcher.suggest("a") == {"trial": 1, "train.lr": 0.004}
    assert searcher.suggest("b") == {"trial": 4, "train.lr": 0.007}
    assert suggested(searcher, "c")["trial"] == 5
    searcher.on_trial_result("a", result(1, 0.2))  # a resumed trial repeats its last epoch
    searcher.on_trial_complete("a", result(2, 0.1, finished=True))
    trials = told(searcher)
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.RUNNING,
    ]
    assert (trials[1].value, trials[1].intermediate_values) == (0.2, {1: 0.2, 2: 0.1})


def test_what_is_told_of_past_trials_is_what_was_told_at_the_time() -> None:
    live, restored = searcher_with(), searcher_with(past=PAST[:1])
    live.suggest("a")
    for epoch, (value,) in PAST[0].reports[:-1]:
        live.on_trial_result("a", result(epoch, value))
    live.on_trial_complete("a", result(3, 0.3, finished=True))
    live.suggest("b")
    live.on_trial_result("b", result(1, 0.1))
    live.on_trial_complete("b", result(2, 0.05))
    values = told(live)[1].params
    pruned = TrialRecord(1, values, 0.0, "stopped", reports=PAST[2].reports)
    restored = searcher_with(past=[PAST[0], pruned])
    for one, other in zip(told(live), told(restored), strict=True):
        assert one.state == other.state
        assert one.params == other.params
        assert one.distributions == other.distributions
        assert one.values == other.values
        assert one.intermediate_values == other.intermediate_values


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_a_new_session_proposes_what_the_old_one_would_have(sampler: str) -> None:
    settings: dict[str, Any] = {"type": sampler}
    if sampler in ("tpe", "gp"):
        settings["startup_trials"] = 2
    space = Space.from_dict(SPACE.to_dict() | {"search": {"sampler": settings}}, "space")
    samplers = make_sampler(space, seed=3)
    undisturbed = searcher_with(sampler=samplers)
    past: list[TrialRecord] = []
    for number in range(6):
        values = suggested(undisturbed, str(number))
        resumed = searcher_with(sampler=samplers, past=past)
        assert suggested(resumed, "x") == values
        rate = {"train.lr": values["train.lr"]}
        undisturbed.on_trial_complete(str(number), result(1, rate["train.lr"], finished=True))
        reports: list[tuple[int, tuple[float, ...]]] = [(1, (rate["train.lr"],))]
        past.append(TrialRecord(number, rate, 0.0, "complete", reports=reports))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_decides_what_is_proposed(sampler: str) -> None:
    def proposals(seed: int) -> list[Any]:
        space = Space.from_dict(SPACE.to_dict() | {"search": {"sampler": {"type": sampler}}}, "s")
        searcher = searcher_with(sampler=make_sampler(space, seed))
        values = []
        for number in range(6):
            values.append(suggested(searcher, str(number))["train.lr"])
            searcher.on_trial_complete(str(number), result(1, values[-1], finished=True))
        return values

    assert proposals(0) == proposals(0)
    assert proposals(0) != proposals(1)


def test_the_study_is_written_as_sqlite_in_one_step(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        write_study(PAST, SPACE, tmp_path / "optuna.db", "run")
    assert [file.name for file in tmp_path.iterdir()] == ["optuna.db"]
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = optuna.load_study(study_name="run", storage=storage)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    ]
    assert study.best_value == 0.4
    assert study.trials[1].intermediate_values == {1: 0.1, 2: 0.05}
    storage.engine.dispose()
