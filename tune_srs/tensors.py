"""Numpy arrays as tensors, without a copy where the device allows it."""

import warnings
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def tensor_of(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """`array` on `device`. On the CPU it shares memory, also with read-only arrays

    (memory-mapped, or in Ray's object store); such a tensor must not be written to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
