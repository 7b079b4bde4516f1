"""Rows as a user asks for them."""

import pandas as pd
import pytest

from tune_srs.errors import ConfigError
from tune_srs.tables.selection import selected

TABLE = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3],
        "status": ["complete", "stopped", "failed", "complete"],
        "train.lr": [0.1, 0.01, None, 0.001],
        "loss.relevance": ["linear", None, "power", "linear"],
        "val/ndcg_rel@10": [0.3, 0.2, None, 0.4],
        "pareto": [True, False, False, True],
        "model.gates": pd.Series([None, True, False, None], dtype=object),
        "train.clip_norm": ["null", 1.0, None, "null"],
    }
)


def trials(*conditions: str, sort: str | None = None, top: int | None = None) -> list[int]:
    return [int(trial) for trial in selected(TABLE, conditions, sort, top)["trial"]]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("status = complete", [0, 3]),
        ("status != complete", [1, 2]),
        ("val/ndcg_rel@10>=0.3", [0, 3]),
        ("train.lr < 1e-1", [1, 3]),
        ("lr==0.1", [0]),
        ("relevance = linear and lr < 0.1", [3]),
        ("relevance != linear", [1, 2]),
        ("relevance = nan", []),
        ("pareto = true", [0, 3]),
        ("pareto = True", [0, 3]),
        ("pareto != true", [1, 2]),
        ("model.gates = false", [2]),
        ("gates = True", [1]),
        ("relevance = linear AND lr < 0.1", [3]),
        ("clip_norm = null", [0, 3]),
        ("clip_norm = 1", [1]),
        ("clip_norm != 1.0", [0, 2, 3]),
        ("lr = null", []),
    ],
)
def test_conditions_are_compared(condition: str, expected: list[int]) -> None:
    assert trials(condition) == expected


def test_several_filters_all_hold() -> None:
    assert trials("status = complete", "lr < 0.1") == [3]


def test_what_is_missing_comes_last_whatever_the_order() -> None:
    assert trials(sort="lr") == [3, 1, 0, 2]
    assert trials(sort="clip_norm") == [1, 0, 3, 2]
    assert trials(sort="status") == [0, 3, 2, 1]
    assert trials(sort="-lr") == [0, 1, 3, 2]
    assert trials(sort="-val/ndcg_rel@10", top=2) == [3, 0]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("@pd.compat.os.system('true')", "is no comparison"),
        ("lr", "is no comparison"),
        ("lr < small", "'small' is no number"),
        ("relevance < linear", "compared by = and != only"),
        ("statu = complete", "did you mean status"),
    ],
)
def test_what_cannot_be_compared_is_refused(condition: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials(condition)
    with pytest.raises(ConfigError, match="--sort: no column nothing"):
        trials(sort="nothing")
