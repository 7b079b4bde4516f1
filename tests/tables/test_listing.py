"""`tune-srs results`: one run or several, on the console and for files."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.runs import Trial, make_run
from support.searches import METRIC, SPACE

from tune_srs.cli import app
from tune_srs.runs.run import Run
from tune_srs.tables.listing import compared
from tune_srs.tables.selection import selected
from tune_srs.tables.text import as_text, readable

GOOD = {"train.lr": 0.01, "loss.num_positives": 1}
POOR = {"train.lr": 1e-7, "loss.num_positives": 2, "loss.relevance": "linear"}


CLIP = {"type": "categorical", "choices": [None, 1.0, 5.0], "when": {"loss.num_positives": [2]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs `one` and `two` are, of which `two` has not ended."""
    place = tmp_path_factory.mktemp("compared") / "results"
    trials = [
        Trial(POOR, [0.1], "stopped"),
        Trial(GOOD, [0.2, 0.4, 0.3]),
        Trial(GOOD, [0.9], "failed", "it burst"),
    ]
    one = make_run(place / "one", trials)
    test = {"best": {"test/ndcg@10": 0.35}, "markov": {"test/ndcg@10": 0.25}}
    (one / "best").mkdir()
    (one / "best" / "metrics.json").write_text(json.dumps({"test": test}))
    make_run(place / "two", [Trial(POOR, [0.1, 0.2], None)])
    return place


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    *arguments: str,
) -> str:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "argv", ["tune-srs", "results", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    return told.out


def test_a_run_is_loaded_by_name_or_folder(folder: Path) -> None:
    run = Run.load("one", folder)
    assert run.folder == Run.load(folder / "one").folder
    assert run.trials["trial"].tolist() == [0, 1, 2]
    assert run.trials[METRIC].tolist() == [0.1, 0.4, 0.9]
    assert run.epochs[["trial", "epoch"]].to_numpy().tolist() == [
        [0, 1], [1, 1], [1, 2], [1, 3], [2, 1]
    ]  # fmt: skip
    assert run.settings["seed"] == 7
    assert run.test is not None
    assert run.test.loc["markov", "test/ndcg@10"] == 0.25
    assert Run.load("two", folder).test is None


def test_searches_stand_side_by_side(folder: Path) -> None:
    table = compared([Run(folder / "one"), Run(folder / "two")]).set_index("run")
    assert table["trials"].tolist() == [3, 1]
    assert table["failed"].tolist() == [1, 0]
    assert table["epochs"].tolist() == [5, 2]
    assert table["best"].tolist() == [1, 0]  # not the one that failed
    assert table["value"].tolist() == [0.4, 0.2]
    assert table.loc["one", "test"] == 0.35
    assert table.loc["one", "test markov"] == 0.25
    assert table["test"].isna().tolist() == [False, True]


def test_programs_get_every_column_in_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(monkeypatch, capsys, folder, "one", "--csv")
    whole = Run(folder / "one").trials.set_index("trial")
    read = pd.read_csv(io.StringIO(text)).set_index("trial")
    pd.testing.assert_frame_equal(read.sort_index(), whole)
    assert read.index.tolist() == [2, 1, 0]  # the best first
    rows = json.loads(printed(monkeypatch, capsys, folder, "one", "--json", "--top", "1"))
    assert rows[0] | {"train.lr": 0.01, METRIC: 0.9, "reason": "it burst"} == rows[0]


def test_a_chosen_null_is_told_from_an_inactive_parameter(tmp_path: Path) -> None:
    chosen: list[Any] = [POOR | {"train.clip_norm": value} for value in (None, 1.0)]
    trials = [Trial(values, [0.1, 0.2]) for values in (*chosen, GOOD)]
    params = {**SPACE["params"], "train.clip_norm": CLIP}  # type: ignore[dict-item]
    run = make_run(tmp_path / "run", trials, params=params)
    recorded = Run(run).trials
    (run / "journal.jsonl").rename(run / "kept")
    read = Run(run).trials  # out of trials.csv
    (run / "kept").rename(run / "journal.jsonl")
    pd.testing.assert_frame_equal(read, recorded)
    for table in (read, Run(run).epochs.drop_duplicates("trial")):
        null, number, missing = table["train.clip_norm"]
        assert null == "null"
        assert number == 1.0
        assert isinstance(number, float)
        assert pd.isna(missing)
    rows = json.loads(as_text(read, "json"))
    assert [row["train.clip_norm"] for row in rows] == ["null", 1.0, None]
    assert readable(read)["clip_norm"].tolist() == ["null", "1", "-"]
    for value, expected in (("null", [0]), ("1.0", [1])):
        found = selected(read, [f"clip_norm = {value}"], None, None)
        assert found["trial"].tolist() == expected


def test_papers_get_what_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = ["--filter", "status = complete"]
    latex = printed(monkeypatch, capsys, folder, "one", "--latex", *condition)
    assert r"num\_positives" in latex
    assert r"1 & complete & 3 & 2 & 0.0100" in latex
    assert "stopped" not in latex
    target = folder.parent / "table.md"
    assert not printed(monkeypatch, capsys, folder, "one", "two", "--markdown", "--to", "table.md")
    header, line, *rows = target.read_text().splitlines()
    assert "metric" in header
    assert set(line) == {"|", ":", "-"}
    assert [row.split("|")[1].strip() for row in rows] == ["one", "two"]


@pytest.mark.parametrize("place", ["mine", "results/mine"])
def test_a_study_is_found_by_name_and_by_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    for command, message in (
        ("results", "study.yaml: damaged, study is missing"),
        ("report", f"a study, not a search; tune-srs results {place} shows"),
        ("monitor", f"a study, not a search; tune-srs results {place} shows"),
    ):
        monkeypatch.setattr(sys, "argv", ["tune-srs", command, place])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one", "--csv", "--json"], "give one of"),
        (["one", "--to", "x.csv"], "give one of"),
        (["one", "--csv", "--to", "nowhere/x.csv"], "there is no folder nowhere"),
        (["one", "--csv", "--to", "results"], "--to: results is a folder; name a file"),
        (["three"], "no results named three"),
        (["one", "--filter", "lr"], "is no comparison"),
    ],
)
def test_a_bad_request_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "argv", ["tune-srs", "results", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
