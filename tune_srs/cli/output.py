"""What commands print: tables on stdout, warnings on stderr."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 200  # columns where the output is not a terminal


def print_table(table: "pd.DataFrame", title: str = "") -> None:
    """Print a table as wide as the terminal, or `WIDTH` if the output goes elsewhere."""
    from rich.console import Console

    from tune_srs.tables.text import console_table

    Console(width=None if sys.stdout.isatty() else WIDTH).print(console_table(table, title))


def print_tables(tables: "Sequence[tuple[str, pd.DataFrame]]") -> None:
    """Print tables with their titles, and a blank line after each."""
    for title, table in tables:
        print_table(table, title)
        print()


def warn(message: str) -> None:
    """Print a warning on stderr."""
    print(f"tune-srs: {message}", file=sys.stderr)
