"""What a person reads."""

import io
import json
import math

import pandas as pd
import pytest
from rich.console import Console

from tune_srs.tables.text import as_text, console_table, readable

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
        ["3", "40", "0.001235", "linear", "0.5000"],
        ["popularity", "-", "-", "-", "0"],
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
    assert lines[2] == ["3", "40", "0.001235", "linear", "0.5000"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-3.0, "-3"),
        (9999999.0, "9999999"),
        (1e7, "1e+07"),
        (1e30, "1e+30"),
        (1234.5, "1234.5000"),
        (0.01, "0.0100"),
        (-0.25, "-0.2500"),
        (1e-06, "1e-06"),
        (-0.00123456, "-0.001235"),
        (math.inf, "inf"),
    ],
)
def test_no_number_loses_its_digits_or_is_long(value: float, expected: str) -> None:
    assert readable(pd.DataFrame({"value": [value]})).iat[0, 0] == expected


def test_json_holds_every_float_exactly_and_null_for_what_is_missing() -> None:
    values = [1 / 3 * 1e-17, 0.1 + 0.2, 1e300 / 7, 5e-324]
    table = pd.DataFrame({"value": values, "other": [1.5, None, math.inf, math.nan]})
    table["count"] = pd.array([1, None, 2, 3], dtype="Int64")
    rows = json.loads(as_text(table, "json"))
    assert [row["value"] for row in rows] == values
    assert [row["other"] for row in rows] == [1.5, None, None, None]
    assert [row["count"] for row in rows] == [1, None, 2, 3]


def test_a_bar_within_a_cell_of_markdown_begins_no_other() -> None:
    lines = as_text(pd.DataFrame({"a": ["x|y"]}), "markdown").splitlines()
    assert lines[-1] == r"| x\|y |"
