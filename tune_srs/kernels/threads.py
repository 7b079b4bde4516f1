"""Compiled kernels on torch's number of threads, a share of a batch's rows or tokens each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  what Numba multiplies with, loaded to be limited
import torch
from threadpoolctl import ThreadpoolController

from tune_srs.kernels.compiled import Integers

Result = TypeVar("Result")
FEW = 256  # tokens that one thread alone has done before others have begun

_blas = ThreadpoolController()


def in_threads(starts: Integers, run: Callable[[int, int], Result]) -> list[Result]:
    """`run(first row, last row)` on torch's number of threads, about as many tokens each.

    `starts` (B + 1,) where each row's tokens begin. Matrix products keep to their thread.
    """
    shares = np.linspace(0, starts[-1], min(torch.get_num_threads(), len(starts) - 1) + 1)
    with _blas.limit(limits=1, user_api="blas"):
        return _in_threads(np.searchsorted(starts, shares).tolist(), run)


def over_tokens(count: int, run: Callable[[int, int], Result]) -> list[Result]:
    """`run(first, last)` of `count` tokens, of a kernel without matrix products."""
    threads = min(torch.get_num_threads(), max(count // FEW, 1))
    return _in_threads([count * thread // threads for thread in range(threads + 1)], run)


def _in_threads(cuts: list[int], run: Callable[[int, int], Result]) -> list[Result]:
    if len(cuts) == 2:
        return [run(*cuts)]
    with ThreadPoolExecutor(len(cuts) - 1) as pool:
        return list(pool.map(run, cuts[:-1], cuts[1:]))
