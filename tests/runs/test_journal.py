"""The journal of a run: what a search that was cut off goes on from."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_srs.errors import DataError
from tune_srs.runs import journal
from tune_srs.runs.journal import Journal
from tune_srs.runs.paths import RunPaths
from tune_srs.space.objective import Mode, Objective

METRIC = "val/ndcg@10"


def opened(folder: Path, mode: Mode = "max") -> Journal:
    return Journal(folder, [Objective(METRIC, mode)])


def written(folder: Path) -> Journal:
    """Two trials, one after the other: complete with 0.3 at epoch 2, and unfinished."""
    record = opened(folder)
    record.begin(0, {"train.lr": 0.1})
    for epoch, value in enumerate((0.1, 0.3, 0.2), start=1):
        assert record.report(0, epoch, {METRIC: value, "time/train_s": 1.0})
    record.end(0, "complete")
    record.begin(1, {"train.lr": 0.2})
    record.report(1, 1, {METRIC: 0.2})
    return record


def test_what_was_written_is_there_in_the_next_session(tmp_path: Path) -> None:
    before = written(tmp_path)
    after = opened(tmp_path)
    assert after.trials == before.trials
    first, second = after.trials
    assert (first.status, first.epochs, first.best_epoch) == ("complete", 3, 2)
    assert first.reports == [(1, (0.1,)), (2, (0.3,)), (3, (0.2,))]
    assert first.best_metrics == {METRIC: 0.3, "time/train_s": 1.0}
    assert (second.status, second.values) == ("unfinished", {"train.lr": 0.2})
    assert after.best() == first


def test_an_epoch_that_comes_again_is_noted_once(tmp_path: Path) -> None:
    record = written(tmp_path)
    assert not record.report(1, 1, {METRIC: 0.2})
    assert record.report(1, 2, {METRIC: 0.1})
    record.begin(1, {"train.lr": 0.2})  # it goes on in a new session
    assert [event.get("epoch") for event in journal.events(tmp_path)][-2:] == [1, 2]


def test_time_goes_on_where_it_stopped(tmp_path: Path) -> None:
    written(tmp_path)
    path = RunPaths(tmp_path).journal
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | {"at": 500})]) + "\n"
    )
    after = opened(tmp_path)
    assert 500 <= after.elapsed < 560
    after.end(1, "stopped", "early stopping")
    assert list(journal.events(tmp_path))[-1]["at"] >= 500


def test_stale_trials_are_those_that_ended_since_the_best_began(tmp_path: Path) -> None:
    record = written(tmp_path)
    assert record.stale() == 0
    record.end(1, "stopped", "early stopping")
    assert record.stale() == 1
    record.begin(2, {"train.lr": 0.3})
    record.report(2, 1, {METRIC: 0.9})
    assert record.stale() == 0


def test_a_trial_that_failed_is_not_the_best(tmp_path: Path) -> None:
    record = written(tmp_path)
    record.begin(2, {"train.lr": 9.0})
    record.report(2, 1, {METRIC: 0.9})
    record.end(2, "failed", "the loss is nan")
    best = record.best()
    assert best is not None
    assert best.number == 0


def test_of_equals_the_earlier_trial_is_the_best(tmp_path: Path) -> None:
    record = opened(tmp_path, mode="min")
    assert record.best() is None
    for trial, value in enumerate((0.5, 0.2, 0.2)):
        record.begin(trial, {})
        record.report(trial, 1, {METRIC: value})
    best = record.best()
    assert best is not None
    assert best.number == 1


@given(share=st.floats(0, 1))
def test_cut_off_anywhere_it_loses_what_was_cut_and_no_more(
    share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    written(folder)
    path = RunPaths(folder).journal
    whole = path.read_bytes()
    kept = round(share * len(whole))
    path.write_bytes(whole[:kept])
    after = opened(folder)
    lines = whole[:kept].count(b"\n")
    assert len(list(journal.events(folder))) == lines
    after.begin(len(after.trials), {"train.lr": 0.9})
    assert len(list(journal.events(folder))) == lines + 1
    assert opened(folder).trials == after.trials


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        "{}",
        '{"at": 1, "trial": 0}',
        '{"at": 1, "trial": 9, "epoch": 1, "metrics": {}}',
        '{"at": 1, "trial": 5, "begin": {}}',
        '{"at": "x", "trial": 0, "end": "complete"}',
        '{"at": 1, "trial": 0, "epoch": 4, "metrics": {"val/other": 1}}',
        '{"at": 1, "trial": 0, "end": "done", "reason": null}',
        '{"at": 1, "trial": 0, "epoch": "x", "metrics": {"val/ndcg@10": 1}}',
        '{"at": 1, "trial": 0, "epoch": 4, "metrics": 5}',
        '{"at": 1, "trial": 1, "begin": 5}',
        "\x00\x00\x00",
        "\ufffd",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    written(tmp_path)
    path = RunPaths(tmp_path).journal
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*whole[:3], line + "\n", *whole[3:]]))
    with pytest.raises(DataError, match=r"journal\.jsonl: damaged in line 4"):
        opened(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = written(tmp_path)
    before = RunPaths(tmp_path).journal.read_bytes()

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        record.end(1, "complete")
    assert caught.value.filename == str(RunPaths(tmp_path).journal)
    assert RunPaths(tmp_path).journal.read_bytes() == before
    assert record.trials[1].status == "unfinished"
