"""Original ids as the numbers of a model's items."""

import numpy as np
import numpy.typing as npt
import pandas as pd


def numbers_of(ids: pd.Index, vocabulary: pd.Index) -> npt.NDArray[np.int32]:
    """Return the number of each id (T,): its position in `vocabulary` (I,), from 1.

    It is 0 for an unknown or missing id. Unless all ids are numbers, they are compared as text.

    >>> numbers_of(pd.Index(["30", "007", "x"]), pd.Index([7, 30]))
    array([2, 0, 0], dtype=int32)
    """
    there = ids.notna()
    numbers = np.zeros(len(ids), np.int32)
    ids = ids[there].infer_objects()
    if not all(pd.api.types.is_numeric_dtype(index.dtype) for index in (ids, vocabulary)):
        ids, vocabulary = ids.astype("str"), vocabulary.astype("str")
    numbers[there] = vocabulary.get_indexer(ids) + 1
    return numbers
