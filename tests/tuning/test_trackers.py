"""MLflow and Weights & Biases, where they are installed."""

import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.searches import METRIC, SPACE, run, write_space

from tune_srs.runs.run import Run

TRACKERS = ("mlflow", "wandb")


def installed(tracker: str) -> bool:
    return find_spec(tracker) is not None


@pytest.mark.parametrize("tracker", TRACKERS)
def test_one_that_is_not_there_is_named_before_anything_starts(
    tmp_path: Path, tracker: str
) -> None:
    if installed(tracker):
        pytest.skip(f"{tracker} is installed")
    write_space(tmp_path)
    done = run(tmp_path, "search", "space.yaml", "--name", "told", "--track", tracker)
    assert done.returncode == 2
    assert f"pip install 'tune-srs[{tracker}]'" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_they_are_told_every_trial(tmp_path: Path) -> None:
    there = [tracker for tracker in TRACKERS if installed(tracker)]
    if not there:
        pytest.skip("needs mlflow-skinny or wandb, which are optional")
    write_space(tmp_path, search=SPACE["search"] | {"trials": 2})  # type: ignore[operator]
    options = [option for tracker in there for option in ("--track", tracker)]
    done = run(tmp_path, "search", "space.yaml", "--name", "told", *options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "told"
    if "mlflow" in there:
        check_mlflow(folder)
    if "wandb" in there:
        assert len(list((folder / "wandb").glob("offline-run-*/*.wandb"))) == 2


def check_mlflow(folder: Path) -> None:
    """Its database holds the curve of each trial under a name that it allows."""
    table = Run(folder).epochs
    query = "select r.name, m.step, m.value from metrics m join runs r using (run_uuid) where key=?"
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute(query, [METRIC.replace("@", "_at_")]).fetchall()
    database.close()
    told = {(int(name[-5:]), step): value for name, step, value in rows}
    keys = zip(table["trial"], table["epoch"], strict=True)
    assert told == dict(zip(keys, table[METRIC], strict=True))
