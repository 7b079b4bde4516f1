"""`test-ranks.parquet` of a run: where the winner and the baselines ranked every test future.

Written once, when a search ends, so that a report can tell intervals and single futures without the
data and without scoring the test again.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tune_srs.config.settings import EvaluationConfig
from tune_srs.errors import DataError
from tune_srs.evaluation.evaluator import Evaluation, measure
from tune_srs.files import write_aside

FILE = "test-ranks.parquet"


def write(folder: Path, ranks: Mapping[str, tuple[Tensor, Tensor]], counted: Tensor) -> None:
    """`ranks`: by scorer those of all futures (U, K), and of the nearest alone (U,)."""
    table = pd.concat([_rows(name, *own, counted) for name, own in ranks.items()])
    write_aside(folder / FILE, lambda aside: table.to_parquet(aside, index=False))


def read(folder: Path) -> pd.DataFrame | None:
    """One row a scorer and user; None as long as the test has not been scored.

    Columns: `scorer` (`best` or a baseline), `user` (from 0, as in the prepared data), `next` (rank
    of the nearest future when it is the only one), and `1` … `K`, the rank of each future, the
    nearest first: 0 is the best; missing of an item that stands nearer already.
    """
    path = folder / FILE
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error


def positions(table: pd.DataFrame) -> list[str]:
    """The columns of the futures, the nearest first."""
    return [name for name in map(str, table.columns) if name.isdigit()]


def evaluation(table: pd.DataFrame, scorer: str, config: EvaluationConfig) -> Evaluation:
    """Metrics of every user, as the ranks of one scorer give them."""
    own = table[table["scorer"] == scorer]
    futures = own[positions(table)]
    ranks = torch.from_numpy(futures.fillna(0).to_numpy(dtype=np.int64))
    counted = torch.from_numpy(futures.notna().to_numpy())
    alone = torch.from_numpy(own["next"].to_numpy(dtype=np.int64))
    return measure(ranks, alone, counted, config)


def _rows(scorer: str, ranks: Tensor, alone: Tensor, counted: Tensor) -> pd.DataFrame:
    table = pd.DataFrame(
        {"scorer": scorer, "user": np.arange(len(ranks), dtype=np.int32), "next": alone.int()}
    )
    for column in range(ranks.shape[1]):
        values = pd.Series(ranks[:, column].int(), dtype="Int32")
        table[str(column + 1)] = values.mask(~counted[:, column].numpy())
    return table
