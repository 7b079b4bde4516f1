"""The objective of a search: a metric, and whether more or less of it is better."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import pandas as pd

Mode = Literal["max", "min"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Objective:
    """A metric by its name, such as `val/ndcg_rel@10`, and the direction in which it improves.

    >>> loss = Objective("train/loss", "min")
    >>> loss.better(0.2, 0.3)
    True
    >>> loss.best([0.3, 0.2, 0.4], value=lambda one: one)
    0.2
    """

    metric: str
    mode: Mode = "max"

    @property
    def sign(self) -> int:
        """The factor that makes more of the metric better: 1 or -1."""
        return 1 if self.mode == "max" else -1

    def better(self, value: float, than: float) -> bool:
        """Return whether `value` is strictly better: the earlier one of equals stays the best."""
        return self.sign * value > self.sign * than

    def best(self, items: Iterable[Item], value: Callable[[Item], float]) -> Item | None:
        """Return the item with the best `value`, the first one of equals; None if there is none."""
        return max(items, key=lambda item: self.sign * value(item), default=None)

    def sort(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `table`, best first and missing values last; ties keep their order."""
        if self.metric not in table:
            return table
        return table.sort_values(self.metric, ascending=self.mode == "min", kind="stable")
