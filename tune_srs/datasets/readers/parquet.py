"""Parquet as tables in chunks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tune_srs.datasets.columns import Location
from tune_srs.datasets.readers.raw_files import DAMAGED, damaged
from tune_srs.errors import DataError

ROWS = 1_000_000  # per chunk


def is_parquet(path: Path) -> bool:
    """Return whether the file begins as Parquet does. Raises `DataError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def column_names(path: Path) -> list[str]:
    """Return the names of all columns."""
    with _opened(path) as file:
        names: list[str] = file.schema_arrow.names
        return names


def chunks(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[pd.DataFrame, Location]]:
    """Yield tables of the wanted `columns` (name → column of the file), labelled by row."""
    location, done = Location(str(path), unit="row"), 0
    names = {name: role for role, name in columns.items()}
    with _opened(path) as file:
        for batch in file.iter_batches(ROWS, columns=list(names)):
            table = pa.table({names[name]: _plain(batch[name]) for name in batch.schema.names})
            frame = table.to_pandas(date_as_object=False)
            frame.index = pd.RangeIndex(done, done + len(frame))
            done += len(frame)
            yield frame, location


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except DAMAGED as error:
        raise damaged(path, error) from error


def _plain(column: pa.Array) -> pa.Array:
    """Return the values of a column that may hold positions in a dictionary."""
    coded = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if coded else column
