"""Adam for a table of which a step touches few rows."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LazyAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) that moves the rows of a sparse gradient only, and their moments.

    Unlike Adam, a row does not drift on its momentum while nothing touches it. The same update as
    `torch.optim.SparseAdam`, in half the time.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float = 1e-8
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every table that has a sparse gradient, (I, D) each."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, table.grad.coalesce(), group)

    def _update(self, table: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())
            # means and squares side by side, since reaching a row costs more than reading it
            state["moments"] = table.new_zeros(len(table), 2 * table.shape[1])
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"].item()
        rate, correction = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
        rows, slope = grad.indices()[0], grad.values()  # (R,), (R, D)
        if table.device.type == "cpu":
            from tune_srs.kernels.items import adam_rows  # here: a GPU needs no Numba

            f = np.float32
            arrays = [t.detach().numpy() for t in (table, state["moments"], rows, slope)]
            numbers = ((f(beta1), f(beta2)), f(rate), f(correction), f(group["eps"]))
            given: tuple[Any, ...] = (*arrays, *numbers)
            adam_rows(*given)
            return
        moments = state["moments"].index_select(0, rows)  # (R, 2 D)
        mean, square = moments.chunk(2, dim=1)
        mean.lerp_(slope, 1 - beta1)
        square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        state["moments"].index_copy_(0, rows, moments)
        deviation = square.sqrt().div_(correction).add_(group["eps"])
        table.index_add_(0, rows, mean / deviation, alpha=-rate)


def touched_rows(table: Tensor, *indexes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The distinct rows of `table` (I, D) that `indexes` point to, and where they stand there.

    Returns (R, D), with a sparse gradient, and what `indexes` are in it.
    """
    rows, place = _distinct(torch.cat([index.reshape(-1) for index in indexes]), len(table))
    touched: Tensor = _TouchedRows.apply(table, rows)  # type: ignore[no-untyped-call]
    parts = torch.split(place, [index.numel() for index in indexes])
    return touched, tuple(part.view_as(i) for part, i in zip(parts, indexes, strict=True))


def _distinct(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if index.device.type != "cpu":
        return index.unique(return_inverse=True)  # type: ignore[no-untyped-call, no-any-return]
    from tune_srs.kernels.items import distinct  # here: a GPU needs no Numba

    rows, place = torch.empty_like(index), torch.empty_like(index)
    place_of = np.full(size, -1, np.int32)
    count = distinct(index.numpy(), place_of, rows.numpy(), place.numpy())
    return rows[:count], place


class _TouchedRows(torch.autograd.Function):
    """`functional.embedding` would leave the gradient's rows to be sorted again."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        sparse = torch.sparse_coo_tensor(
            rows[None], grad, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None
