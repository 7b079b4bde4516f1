"""What a search shows while it runs."""

import io
from pathlib import Path

import rich.console
from support.small_data import split_of

from tune_srs.runs.journal import Journal
from tune_srs.space.objective import Objective
from tune_srs.space.space import Space
from tune_srs.tuning.console import Console, clock, number_of_futures

METRIC = "val/ndcg_rel@10"
SPACE = Space.from_dict(
    {
        "fixed": {"train.max_epochs": 10},
        "search": {"trials": 4, "time_budget": "2h"},
        "params": {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}},
    },
    "space",
)


def journal_of(folder: Path) -> Journal:
    """Three trials: complete, failed, and running at epoch 5 of 10."""
    journal = Journal(folder, [Objective(METRIC)])
    journal.begin(0, {"train.lr": 0.002})
    journal.report(0, 10, {METRIC: 0.25})
    journal.end(0, "complete")
    journal.begin(1, {"train.lr": 0.009})
    journal.end(1, "failed", "epoch 1: the loss is nan; lower train.lr")
    journal.begin(2, {"train.lr": 0.003})
    journal.report(2, 5, {METRIC: 0.2})
    return journal


def console_on(terminal: bool) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(rich.console.Console(file=output, force_terminal=terminal, width=110)), output


def test_in_a_terminal_it_shows_how_the_search_stands(tmp_path: Path) -> None:
    console, output = console_on(terminal=True)
    journal = journal_of(tmp_path)
    with console.watching(journal, SPACE):
        pass
    text = output.getvalue()
    assert "2/4 trials" in text
    assert "1 running, 1 complete, 0 stopped early, 1 failed" in text
    assert "best: trial 0, val/ndcg_rel@10 0.2500 (train.lr=0.002)" in text
    assert "epochs/s" in text
    assert "left" in text


def test_elsewhere_it_prints_a_line_a_trial_and_nothing_else(tmp_path: Path) -> None:
    console, output = console_on(terminal=False)
    journal = journal_of(tmp_path)
    with console.watching(journal, SPACE):
        for record in journal.trials[:2]:
            console.trial_ended(record, journal, SPACE)
    assert output.getvalue().splitlines() == [
        "[2/4] trial 0 complete after 10 epochs: val/ndcg_rel@10 0.2500",
        "[2/4] trial 1 failed after 0 epochs: epoch 1: the loss is nan; lower train.lr",
    ]


def test_in_a_terminal_a_failure_has_a_line(tmp_path: Path) -> None:
    console, output = console_on(terminal=True)
    journal = journal_of(tmp_path)
    for record in journal.trials[:2]:
        console.trial_ended(record, journal, SPACE)
    assert output.getvalue().count("\n") == 1
    assert "trial 1 failed" in output.getvalue()


def test_long_lines_are_not_broken_where_they_may_be_read_by_a_program() -> None:
    console, output = console_on(terminal=False)
    console.say("[/weird] " + "x" * 300)
    assert output.getvalue() == "[/weird] " + "x" * 300 + "\n"


def test_durations_are_read_at_a_glance() -> None:
    assert [clock(seconds) for seconds in (0, 61.4, 7325)] == ["0:00:00", "0:01:01", "2:02:05"]


def test_how_many_futures_a_user_has_is_told() -> None:
    assert number_of_futures(split_of([[1], [2]], [[3, 4], [4, 3]], 4)) == "2"
    assert number_of_futures(split_of([[1], [2]], [[3, 0], [4, 3]], 4)) == "1 to 2"
