"""What a search decides by what happens in it: budgets, failures, damage. Driven without Ray."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from support.driver import Killed, killed_at, search
from support.searches import FIXED, METRIC, SPACE, check_study, same_as_trained_here

from tune_srs.errors import DataError, SearchError
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.run import Run
from tune_srs.space.space import Space

NO_STOPPING = {"metric": METRIC, "scheduler": {"type": "none"}}
GRID = {"metric": METRIC, "sampler": {"type": "grid"}}
SEARCH: Any = SPACE["search"]


def space(fixed: Mapping[str, Any] | None = None, **changes: Any) -> Space:
    return Space.from_dict(SPACE | {"fixed": FIXED | dict(fixed or {})} | changes, "space")


def test_each_end_of_a_trial_is_told(tmp_path: Path) -> None:
    run, said = search(tmp_path / "tiny", space())
    assert set(run.trials["status"]) == {"complete", "stopped"}
    assert [line.partition("]")[0] for line in said] == [f"[{n}/5" for n in range(1, 6)]
    check_study(run.folder)


def test_a_search_killed_around_its_waits_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """Before and after every event that has a trial wait, go on or end."""
    halving = {"type": "asha", "grace_period": 1, "reduction_factor": 2}
    promoting = space(
        {"train.max_epochs": 4}, search=SEARCH | {"trials": 5, "scheduler": halving}, first=[]
    )
    whole, _ = search(tmp_path / "whole", promoting)
    events = [json.loads(line) for line in RunPaths(whole.folder).journal.read_text().splitlines()]
    assert {"waits", "end"} < {kind for event in events for kind in event}
    table = whole.trials.drop(columns="seconds")
    kept = [name for name in table if "time/" not in str(name)]
    for number, event in enumerate(events):
        if not {"waits", "end"} & set(event):
            continue
        for after in (False, True):
            folder = tmp_path / f"{number}-{after}"
            with pytest.MonkeyPatch.context() as monkeypatch:
                killed_at(monkeypatch, number, after)
                with pytest.raises(Killed):
                    search(folder, promoting)
            resumed, _ = search(folder, promoting)
            again = resumed.trials.drop(columns="seconds")
            pd.testing.assert_frame_equal(again[kept], table[kept])
            assert not list(folder.rglob("last.safetensors"))


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 1e30]}}
    run, _ = search(tmp_path / "one", space(params=rates, search=GRID, first=[]))
    table = run.trials.sort_values("train.lr")
    assert list(table["status"]) == ["complete", "failed"]
    assert "lower train.lr" in table["reason"].iloc[1]
    check_study(run.folder)


def test_a_space_in_which_everything_fails_stops_early(tmp_path: Path) -> None:
    params = {
        "train.lr": {"type": "float", "low": 1e30, "high": 1e31},
        # several steps per epoch fail in the first, a single one in the second
        "train.batch_size": {"type": "categorical", "choices": [16, 1000]},
    }
    fixed = {name: value for name, value in FIXED.items() if name not in params}
    wanted = NO_STOPPING | {"trials": 500, "sampler": "random"}
    hopeless = Space.from_dict({"fixed": fixed, "params": params, "search": wanted}, "space")
    with pytest.raises(SearchError, match=r"all of 5 trials failed.*lower train.lr.*fix the space"):
        search(tmp_path / "none", hopeless)
    run = Run(tmp_path / "none")
    table = run.trials
    assert len(table) == 5
    assert set(table["status"]) == {"failed"}
    assert table["epochs"].tolist() == (table["train.batch_size"] == 1000).tolist()
    assert not run.paths.best.exists()


def test_a_spent_budget_ends_a_search_and_its_best_epoch_is_exported(tmp_path: Path) -> None:
    endless = space({"train.max_epochs": 100000}, search=NO_STOPPING | {"time_budget": "2h"})
    begun, said = search(tmp_path / "timed", endless, most_messages=5)
    assert "interrupted: 0 of 20 trials have ended" in said[-1]
    path = begun.paths.journal
    lines = path.read_text().splitlines()
    later = json.dumps(json.loads(lines[-1]) | {"at": 2 * 3600})  # as if it had run for two hours
    path.write_text("\n".join([*lines[:-1], later]) + "\n")
    run, said = search(tmp_path / "timed", endless)
    assert "over after 1 trials: the time budget of 2h is spent" in said
    assert set(run.trials["reason"]) == {"the time budget of 2h is spent"}
    assert run.winner is not None
    assert run.best_metrics is not None
    assert run.best_metrics["epoch"] == run.winner.best_epoch
    assert run.best_metrics["validation"]["best"][METRIC] == run.trials[METRIC].max()
    assert list(run.paths.tune.rglob("last.safetensors")) == []
    check_study(run.folder)


def test_patience_ends_a_trial_and_stale_trials_a_search(tmp_path: Path) -> None:
    worn = space(
        {"train.max_epochs": 300},
        search=NO_STOPPING
        | {"sampler": {"type": "random"}, "trials": 500, "patience": 3, "stale_trials": 4},
        params={"train.lr": {"type": "float", "low": 1e-9, "high": 1e-8}},
        first=[{"train.lr": 1e-8}],
    )
    run, said = search(tmp_path / "worn", worn)
    assert any("4 trials in a row have not improved val/ndcg@10" in line for line in said)
    table = run.trials
    assert len(table) < 30
    complete = table[table["status"] == "complete"]
    assert len(complete) >= 4
    assert (complete["epochs"] == complete["best_epoch"] + 3).all()
    check_study(run.folder)


def test_several_metrics_give_a_pareto_set(tmp_path: Path) -> None:
    metrics = [METRIC, "val/next/ndcg@10", "time/train_s"]
    wanted = SEARCH | {"metric": metrics, "mode": ["max", "max", "min"]}
    run, _ = search(tmp_path / "two", space(search=wanted))
    table = run.trials
    front = table[table["pareto"]]
    assert table[METRIC].idxmax() in front.index or table[METRIC].max() in set(front[METRIC])
    for _, row in table[~table["pareto"]].iterrows():
        assert any(
            other[METRIC] >= row[METRIC]
            and other[metrics[1]] >= row[metrics[1]]
            and other[metrics[2]] <= row[metrics[2]]
            for _, other in front.iterrows()
        )
    storage = optuna.storages.RDBStorage(f"sqlite:///{run.paths.optuna}")
    study = optuna.load_study(study_name="two", storage=storage)
    assert len(study.directions) == 3
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    storage.engine.dispose()
    assert "pareto" in run.summaries()[0].frame


def test_a_place_that_cannot_be_written_stops_the_search_and_loses_nothing(tmp_path: Path) -> None:
    blocked = space(search=NO_STOPPING | {"trials": 4})
    begun, _ = search(tmp_path / "blocked", blocked, most_messages=1)
    for number in (2, 3):  # where later trials want to write
        begun.paths.trial(number).write_text("in the way")
    with pytest.raises(SearchError, match=r"trial_00002.*fix that.*search --resume --name blocked"):
        search(tmp_path / "blocked", blocked)
    assert not begun.paths.best.exists()
    for number in (2, 3):
        begun.paths.trial(number).unlink()
    run, _ = search(tmp_path / "blocked", blocked)
    assert set(run.trials["status"]) == {"complete"}
    check_study(run.folder)


def test_what_was_damaged_meanwhile_is_made_again(tmp_path: Path) -> None:
    wanted = NO_STOPPING | {"trials": 3, "sampler": "random"}
    cut = space({"train.max_epochs": 6}, search=wanted)
    begun, _ = search(tmp_path / "a#b é?" / "cut", cut, most_messages=9)
    for path in begun.paths.tune.glob("*/*.safetensors"):  # of a trial that ended, and of the next
        path.write_bytes(path.read_bytes()[:100])
    begun.paths.baselines.unlink()
    run, said = search(begun.folder, cut)
    assert any("again" in line or "anew" in line for line in said)
    same_as_trained_here(run.folder, run.folder.parent / "data")
    assert run.best_metrics is not None
    assert run.best_metrics["validation"]["best"][METRIC] == run.trials[METRIC].max()


def test_without_its_journal_a_search_is_not_begun_again(tmp_path: Path) -> None:
    begun, _ = search(tmp_path / "lost", space(), most_messages=5)
    content = begun.paths.journal.read_text()
    begun.paths.journal.unlink()
    with pytest.raises(DataError, match=r"journal\.jsonl: missing"):
        search(tmp_path / "lost", space())
    begun.paths.journal.write_text(content.replace('"train.lr": 0.01', '"train.lr": 0.5'))
    with pytest.raises(DataError, match="which the space does not allow"):
        search(tmp_path / "lost", space())


def test_what_is_interrupted_anywhere_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "whole", space())
    reports = len(whole.epochs)
    for cut in range(1, reports, 3):
        folder = tmp_path / f"cut-{cut}"
        begun, _ = search(folder, space(), most_messages=cut)
        if begun.paths.best.exists():  # it had ended before
            break
        run, _ = search(folder, space())
        kept = [name for name in whole.trials if name != "seconds" and "time/" not in str(name)]
        assert run.trials[kept].equals(whole.trials[kept])
