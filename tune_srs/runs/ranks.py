"""`test-ranks.parquet` of a run: where the winner and the baselines ranked every test future.

Written once, when a search ends, so that a report can tell intervals and single futures without the
data and without scoring the test again.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.errors import DataError
from tune_srs.files import write_aside

Ranks = npt.NDArray[np.int64]
Counted = npt.NDArray[np.bool_]


def write(path: Path, ranks: Mapping[str, tuple[Ranks, Ranks]], counted: Counted) -> None:
    """Write the ranks of each scorer: of all futures (U, K), and of the nearest alone (U,).

    `counted` (U, K) is False for a future that repeats a nearer one, and where there is none.
    """
    table = pd.concat([_rows(name, *own, counted) for name, own in ranks.items()])
    write_aside(path, lambda aside: table.to_parquet(aside, index=False))


def read(path: Path) -> pd.DataFrame | None:
    """Return one row per scorer and user; None as long as the test has not been scored.

    Columns: `scorer` (`best` or a baseline), `user` (from 0, as in the prepared data), `next` (rank
    of the nearest future when it is the only one), and `1` … `K`, the rank of each future, the
    nearest first: 0 is the best; missing of an item that stands nearer already, and behind the last
    future of a user who has fewer than K.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error


def positions(table: pd.DataFrame) -> list[str]:
    """The columns of the futures, the nearest first."""
    return [name for name in map(str, table.columns) if name.isdigit()]


def _rows(scorer: str, ranks: Ranks, alone: Ranks, counted: Counted) -> pd.DataFrame:
    users = np.arange(len(ranks), dtype=np.int32)
    table = pd.DataFrame({"scorer": scorer, "user": users, "next": alone.astype(np.int32)})
    for column in range(ranks.shape[1]):
        values = pd.Series(ranks[:, column].astype(np.int32), dtype="Int32")
        table[str(column + 1)] = values.mask(~counted[:, column])
    return table
