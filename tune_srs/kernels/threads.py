"""Compiled kernels on torch's number of threads, a share of a batch's rows each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  what Numba multiplies with, loaded to be limited
import torch
from threadpoolctl import ThreadpoolController

from tune_srs.kernels.compiled import Integers

Result = TypeVar("Result")

_blas = ThreadpoolController()


def in_threads(starts: Integers, run: Callable[[int, int, int], Result]) -> list[Result]:
    """`run(thread, first row, last row)` on torch's number of threads, about as many tokens each.

    `starts` (B + 1,) where each row's tokens begin.
    """
    threads = min(torch.get_num_threads(), len(starts) - 1)
    with _blas.limit(limits=1, user_api="blas"):
        if threads == 1:
            return [run(0, 0, len(starts) - 1)]
        cuts = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(run, range(threads), cuts[:-1], cuts[1:]))
