"""What a person reads."""

import io

import pandas as pd
from rich.console import Console

from tune_srs.tables import console_table, readable

FRAME = pd.DataFrame(
    {
        "trial": ["3", "popularity"],
        "epochs": [40.0, float("nan")],
        "train.lr": [0.00123456, float("nan")],
        "loss.relevance": ["linear", None],
        "val/ndcg@10": [0.5, 0.0],
    }
)


def test_numbers_are_short_and_what_is_missing_is_a_dash() -> None:
    text = readable(FRAME)
    assert list(text) == ["trial", "epochs", "lr", "relevance", "val/ndcg@10"]
    assert text.to_numpy().tolist() == [
        ["3", "40", "0.0012", "linear", "0.5000"],
        ["popularity", "-", "-", "-", "0.0000"],
    ]


def test_what_a_title_holds_is_shown_and_does_nothing() -> None:
    console = Console(width=100, file=io.StringIO(), record=True, force_terminal=True)
    titles = ["[red]Alien[/nope]", "\x1b[2Jgone", "two\nlines", "Amélie :-)"]
    console.print(console_table(pd.DataFrame({"title": titles}), "[/i]"))
    lines = [line.strip() for line in console.export_text().splitlines() if line.strip()]
    assert lines[-4:] == ["[red]Alien[/nope]", "�[2Jgone", "two�lines", "Amélie :-)"]


def test_a_console_shows_every_cell() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(console_table(FRAME, "title"))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0] == ["title"]
    assert lines[2] == ["3", "40", "0.0012", "linear", "0.5000"]
