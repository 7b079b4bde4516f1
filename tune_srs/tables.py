"""pandas tables as a person reads them, on the console and in a page."""

import pandas as pd
from rich.table import Table
from rich.text import Text


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """All text: numbers with four digits, whole ones with none, "-" for what is missing.

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


def as_text(frame: pd.DataFrame, form: str) -> str:
    """A file's content: `csv` and `json` as it is, `latex` and `markdown` made readable."""
    match form:
        case "csv":
            return frame.to_csv(index=False)
        case "json":
            return frame.to_json(orient="records", indent=2, double_precision=15) + "\n"
        case "latex":
            return readable(frame).to_latex(index=False, escape=True)
        case "markdown":
            return readable(frame).to_markdown(index=False, disable_numparse=True) + "\n"
    raise ValueError(f"unknown form {form}")


def _heading(name: str) -> str:
    return name if "/" in name else name.rpartition(".")[2]


def _text(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and value >= 1 else f"{value:.4f}"
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value)
    )
