"""A search that had ended goes on. Driven without Ray."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.driver import Killed, killed_at, search
from support.searches import FIXED, METRIC

from tune_srs.errors import ConfigError
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.runs.run import Run
from tune_srs.space.space import Space
from tune_srs.training import loop
from tune_srs.tuning.request import Request

HALVING = {"type": "asha", "grace_period": 1, "reduction_factor": 2}
RATES = {"train.lr": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True}}


def space(trials: int, epochs: int = 4, **changes: Any) -> Space:
    wanted = {"metric": METRIC, "trials": trials, "scheduler": HALVING}
    fixed = FIXED | {"train.max_epochs": epochs} | changes.pop("fixed", {})
    values = {"params": RATES, "search": wanted, "fixed": fixed} | changes
    return Space.from_dict(values, "space")


def repeatable(run: Run) -> pd.DataFrame:
    table = run.trials.drop(columns="seconds")
    return table[[name for name in table if "time/" not in str(name)]]


def test_a_search_in_two_parts_has_the_trials_of_one(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "whole", space(8))
    search(tmp_path / "parts", space(4))
    parts, _ = search(tmp_path / "parts", space(8), extends=True)
    pd.testing.assert_frame_equal(repeatable(parts), repeatable(whole))
    assert not parts.paths.extending.exists()
    assert not list(parts.folder.rglob("last.safetensors"))
    metrics = [json.loads(one.paths.best_metrics.read_text()) for one in (parts, whole)]
    assert metrics[0]["test"] == metrics[1]["test"]
    assert Run(parts.folder).plan.space.trials == 8


def test_killed_while_it_takes_its_trials_up_it_goes_on_like_one_that_was_not(
    tmp_path: Path,
) -> None:
    whole, _ = search(tmp_path / "whole", space(8))
    for number in (0, 1):
        for after in (False, True):
            folder = tmp_path / f"{number}-{after}"
            search(folder, space(4))
            with pytest.MonkeyPatch.context() as monkeypatch:
                killed_at(monkeypatch, number, after)
                with pytest.raises(Killed):
                    search(folder, space(8), extends=True)
            run, _ = search(folder, Run(folder).plan.space)
            pd.testing.assert_frame_equal(repeatable(run), repeatable(whole))


def test_a_better_winner_takes_the_place_of_the_former_which_is_kept(tmp_path: Path) -> None:
    rates = {"train.lr": {"type": "categorical", "choices": [1e-9, 0.01]}}
    first = [{"train.lr": 1e-9}, {"train.lr": 0.01}]
    folder = tmp_path / "run"
    search(folder, space(1, params=rates, first=first))
    run, said = search(folder, space(2, params=rates, first=first), extends=True)
    assert json.loads(run.paths.best_metrics.read_text())["trial"] == 1
    kept = json.loads((folder / "best-1" / "metrics.json").read_text())
    assert kept["trial"] == 0
    assert any("trial 0, is kept in" in line for line in said)
    again, said = search(folder, space(3, params=rates, first=first), extends=True)
    assert "the winner is the same as before" in said
    assert any("every point of the space has been tried" in line for line in said)
    assert not (folder / "best-2").exists()
    assert len(again.trials) == 2


def test_failed_trials_are_tried_again_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    failing = space(2, search={"metric": METRIC, "trials": 2, "scheduler": "none"})
    step, calls = loop._train_epoch, 0

    def unlucky(*given: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("for once")
        return step(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_train_epoch", unlucky)
        run, _ = search(folder, failing)
    assert "failed" in set(run.trials["status"])
    run, _ = search(folder, failing, extends=True, retry_failed=True)
    assert "failed" not in set(run.trials["status"])
    whole, _ = search(tmp_path / "whole", failing)
    assert run.winner is not None
    assert whole.winner is not None
    assert run.value(run.winner) == whole.value(whole.winner)


def stored(**changes: Any) -> Plan:
    return Plan("run", space(4, **changes), 0, Resources())


def asked(
    search: dict[str, Any], fixed: dict[str, Any] | None = None, seed: int | None = None
) -> Request:
    return Request("run", None, fixed or {}, search, seed, {})


def test_limits_grow_and_nothing_else_changes() -> None:
    request = asked({"trials": 9, "time_budget": "2h"}, {"train.max_epochs": 6})
    constant = stored(fixed={"train.schedule": "constant"})
    plan = request.plan(constant)
    assert request.extends
    assert (plan.space.trials, plan.space.search.time_budget) == (9, "2h")
    assert plan.space.base.train.max_epochs == 6
    assert plan.space.params == constant.space.params
    assert not asked({"trials": None}).extends


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asked({"trials": 3}), "the run has 4 already"),
        (asked({"patience": 3}), "keeps its settings"),
        (asked({}, {"train.lr": 0.1}), "keeps its settings"),
        (asked({}, seed=1), "keeps its settings"),
        (asked({}, {"train.max_epochs": 3}), "up to 4 epochs"),
        (asked({}, {"train.max_epochs": 9}), "cannot be compared"),
    ],
)
def test_a_change_that_makes_trials_incomparable_is_refused(request_: Request, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        request_.plan(stored())


def test_what_has_ended_is_resumed_for_a_reason_only(tmp_path: Path) -> None:
    run, _ = search(tmp_path / "run", space(1))
    with pytest.raises(ConfigError, match=r"has ended already.*--num-trials"):
        run.plan.check(run.folder, resume=True)
    run.plan.check(run.folder, resume=True, extends=True)
    RunPaths(run.folder).extending.touch()
    run.plan.check(run.folder, resume=True)
