"""The interactions table: the names of its columns, and the checks of its rows.

Every reader yields it in chunks: `user` and `item` (ids as the source has them, integers or text),
`rating` (a number; not every source has one), and either `timestamp` (whole microseconds since
1970) or, where the source only gives an order, `order` (a whole number, later is larger). Rows
keep the order of the file, which decides between equal times.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.errors import DataError

USER, ITEM, RATING, TIMESTAMP = COLUMNS = ("user", "item", "rating", "timestamp")
ORDER = "order"  # in place of the timestamp
NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})")  # a whole number without padding


@dataclass(frozen=True)
class Location:
    """Where the rows of a table stand in a file, to name one in an error."""

    source: str  # the file, and what inside it
    unit: str = "line"
    first: int = 1  # number of the row labelled 0

    def fault(self, row: Any, message: str) -> DataError:
        """Return the error to raise for the row with label `row`."""
        return DataError(f"{self.source}: {self.unit} {int(row) + self.first}: {message}")


@dataclass(frozen=True)
class Cell:
    """A value of a column and the label of its row; as text, short enough for an error."""

    row: Any
    value: Any

    def __str__(self) -> str:
        return f"{repr(self.value) if isinstance(self.value, str) else str(self.value):.60}"


def first_cell(column: pd.Series, wrong: pd.Series) -> Cell | None:
    """Return the first value of `column` where `wrong` is True."""
    if not wrong.any():
        return None
    position = int(wrong.to_numpy(dtype=bool).argmax())
    return Cell(column.index[position], column.iloc[position])


def refuse_text(ids: pd.Series, role: str, location: Location) -> None:
    """Raise `DataError` if not all ids are numbers, as those of the first lines are."""
    if pd.api.types.is_integer_dtype(ids.dtype):
        return
    if (cell := first_cell(ids, ~ids.astype("str").str.fullmatch(NUMBER))) is not None:
        raise location.fault(
            cell.row,
            f"the {role} id {cell} is not a whole number as the others are; fix it, or in a log "
            f"of your own set data.log.text_ids=true",
        )


def checked_ids(column: pd.Series, role: str, location: Location) -> pd.Series:
    """Return ids, integers from 0 or text; raise `DataError` with the row of any other."""
    if (cell := first_cell(column, column.isna())) is not None:
        raise location.fault(cell.row, f"no {role} id; leave such rows out")
    if pd.api.types.is_bool_dtype(column.dtype):
        raise DataError(
            f"{location.source}: the {role} ids are true and false; name another column"
        )
    if pd.api.types.is_float_dtype(column.dtype):
        return _whole(column, role, location)
    if pd.api.types.is_integer_dtype(column.dtype):
        if (cell := first_cell(column, column < 0)) is not None:
            raise location.fault(
                cell.row,
                f"the {role} id {cell} is negative, as unknown ids are; leave such rows "
                f"out, or set data.log.text_ids=true if the id is right",
            )
        if (cell := first_cell(column, column >= 2**63)) is not None:
            raise location.fault(
                cell.row, f"the {role} id {cell} is above 2^63; make such ids text"
            )
        return column
    if not isinstance(column.dtype, pd.StringDtype):
        raise DataError(
            f"{location.source}: the {role} ids are neither whole numbers nor text, but "
            f"{column.dtype}; name another column, or set data.log.text_ids=true"
        )
    return column


def _whole(column: pd.Series, role: str, location: Location) -> pd.Series:
    """Return the integers of a column of floats, which pandas makes of missing values."""
    if (cell := first_cell(column, (column % 1 != 0) | (column.abs() >= 2**53))) is not None:
        raise location.fault(cell.row, f"the {role} id {cell} is not a whole number; fix the row")
    return checked_ids(column.astype("int64"), role, location)


def checked_ratings(column: pd.Series, location: Location) -> pd.Series:
    """Return ratings as numbers; raise `DataError` with the row of one that is not a number."""
    numbers = column
    if not pd.api.types.is_numeric_dtype(column.dtype):
        numbers = pd.to_numeric(column, errors="coerce")
    finite = pd.Series(np.isfinite(numbers.to_numpy(np.float64)), index=column.index)
    if (cell := first_cell(column, ~finite)) is not None:
        raise location.fault(cell.row, f"the rating {cell} is not a number; fix or drop the row")
    return numbers
