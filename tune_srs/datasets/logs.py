"""Any interaction log: its format and columns are recognised, reported, and read."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from tune_srs.config.settings import LogConfig
from tune_srs.config.validation import nearest
from tune_srs.datasets.columns import ITEM, NUMBER, RATING, TIMESTAMP, USER, Location
from tune_srs.datasets.readers import checked, delimited, parquet, records
from tune_srs.datasets.readers.delimited import Layout, has_padded_numbers
from tune_srs.datasets.readers.raw_files import DAMAGED, PEEK, damaged, text_file
from tune_srs.errors import DataError, Say

Kind = Literal["table", "sequence lines", "JSON lines", "Parquet"]

# in lower case, the commonest first
USUAL_NAMES = {
    USER: "user user_id userid uid user_idx visitor_id visitorid customer_id customerid reviewerid "
    "reviewer_id member_id account_id session_id sessionid",
    ITEM: "item item_id itemid iid item_idx product_id productid asin parent_asin movie_id movieid "
    "article_id track_id song_id artist_id book_id game_id venue_id venueid business_id poi poi_id "
    "sku",
    RATING: "rating ratings overall stars score rate",
    TIMESTAMP: "timestamp time ts datetime date event_time unixreviewtime utctimestamp utctime "
    "created_at event_timestamp rating_timestamp t_dat",
}
OPTIONS = {USER: "--user-col", ITEM: "--item-col", RATING: "--rating-col", TIMESTAMP: "--time-col"}
ATOMIC = r":(token|float|token_seq|float_seq)$"  # of a column's name in RecBole's atomic files


@dataclass(frozen=True)
class Found:
    """The format and the columns of a log, recognised from its first bytes."""

    kind: Kind
    names: list[str]
    layout: Layout | None = None  # of a table or sequence lines
    numeric: frozenset[str] = frozenset()  # columns of a table that begin with whole numbers


def read(path: Path, config: LogConfig, say: Say) -> Iterator[pd.DataFrame]:
    """Yield the interactions of the log at `path` in chunks, in the order of the file.

    `say` reports the role of each column. Raises `DataError` for a file that is not a log, for
    columns that do not exist, and for the first row that cannot be used.
    """
    found = inspect(path, config)
    columns = choose(found.names, config, found.kind, path)
    roles = ", ".join(f"{role} from {name}" for role, name in columns.items())
    order = "" if TIMESTAMP in columns else ", in the order of its lines"
    say(f"{path}: {_described(found)}, {roles}{order}")
    empty = True
    tables = _tables(path, found, columns, config)
    for chunk in checked.interactions(tables, config.time_format, config.text_ids):
        empty = False
        yield chunk
    if empty:
        raise DataError(f"{path}: no rows below the header; put the log there")


def inspect(path: Path, config: LogConfig) -> Found:
    """Return format, columns and layout, from the name and the first bytes of the file."""
    if path.is_dir():
        raise DataError(f"{path}: a folder; give a file of interactions")
    if parquet.is_parquet(path):
        return Found("Parquet", parquet.column_names(path))
    start = _beginning(path)
    text = start.decode("utf-8-sig", errors="replace")
    lines = [line for line in io.StringIO(text, newline="") if line.strip()]
    if len(start) == PEEK and len(lines) > 1:
        lines.pop()  # perhaps not to its end
    if not lines:
        raise DataError(f"{path}: empty; put the log there and run again")
    if text.lstrip().startswith("{"):
        with text_file(path) as (stream, source):
            _, first = next(records.records(stream, records.json_object, source))
            return Found("JSON lines", list(first))
    if text.lstrip().startswith("["):
        raise DataError(f"{path}: one JSON array; write one object per line (JSON lines)")
    if _are_sequence_lines(lines, config):
        names = [USER, ITEM]
        layout = Layout(r"\s+", 2, header=False, quoted=False)
        rows = [line.split() for line in lines]
        return Found("sequence lines", names, layout, _numeric(names, rows))
    return _found_table(path, lines, config)


def _beginning(path: Path) -> bytes:
    """Return the first `PEEK` bytes of the text, or all if it is shorter."""
    with text_file(path) as (stream, source):
        try:
            return stream.read(PEEK)
        except DAMAGED as error:
            raise damaged(source, error) from error


def _are_sequence_lines(lines: list[str], config: LogConfig) -> bool:
    """Return whether each line is `user item`, as in SASRec's data: no header, ordered by time."""
    if config.separator is not None or config.time_column is not None:
        return False
    plain = re.compile(r"\d+[ \t]\d+\s*")
    return all(plain.fullmatch(line) for line in lines)


def _found_table(path: Path, lines: list[str], config: LogConfig) -> Found:
    try:
        separator = config.separator or _separator(lines)
        first = next(csv.reader(lines[:1], delimiter=separator))
        atomic = ".inter" in path.suffixes or any(re.search(ATOMIC, name) for name in first)
        if atomic:  # they know no quotes
            rows = list(csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE))
        else:
            rows = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{path}: not parsable ({error}); check data.log.separator") from error
    if config.header:
        names = [re.sub(ATOMIC, "", name.strip()) for name in rows.pop(0)]
    else:
        names = [str(position) for position in range(len(rows[0]))]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: line 1: the column name {name!r} occurs twice; rename one")
    layout = Layout(separator, len(names), config.header, quoted=not atomic)
    return Found("table", names, layout, _numeric(names, rows))


def _separator(lines: list[str]) -> str:
    """Return the separator that cuts the first line into the most fields."""
    fields = {
        candidate: len(next(csv.reader(lines[:1], delimiter=candidate)))
        for candidate in (",", "\t", ";", "|", " ")
    }
    return max(fields, key=lambda candidate: (fields[candidate], candidate != " "))


def _numeric(names: list[str], rows: list[list[str]]) -> frozenset[str]:
    """Return the columns whose sample holds only whole numbers without padding."""
    columns: dict[str, list[str]] = {name: [] for name in names}
    for row in rows:
        for name, field in zip(names, row, strict=False):
            columns[name].append(field)
    return frozenset(
        name
        for name, fields in columns.items()
        if fields and all(NUMBER.fullmatch(field) for field in fields)
    )


def choose(names: list[str], config: LogConfig, kind: Kind, path: Path) -> dict[str, str]:
    """Return role → column: by the settings or, where they name none, by the usual names."""
    set_by_user = {
        USER: config.user_column,
        ITEM: config.item_column,
        RATING: config.rating_column,
        TIMESTAMP: config.time_column,
    }
    columns: dict[str, str] = {}
    for role, name in set_by_user.items():
        if name is not None and name not in names:
            raise DataError(f"{path}: there is no column {name}{nearest(name, names)}")
        taken = {*columns.values(), *(other for other in set_by_user.values() if other)}
        name = name or _usual(role, [other for other in names if other not in taken])
        if name is not None:
            columns[role] = name
    if config.time_format == "lines":
        columns.pop(TIMESTAMP, None)
    needed = [USER, ITEM]
    if kind != "sequence lines" and config.time_format != "lines":
        needed.append(TIMESTAMP)
    for role in needed:
        if role not in columns:
            lines = ", or set data.log.time_format=lines if the rows are in order"
            raise DataError(
                f"{path}: no column looks like the {role} among {', '.join(names)[:200]}; name it "
                f"with {OPTIONS[role]}{lines if role == TIMESTAMP else ''}, or check the separator"
            )
    if len(set(columns.values())) < len(columns):
        raise DataError(
            f"{path}: one column has two roles ({columns}); name each with "
            f"{', '.join(OPTIONS.values())}"
        )
    return columns


def _usual(role: str, names: list[str]) -> str | None:
    lower = {name.lower().strip(): name for name in reversed(names)}
    return next((lower[usual] for usual in USUAL_NAMES[role].split() if usual in lower), None)


def _described(found: Found) -> str:
    if found.layout is None or found.kind == "sequence lines":
        return found.kind
    return f"fields separated by {found.layout.separator!r}"


def _tables(
    path: Path, found: Found, columns: Mapping[str, str], config: LogConfig
) -> Iterator[tuple[pd.DataFrame, Location]]:
    """Yield tables of the wanted columns under the names of their roles, unchecked."""
    if found.kind == "Parquet":
        yield from parquet.chunks(path, columns)
        return
    if found.layout is None:
        with text_file(path) as (stream, source):
            rows = records.records(stream, records.json_object, source)
            yield from records.tables(rows, columns, source)
        return
    as_text = config.text_ids or has_padded_numbers(text_file(path), found.layout.separator)
    numeric = frozenset() if as_text else found.numeric
    text = frozenset(role for role in (USER, ITEM) if columns[role] not in numeric)
    positions = {role: found.names.index(name) for role, name in columns.items()}
    yield from delimited.chunks(text_file(path), found.layout, positions, text)
