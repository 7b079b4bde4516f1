"""Timestamps of every kind as whole numbers: microseconds since 1970, or an order."""

import time

import pandas as pd

from tune_srs.datasets.columns import Location, first_cell

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # of nanoseconds, a thousand are one
# the least number of each unit: all of them are in 1973, and in the unit before in the year 5138
UNIT_STARTS = {"s": 0, "ms": 10**11, "us": 10**14, "ns": 10**17}
DAY_US = 86_400 * 1_000_000
ORDER_HINT = "set data.log.time_format=order if the column only numbers the interactions"


class Times:
    """Reads one column of timestamps, chunk after chunk.

    `format` as in `LogConfig.time_format`, except `lines`. With `auto` the first value decides
    between numbers and ISO 8601, and on the unit of numbers; all other values must agree with it.
    Moments without a time zone are UTC. Moments before 1970 or after tomorrow are refused: a
    missing time, or another unit, looks like that.
    """

    def __init__(self, format: str, location: Location) -> None:  # noqa: A002
        self._format = format
        self._location = location
        self._latest = time.time_ns() // 1000 + DAY_US

    def numbers(self, column: pd.Series) -> pd.Series:
        """Return int64 microseconds, or with `order` the numbers as they are."""
        if (cell := first_cell(column, column.isna())) is not None:
            raise self._location.fault(cell.row, "no timestamp; fix or drop the row")
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            return self._within_reason(_microseconds(column), column)
        if self._format == "auto":
            self._format = self._guess(column)
        if self._format == "order":
            return self._ranks(column)
        if self._format in UNIT_STARTS:
            return self._within_reason(self._since_1970(column), column)
        return self._within_reason(self._moments(column), column)

    def _guess(self, column: pd.Series) -> str:
        value = pd.to_numeric(column.iloc[:1], errors="coerce").iloc[0]
        if value != value:
            return "iso"
        return [unit for unit, start in UNIT_STARTS.items() if abs(value) >= start][-1]

    def _numeric(self, column: pd.Series) -> pd.Series:
        if pd.api.types.is_bool_dtype(column.dtype):
            raise self._location.fault(
                column.index[0], "the timestamps are true and false; name another column"
            )
        if pd.api.types.is_numeric_dtype(column.dtype):
            numbers = column
        else:
            numbers = pd.to_numeric(column, errors="coerce")
        wrong = numbers.isna() | (numbers.abs() >= 2.0**63)
        if (cell := first_cell(column, wrong)) is not None:
            raise self._location.fault(
                cell.row,
                f"the timestamp {cell} is not a number of {self._format}, as those before "
                f"are; fix it, or name the format with data.log.time_format",
            )
        integers = pd.api.types.is_integer_dtype(numbers.dtype)
        return numbers.astype("int64" if integers else "float64")  # of 32 bits, they overflow

    def _ranks(self, column: pd.Series) -> pd.Series:
        numbers = self._numeric(column)
        if (cell := first_cell(column, numbers % 1 != 0)) is not None:
            raise self._location.fault(
                cell.row, f"{cell} is not a whole number to order by; fix it"
            )
        return numbers.astype("int64")

    def _since_1970(self, column: pd.Series) -> pd.Series:
        numbers = self._numeric(column)
        units = list(UNIT_STARTS)
        after = units[units.index(self._format) + 1 :]
        wrong = (numbers <= 0) | (numbers < UNIT_STARTS[self._format])
        if after:
            wrong |= numbers >= UNIT_STARTS[after[0]]
        if (cell := first_cell(column, wrong)) is not None:
            raise self._location.fault(
                cell.row,
                f"the timestamp {cell} is not a time in {self._format} since 1970, as the "
                f"others are; fix or drop the row, or {ORDER_HINT}",
            )
        if self._format == "ns":
            self._whole_microseconds(numbers % 1000 != 0, column)
            return (numbers // 1000).astype("int64")
        scaled = numbers * MICROSECONDS[self._format]
        if pd.api.types.is_float_dtype(scaled.dtype):
            scaled = scaled.round()
        return scaled.astype("int64")

    def _whole_microseconds(self, finer: pd.Series, column: pd.Series) -> None:
        """Raise `DataError` for finer times, whose order would be lost."""
        if (cell := first_cell(column, finer)) is not None:
            raise self._location.fault(
                cell.row,
                f"the timestamp {cell} is finer than a microsecond; round it, or set "
                f"data.log.time_format=order to keep such an order",
            )

    def _moments(self, column: pd.Series) -> pd.Series:
        iso = self._format == "iso"
        pattern = "ISO8601" if iso else self._format
        text = column.astype("str")
        moments = pd.to_datetime(text, format=pattern, utc=True, errors="coerce")
        wrong = moments.isna()
        if iso:  # pandas reads `now` and `today`, too
            wrong |= ~text.str.match(r"\s*[+-]?\d{4}")
        if (cell := first_cell(column, wrong)) is not None:
            known = "ISO 8601" if iso else self._format
            raise self._location.fault(
                cell.row,
                f"the timestamp {cell} is not {known}; fix it, or name the format with "
                f"data.log.time_format",
            )
        return _microseconds(moments)

    def _within_reason(self, numbers: pd.Series, column: pd.Series) -> pd.Series:
        if (cell := first_cell(column, numbers <= 0)) is not None:
            raise self._location.fault(
                cell.row, f"the timestamp {cell} is not after 1970; fix or drop the row"
            )
        if (cell := first_cell(column, numbers > self._latest)) is not None:
            raise self._location.fault(
                cell.row,
                f"the timestamp {cell} lies in the future; fix it, or check the unit "
                f"(data.log.time_format)",
            )
        return numbers


def _microseconds(moments: pd.Series) -> pd.Series:
    aware = moments.dt.tz is not None
    naive = moments.dt.tz_convert("UTC").dt.tz_localize(None) if aware else moments
    numbers: pd.Series = naive.dt.as_unit("us").astype("int64")
    return numbers
