"""How the kernels are compiled, and the arrays that they take.

Numba keeps what it compiled beside a module until that module changes: what calls one another must
therefore stand in one file, or a change in another would leave the old code in use. After a change
here, delete `kernels/__pycache__`.

A loop that adds up a row stores nothing besides: whether it is vectorised, and so the order of its
sum, would depend on how near one another the arrays lie.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled when first called and kept on disk; runs without Python's lock.

    Sums may be reordered, but unlike under full fast-math a score that is no number stays one.
    """
    fastmath = {"contract", "reassoc", "arcp", "nsz"}
    compiler = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath)
    return cast(Function, compiler(function))
