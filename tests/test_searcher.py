"""The searcher alone, driven as Ray Tune drives it."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tune_srs.searcher import OptunaSearcher, write_study
from tune_srs.space import Space

METRIC = "val/ndcg_rel@10"


def space_with(**search: Any) -> Space:
    params = {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}}
    baselines = [{"train.lr": 0.002}]
    return Space.from_dict({"params": params, "search": search, "baselines": baselines}, "space")


def result(epoch: int, value: float, finished: bool = False) -> dict[str, Any]:
    return {"epoch": epoch, METRIC: value, "finished": finished}


def suggested(searcher: OptunaSearcher, trial_id: str) -> dict[str, Any]:
    suggestion = searcher.suggest(trial_id)
    assert suggestion is not None
    return suggestion


def told(searcher: OptunaSearcher) -> list[optuna.trial.FrozenTrial]:
    return searcher.study.trials


def test_baselines_come_first_and_values_are_flat() -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
    assert searcher.suggest("a") == {"trial": 0, "train.lr": 0.002}
    second = suggested(searcher, "b")
    assert second["trial"] == 1
    assert 0.001 <= second["train.lr"] <= 0.01


def test_no_more_are_suggested_than_run_at_once() -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
    assert searcher.suggest("a")
    assert searcher.suggest("b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", result(1, 0.1, finished=True))
    assert searcher.suggest("c")


def test_a_finished_trial_is_complete_with_its_last_value() -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.1))
    searcher.on_trial_complete("a", result(2, 0.3, finished=True))
    (trial,) = told(searcher)
    assert trial.state == TrialState.COMPLETE
    assert trial.value == 0.3
    assert trial.intermediate_values == {1: 0.1, 2: 0.3}


def test_a_stopped_trial_is_pruned_with_all_its_reports() -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
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
        ({"epoch": 2}, False),
    ],
)
def test_what_gave_no_value_has_failed_and_runs_no_longer(
    last: dict[str, Any] | None, error: bool
) -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, math.nan))
    searcher.on_trial_complete("a", last, error=error)
    assert [trial.state for trial in told(searcher)] == [TrialState.FAIL]


def test_it_goes_on_after_a_restore(tmp_path: Path) -> None:
    searcher = OptunaSearcher(space_with(), seed=0, at_once=2)
    for name in ("a", "b"):
        searcher.suggest(name)
    searcher.on_trial_result("b", result(1, 0.2))
    searcher.save(str(tmp_path / "state"))

    restored = OptunaSearcher(space_with(), seed=5, at_once=2)
    restored.restore(str(tmp_path / "state"))
    restored.on_trial_result("b", result(1, 0.2))  # a resumed trial repeats an epoch
    restored.on_trial_complete("b", result(2, 0.4, finished=True))
    assert suggested(restored, "c")["trial"] == 2
    assert [trial.state for trial in told(restored)] == [
        TrialState.RUNNING,
        TrialState.COMPLETE,
        TrialState.RUNNING,
    ]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_decides_what_is_proposed(sampler: str) -> None:
    def proposals(seed: int) -> list[Any]:
        space = space_with(sampler={"type": sampler, "startup_trials": 2})
        searcher = OptunaSearcher(space, seed, at_once=2)
        values = []
        for number in range(6):
            values.append(suggested(searcher, str(number))["train.lr"])
            searcher.on_trial_complete(str(number), result(1, values[-1], finished=True))
        return values

    assert proposals(0) == proposals(0)
    assert proposals(0) != proposals(1)


def test_the_study_is_written_as_sqlite_in_one_step(tmp_path: Path) -> None:
    searcher = OptunaSearcher(space_with(mode="max"), seed=0, at_once=2)
    for name, finished in (("a", True), ("b", False)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, result(3, 0.1, finished=finished))
    path = tmp_path / "run" / "study.db"
    path.parent.mkdir()
    for _ in range(2):  # the second replaces the first
        write_study(searcher.study, path)
    assert [file.name for file in path.parent.iterdir()] == ["study.db"]
    study = optuna.load_study(study_name="run", storage=f"sqlite:///{path}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert study.best_value == 0.1
