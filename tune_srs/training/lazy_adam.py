"""Adam for a table of which a step touches few rows."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LazyAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) that moves only the rows of a sparse gradient, and their moments.

    Unlike in Adam, a row does not drift on its momentum while nothing touches it, and decays only
    when something does. The same update as `torch.optim.SparseAdam`, in one pass over the rows, and
    AdamW's decoupled decay (arXiv 1711.05101).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

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
        rows, slope = grad.indices()[0], grad.values()  # (R,), (R, D)
        numbers = Numbers(
            beta1,
            beta2,
            rate=group["lr"] / (1 - beta1**step),
            correction=math.sqrt(1 - beta2**step),
            epsilon=group["eps"],
            decay=1 - group["lr"] * group["weight_decay"],
        )
        move = move_by_kernel if table.device.type == "cpu" else move_in_torch
        move(table, state["moments"], rows, slope, numbers)


class Numbers(NamedTuple):
    """The numbers of one step.

    `rate` is divided by the first moment's correction, `correction` is the root of the second
    moment's, `decay` is the share of a weight that is left.
    """

    beta1: float
    beta2: float
    rate: float
    correction: float
    epsilon: float
    decay: float


def move_by_kernel(
    table: Tensor, moments: Tensor, rows: Tensor, slope: Tensor, numbers: Numbers
) -> None:
    """Update `rows` (R,) of `table` (I, D) and `moments` (I, 2 D) by their gradient (R, D)."""
    from tune_srs.kernels.items import adam_rows  # here: training on a GPU needs no Numba

    arrays = [t.detach().numpy() for t in (table, moments, rows, slope)]
    arguments: tuple[Any, ...] = (*arrays, *map(np.float32, numbers))
    adam_rows(*arguments)


def move_in_torch(
    table: Tensor, moments: Tensor, rows: Tensor, slope: Tensor, numbers: Numbers
) -> None:
    """Update as `move_by_kernel` does, on any device."""
    touched = moments.index_select(0, rows)  # (R, 2 D)
    mean, square = touched.chunk(2, dim=1)
    mean.lerp_(slope, 1 - numbers.beta1)
    square.mul_(numbers.beta2).addcmul_(slope, slope, value=1 - numbers.beta2)
    moments.index_copy_(0, rows, touched)
    deviation = square.sqrt().div_(numbers.correction).add_(numbers.epsilon)
    weights = table.index_select(0, rows).mul_(numbers.decay)
    table.index_copy_(0, rows, weights.sub_(mean / deviation, alpha=numbers.rate))


def touched_rows(table: Tensor, *indexes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the distinct rows of `table` that `indexes` point to, and the indexes into them.

    `table` (I, D) → rows (R, D), whose gradient is sparse in the table.
    """
    index = torch.cat([index.reshape(-1) for index in indexes])
    find = distinct_by_kernel if index.device.type == "cpu" else distinct_in_torch
    rows, position = find(index, len(table))
    touched: Tensor = _TouchedRows.apply(table, rows)  # type: ignore[no-untyped-call]
    parts = torch.split(position, [index.numel() for index in indexes])
    return touched, tuple(part.view_as(i) for part, i in zip(parts, indexes, strict=True))


def distinct_by_kernel(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the distinct values (R,) of `index` (M,), below `size`, and positions in them (M,)."""
    from tune_srs.kernels.items import distinct  # here: training on a GPU needs no Numba

    rows, position = torch.empty_like(index), torch.empty_like(index)
    position_of = np.full(size, -1, np.int32)
    count = distinct(index.numpy(), position_of, rows.numpy(), position.numpy())
    return rows[:count], position


def distinct_in_torch(index: Tensor, _: int) -> tuple[Tensor, Tensor]:
    """Return the same as `distinct_by_kernel`, on any device; a GPU has to be waited for."""
    rows, position = index.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return rows, position


class _TouchedRows(torch.autograd.Function):
    """Rows of a table; `functional.embedding` would leave the gradient's rows to be sorted."""

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
