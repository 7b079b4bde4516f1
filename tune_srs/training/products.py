"""Products of features with a few rows of a table each, without gathering those rows.

On a GPU they are the transpose of a sum of weighted rows, which torch computes without gathering,
too: the derivative of features . sum_n w_n table[index_n] by w_n. On the CPU, see `kernels/`.
"""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag


def row_products(features: Tensor, table: Tensor, *indexes: Tensor) -> tuple[Tensor, ...]:
    """Return features[t] . table[index[t, c]] for each of `indexes` (T, C): (T, C) each.

    `features` (T, D), `table` (I, D). Nothing of size T x C x D is made, forward or backward.
    """
    function = OnCPU if features.device.type == "cpu" else ByBags
    products: tuple[Tensor, ...] = function.apply(features, table, *indexes)  # type: ignore[no-untyped-call]
    return products


class OnCPU(torch.autograd.Function):
    """Products by compiled kernels."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, table: Tensor, *indexes: Tensor) -> tuple[Tensor, ...]:
        from tune_srs.kernels.items import products  # here: training on a GPU needs no Numba

        ctx.save_for_backward(features, table, *indexes)
        scores = tuple(features.new_empty(index.shape) for index in indexes)
        for index, score in zip(indexes, scores, strict=True):
            products(*_arrays(features, table, index, score))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from tune_srs.kernels.items import products_back

        features, table, *indexes = ctx.saved_tensors
        d_features, d_table = torch.zeros_like(features), torch.zeros_like(table)
        for index, grad in zip(indexes, grads, strict=True):
            products_back(*_arrays(grad, features, table, index, d_features, d_table))
        return d_features, d_table, *(None for _ in indexes)


def _arrays(*tensors: Tensor) -> list[npt.NDArray[Any]]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


class ByBags(torch.autograd.Function):
    """Products by torch's own operations, on any device."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, table: Tensor, *indexes: Tensor) -> tuple[Tensor, ...]:
        index = torch.cat(indexes, dim=1)
        ctx.save_for_backward(features, table, index)
        with torch.enable_grad():
            weights = features.new_zeros(index.shape).requires_grad_()
            sums = embedding_bag(index, table.detach(), per_sample_weights=weights, mode="sum")
        (products,) = torch.autograd.grad(sums, weights, features.detach())
        return torch.split(products, [each.shape[1] for each in indexes], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, table, index = ctx.saved_tensors
        grad = torch.cat(grads, dim=1)
        d_features = embedding_bag(index, table, per_sample_weights=grad, mode="sum")
        # sorted, all entries that point to one row of the table stand one after another
        rows, order = index.reshape(-1).int().sort()
        starts = torch.searchsorted(rows, torch.arange(len(table), device=rows.device))
        slots, weights = order // index.shape[1], grad.reshape(-1)[order]
        d_table = embedding_bag(slots, features, starts, per_sample_weights=weights, mode="sum")
        return d_features, d_table, *(None for _ in grads)
