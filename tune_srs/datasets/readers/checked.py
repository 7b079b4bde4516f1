"""Tables as a reader gives them → interactions, see `columns`: every row checked."""

from collections.abc import Iterable, Iterator

import pandas as pd

from tune_srs.datasets.columns import (
    ITEM,
    ORDER,
    RATING,
    TIMESTAMP,
    USER,
    Location,
    checked_ids,
    checked_ratings,
)
from tune_srs.datasets.readers.times import Times


def interactions(
    tables: Iterable[tuple[pd.DataFrame, Location]], time_format: str, text_ids: bool = False
) -> Iterator[pd.DataFrame]:
    """Yield the interactions of each table that has rows.

    `time_format` as in `LogConfig.time_format`; a table without timestamps is in order. With
    `text_ids` ids become text. Raises `DataError` for the first row with an id, rating or time that
    cannot be used.
    """
    times: Times | None = None
    rows = 0
    for table, location in tables:
        times = times or Times(time_format, location)
        if not len(table):
            continue
        columns = {}
        for role in (USER, ITEM):
            ids = _as_text(table[role]) if text_ids else table[role]
            columns[role] = checked_ids(ids, role, location)
        if RATING in table:
            columns[RATING] = checked_ratings(table[RATING], location)
        if TIMESTAMP in table:
            name = ORDER if time_format == "order" else TIMESTAMP
            columns[name] = times.numbers(table[TIMESTAMP])
        else:
            columns[ORDER] = pd.Series(range(rows, rows + len(table)), index=table.index)
        rows += len(table)
        yield pd.DataFrame(columns)


def _as_text(ids: pd.Series) -> pd.Series:
    """Return ids as text; a missing one stays missing."""
    return ids if pd.api.types.is_string_dtype(ids.dtype) else ids.astype("str").where(ids.notna())
