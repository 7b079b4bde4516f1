"""Tensors share the memory of arrays, also of arrays that may not be written."""

import numpy as np
import torch

from tune_srs.tensors import tensor_of


def test_no_copy_is_made_on_the_cpu() -> None:
    array = np.arange(6, dtype=np.int32)
    array.flags.writeable = False
    tensor = tensor_of(array, torch.device("cpu"))
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == array.tolist()
