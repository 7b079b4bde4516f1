"""Records of one line each, JSON or Python literals, as a table in chunks."""

import ast
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pandas as pd

from tune_srs.datasets.columns import ITEM, USER, Location
from tune_srs.datasets.readers.raw_files import DAMAGED, damaged

CHUNK = 200_000  # records
Record = dict[str, Any]


def json_object(line: str) -> Record:
    """Return a line of JSON lines. Raises ValueError if it is not an object."""
    return _record(json.loads(line))


def python_literal(line: str) -> Record:
    """Return a Python dictionary that is written out; it is read as data and never run.

    Raises ValueError if it is not a dictionary.
    """
    try:
        return _record(ast.literal_eval(line))
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {error}") from error


def _record(value: object) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"not an object with names, but {type(value).__name__}")
    return value


def records(
    stream: BinaryIO, parse: Callable[[str], Record], source: str
) -> Iterator[tuple[int, Record]]:
    """Yield the number, from 1, and the record of each line that is not blank."""
    location = Location(source, first=0)
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield number, parse(text.strip())
    except UnicodeDecodeError as error:
        raise location.fault(number, "not UTF-8 text; save the file as UTF-8") from error
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise location.fault(number, f"not readable ({error}); fix or drop the line") from error
    except DAMAGED as error:
        raise damaged(source, error) from error


def tables(
    rows: Iterable[tuple[int, Record]], columns: Mapping[str, str], source: str
) -> Iterator[tuple[pd.DataFrame, Location]]:
    """Yield tables of the wanted `columns` (name → key of the record), labelled by line."""
    location = Location(source, first=0)
    rows = iter(rows)
    while some := list(itertools.islice(rows, CHUNK)):
        table = {name: _values(some, name, key, location) for name, key in columns.items()}
        yield pd.DataFrame(table, index=[line for line, _ in some]), location


def _values(some: list[tuple[int, Record]], name: str, key: str, location: Location) -> list[Any]:
    """Return the values under `key`. Ids are text or integers, and all of one type.

    Other values are text or numbers. Raises `DataError` for the first line with another value.
    """
    scalar = (str, int) if name in (USER, ITEM) else (str, int, float)
    values = [record.get(key) for _, record in some]
    first = type(values[0])
    for (line, _), value in zip(some, values, strict=True):
        if value is None:
            raise location.fault(line, f"no {key!r}, the {name}; fix or drop the line")
        if isinstance(value, bool) or not isinstance(value, scalar):
            raise location.fault(
                line, f"{key!r}, the {name}, is {value!r:.40}; fix or drop the line"
            )
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise location.fault(line, f"{key!r}, the {name}, is {value!a:.40}: half a character")
        if not isinstance(value, str) and abs(value) >= 2**63:
            raise location.fault(line, f"{key!r}, the {name}, is above 2^63; make it text")
        if name in (USER, ITEM) and type(value) is not first:
            raise location.fault(
                line,
                f"{key!r}, the {name}, is {value!r:.40}, but those before are {first.__name__}; "
                f"write all with quotes or all without",
            )
    return values
