"""Delimited text (CSV, TSV and the like) as tables in chunks, by pandas; errors name the line."""

import csv
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.parsers import TextFileReader

from tune_srs.datasets.columns import ITEM, USER, Location, refuse_text
from tune_srs.datasets.readers.raw_files import DAMAGED, damaged
from tune_srs.errors import DataError

CELLS = 1_000_000  # per chunk; larger chunks take new memory each time
BLOCK = 8 << 20  # bytes


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are laid out."""

    separator: str  # a character, or the regular expression \s+
    columns: int  # fields per row
    header: bool = True
    quoted: bool = True
    encoding: str = "utf-8"


def chunks(
    file: AbstractContextManager[tuple[io.BufferedReader, str]],
    layout: Layout,
    columns: Mapping[str, int],
    text: frozenset[str],
) -> Iterator[tuple[pd.DataFrame, Location]]:
    """Yield tables of the wanted `columns` (name → position) of a delimited file.

    `file`, when entered, gives its bytes and its name for errors. Columns in `text` stay text;
    other ids must be numbers.

    A field of another column that is not a number makes that column text, or a mixture, in its
    chunk; `checked.interactions` then looks for the row. Empty fields are missing values. Rows are
    labelled from 0, and the `Location` turns a label into a line. Raises `DataError` for rows that
    are too long and for what cannot be parsed.
    """
    with file as (stream, source):  # inside, so that it is closed after its reader
        location = Location(source, first=2 if layout.header else 1)
        names = {position: name for name, position in columns.items()}
        try:
            with _reader(stream, layout, names, text) as reader:
                while (chunk := _next(reader)) is not None:
                    table = chunk[list(names)].rename(columns=names)
                    for role in (USER, ITEM):
                        if role not in text:
                            refuse_text(table[role], role, location)
                    yield table, location
        except pd.errors.EmptyDataError:
            return
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            raise _unparsable(source, error) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{source}: not UTF-8 text ({error.reason}); save it as UTF-8"
            ) from error
        except DAMAGED as error:
            raise damaged(source, error) from error


def has_padded_numbers(
    file: AbstractContextManager[tuple[io.BufferedReader, str]], separator: str
) -> bool:
    """Return whether a field has zeros, a sign or a space before its digits: `007` is not `7`.

    Such ids must be read as text. Other fields of this kind, such as `+5`, only slow the reading.
    """
    ends = b" \t" if separator == r"\s+" else separator.encode()
    with file as (stream, source):
        try:
            overlap = b"\n"
            while block := stream.read(BLOCK):
                if _padded(overlap + block, ends):
                    return True
                overlap = block[-2:]
        except DAMAGED as error:
            raise damaged(source, error) from error
    return False


def _padded(text: bytes, ends: bytes) -> bool:
    """Search by numpy and `in`: a regular expression takes longer than the reading itself."""
    starts = [bytes([end]) for end in ends + b'\n"']
    signs = [b"+", b"-0"] if len(ends) > 1 else [b"+", b"-0", b" "]
    for sign in signs:
        if sign in text and any(start + sign in text for start in starts):
            return True
    codes = np.frombuffer(text, np.uint8)
    zeros = np.flatnonzero(codes[1:-1] == ord("0")) + 1
    zeros = zeros[np.isin(codes[zeros - 1], list(ends + b'\n"'))]
    following = codes[zeros + 1]
    return bool(((following >= ord("0")) & (following <= ord("9"))).any())


def _reader(
    stream: io.BufferedReader, layout: Layout, names: Mapping[int, str], text: frozenset[str]
) -> TextFileReader:
    kinds: dict[Any, Any] = {position: "str" for position, name in names.items() if name in text}
    missing: dict[Any, Any] = {position: ["", "nan", "NaN", "NAN"] for position in names}
    return pd.read_csv(
        stream,
        sep=layout.separator,
        header=0 if layout.header else None,  # `skiprows` would take half as long again
        names=list(range(layout.columns)),  # all: with `usecols` longer rows are let pass
        index_col=False,
        dtype=kinds,
        keep_default_na=False,
        na_values=missing,
        quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE,
        encoding=layout.encoding,
        chunksize=max(CELLS // layout.columns, 1),
    )


def _next(reader: Iterator[pd.DataFrame]) -> pd.DataFrame | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # fields would be lost
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # text among numbers is looked for
        return next(reader, None)


def _unparsable(source: str, error: Exception) -> DataError:
    if isinstance(error, pd.errors.ParserWarning):
        return DataError(
            f"{source}: its rows have more fields than its first line; fix the first line, or "
            f"quote fields that hold the separator"
        )
    reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
    return DataError(f"{source}: not parsable ({reason}); fix the quotes or separators there")
