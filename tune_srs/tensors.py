"""Numpy arrays as tensors, without a copy where the device allows it, and rows of flat ones."""

import warnings
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def tensor_of(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return `array` on `device`.

    On the CPU it shares memory, also with read-only arrays (memory-mapped, or in Ray's object
    store); such a tensor must not be written to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def rows_between(values: Tensor, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return `values[starts[b]:ends[b]]` per row b, aligned left, and where values are: (B, W)."""
    columns = torch.arange(int((ends - starts).max()), device=values.device)
    positions = (starts[:, None] + columns).clamp_(max=len(values) - 1)
    rows = values.index_select(0, positions.flatten()).view(*positions.shape, *values.shape[1:])
    return rows, columns < (ends - starts)[:, None]
