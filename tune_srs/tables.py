"""pandas tables → rich tables for the console."""

from collections.abc import Sequence

import pandas as pd
from rich.table import Table


def table_of(frame: pd.DataFrame, title: str, columns: Sequence[str] | None = None) -> Table:
    """`frame` as a table: numbers with four digits, missing values as "-".

    Headings lose the section of a parameter: `train.lr` stands as `lr`.
    """
    columns = [name for name in (columns or frame.columns) if name in frame]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(_heading(name), justify="right" if numeric else "left", overflow="fold")
    for row in frame[columns].itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    return table


def _heading(name: str) -> str:
    return name if "/" in name else name.rpartition(".")[2]


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and value >= 1 else f"{value:.4f}"
    return str(value)
