"""Which rows of a table are shown, and in which order: what a user asks for on the command line.

Conditions are compared, never evaluated: `COLUMN OPERATOR VALUE`, several joined by `and`. Values
are written as in YAML; `null` is a chosen null, and never what is missing.

>>> table = pd.DataFrame({"trial": [0, 1, 2], "train.lr": [0.1, 0.01, 0.001]})
>>> selected(table, ["lr < 0.1 and trial != 2"], sort=None, top=None)["trial"].tolist()
[1]
>>> selected(table, [], sort="-trial", top=2)["trial"].tolist()
[2, 1]
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.config.validation import nearest
from tune_srs.config.yaml import NULL
from tune_srs.errors import ConfigError

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(
    r"\s*(?P<column>[^\s=!<>]+)\s*(?P<sign>==|!=|<=|>=|=|<|>)\s*(?P<value>.+?)\s*"
)
JOINED = re.compile(r"\s+and\s+", re.IGNORECASE)


def selected(
    table: pd.DataFrame, conditions: Sequence[str], sort: str | None, top: int | None
) -> pd.DataFrame:
    """The rows that meet all conditions, at most `top`, by the column `sort`; `-sort`: falling.

    A column is named in full, or by what follows its last dot. Missing values meet only `!=` and
    come last. Raises `ConfigError` for what is no condition or no column.
    """
    for condition in (part for each in conditions for part in JOINED.split(each)):
        table = table[_meets(table, condition)]
    if sort is not None:
        name = column(table, sort.removeprefix("-"), "--sort")
        rising = not sort.startswith("-")
        table = table.sort_values(name, ascending=rising, kind="stable", key=_sortable)
    return table if top is None else table.head(top)


def column(table: pd.DataFrame, name: str, place: str) -> str:
    """The column that a user means."""
    names = list(map(str, table.columns))
    if name in names:
        return name
    short = [full for full in names if full.rpartition(".")[2] == name]
    if len(short) == 1:
        return short[0]
    raise ConfigError(f"{place}: no column {name}{nearest(name, names)}")


def _meets(table: pd.DataFrame, condition: str) -> pd.Series:
    parts = CONDITION.fullmatch(condition)
    if parts is None:
        raise ConfigError(
            f"--filter: {condition!r} is no comparison; such as 'train.lr < 0.01' or "
            f"'status = complete', several joined by 'and'"
        )
    values = table[column(table, parts["column"], "--filter")]
    compare, wanted = OPERATORS[parts["sign"]], parts["value"]
    if _are_numbers(values) and wanted != NULL:
        try:
            return pd.Series(compare(values, float(wanted)))
        except ValueError:
            raise ConfigError(f"--filter: {condition!r}: {wanted!r} is no number") from None
    if compare not in (operator.eq, operator.ne):
        raise ConfigError(f"--filter: {condition!r}: text is compared by = and != only")
    same = values.map(lambda value: _is(value, wanted)).astype(bool)
    return same if compare is operator.eq else ~same


def _sortable(values: pd.Series) -> pd.Series:
    """A null among numbers stands behind them."""
    try:
        return pd.to_numeric(values.replace(NULL, math.inf))
    except (ValueError, TypeError):  # text
        return values


def _are_numbers(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _is(value: Any, wanted: str) -> bool:
    """Whether a user who writes `wanted` means `value`; nobody means what is missing."""
    if pd.isna(value):
        return False
    if isinstance(value, bool | np.bool_):
        return wanted in (str(value), str(value).lower())
    with suppress(ValueError):
        return float(wanted) == value if isinstance(value, int | float) else str(value) == wanted
    return False
