"""pandas tables as a person reads them, on the console and in a page."""

import json
import math
import sys
from collections.abc import Iterable

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

SMALL, LARGE = 0.01, 1e7  # numbers between them need no exponent
WIDTH = 200  # columns where the output is not a terminal
INFINITIES = (math.inf, -math.inf)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """All text: "-" for what is missing, numbers with four decimals, whole ones with none.

    Those that this would make too long or leave without digits have four digits and an exponent.

    Parameters lose their section: `train.lr` is headed `lr`.
    """
    return frame.astype(object).map(_text).rename(columns=_heading)


def console_table(frame: pd.DataFrame, title: str) -> Table:
    """`frame`, made readable, as a table that rich prints."""
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    text = readable(frame)
    for name, column in zip(text, frame, strict=True):
        numeric = pd.api.types.is_numeric_dtype(frame[column])
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in text.itertuples(index=False):
        table.add_row(*map(Text, row))  # what looks like markup, in a title or an id, is none
    return table


def print_table(frame: pd.DataFrame, title: str = "") -> None:
    """Print a table as wide as the terminal; wider where the output goes elsewhere."""
    Console(width=None if sys.stdout.isatty() else WIDTH).print(console_table(frame, title))


def print_tables(tables: Iterable[tuple[str, pd.DataFrame]]) -> None:
    """Print tables under their titles, with a blank line behind each."""
    for title, frame in tables:
        print_table(frame, title)
        print()


def as_text(frame: pd.DataFrame, form: str) -> str:
    """A file's content: `csv` and `json` as it is, `latex` and `markdown` made readable."""
    match form:
        case "csv":
            return frame.to_csv(index=False)
        case "json":
            return json.dumps(_records(frame), indent=2, allow_nan=False) + "\n"
        case "latex":
            return readable(frame).to_latex(index=False, escape=True)
        case "markdown":
            text = readable(frame).map(_without_bars).rename(columns=_without_bars)
            return text.to_markdown(index=False, disable_numparse=True) + "\n"
    raise ValueError(f"unknown form {form}")


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """The rows; None for what is missing or, as infinity, no number in JSON."""
    return [
        {
            str(name): None if _missing(value) or value in INFINITIES else value
            for name, value in row
        }
        for row in (each.items() for each in frame.astype(object).to_dict("records"))
    ]


def _without_bars(text: str) -> str:
    """A bar would begin another cell."""
    return text.replace("|", r"\|")


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value


def _heading(name: str) -> str:
    return name if "/" in name else name.rpartition(".")[2]


def _text(value: object) -> str:
    if _missing(value):
        return "-"
    if isinstance(value, float):
        return _number(value)
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value)
    )


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < LARGE:
        return str(int(value))  # of -0.0, too, 0
    return f"{value:.4f}" if SMALL <= abs(value) < LARGE else f"{value:.4g}"
