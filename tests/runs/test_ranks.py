"""The ranks of the test futures, written and read again."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from tune_srs.config.settings import EvaluationConfig
from tune_srs.errors import DataError
from tune_srs.evaluation.evaluator import measure
from tune_srs.runs import ranks

FOUND = {
    "best": (torch.tensor([[0, 4, 2], [7, 7, 1]]), torch.tensor([0, 5])),
    "markov": (torch.tensor([[9, 1, 3], [0, 2, 2]]), torch.tensor([8, 0])),
}
COUNTED = torch.tensor([[True, True, True], [True, False, True]])


def test_metrics_come_out_of_the_file_as_they_went_in(tmp_path: Path) -> None:
    config = EvaluationConfig(cutoffs=(1, 3))
    ranks.write(tmp_path, FOUND, COUNTED)
    table = ranks.read(tmp_path)
    assert table is not None
    for name, (all_of_them, alone) in FOUND.items():
        direct = measure(all_of_them, alone, COUNTED, config).per_user
        again = ranks.evaluation(table, name, config).per_user
        assert list(again) == list(direct)
        for metric, values in direct.items():
            assert torch.equal(again[metric], values), metric


def test_a_future_that_repeats_a_nearer_one_is_missing(tmp_path: Path) -> None:
    ranks.write(tmp_path, FOUND, COUNTED)
    table = ranks.read(tmp_path)
    assert table is not None
    assert ranks.positions(table) == ["1", "2", "3"]
    own = table[table["scorer"] == "best"]
    assert own["1"].tolist() == [0, 7]
    assert own["2"].isna().tolist() == [False, True]
    assert own["user"].tolist() == [0, 1]


def test_before_the_test_is_scored_there_are_none(tmp_path: Path) -> None:
    assert ranks.read(tmp_path) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"a": range(1000)}).to_parquet(tmp_path / ranks.FILE)
    content = (tmp_path / ranks.FILE).read_bytes()
    (tmp_path / ranks.FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"test-ranks.parquet: damaged"):
        ranks.read(tmp_path)
