"""The ranks of the test futures, written and read again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tune_srs.config.settings import EvaluationConfig
from tune_srs.errors import DataError
from tune_srs.evaluation.evaluator import measure
from tune_srs.report.scores import evaluation_of
from tune_srs.runs import ranks
from tune_srs.runs.paths import RunPaths

FOUND = {
    "best": (np.array([[0, 4, 2], [7, 7, 1]]), np.array([0, 5])),
    "markov": (np.array([[9, 1, 3], [0, 2, 2]]), np.array([8, 0])),
}
COUNTED = np.array([[True, True, False], [True, False, True]])
NUMBER = np.array([2, 3])  # the first user has no third, the second one twice the same


def test_metrics_come_out_of_the_file_as_they_went_in(tmp_path: Path) -> None:
    config = EvaluationConfig(cutoffs=(1, 3))
    ranks.write(RunPaths(tmp_path).test_ranks, FOUND, COUNTED, NUMBER)
    table = ranks.read(RunPaths(tmp_path).test_ranks)
    assert table is not None
    for name, (all_of_them, alone) in FOUND.items():
        of_all, of_one, counted, number = (
            torch.from_numpy(one) for one in (all_of_them, alone, COUNTED, NUMBER)
        )
        direct = measure(of_all, of_one, counted, number, config).per_user
        again = evaluation_of(table, name, config).per_user
        assert list(again) == list(direct)
        for metric, values in direct.items():
            assert torch.equal(again[metric], values), metric


def test_a_future_that_repeats_a_nearer_one_is_missing(tmp_path: Path) -> None:
    ranks.write(RunPaths(tmp_path).test_ranks, FOUND, COUNTED, NUMBER)
    table = ranks.read(RunPaths(tmp_path).test_ranks)
    assert table is not None
    assert ranks.positions(table) == ["1", "2", "3"]
    own = table[table["scorer"] == "best"]
    assert own["1"].tolist() == [0, 7]
    assert own["futures"].tolist() == [2, 3]
    assert own["2"].isna().tolist() == [False, True]
    assert own["user"].tolist() == [0, 1]


def test_before_the_test_is_scored_there_are_none(tmp_path: Path) -> None:
    assert ranks.read(RunPaths(tmp_path).test_ranks) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"a": range(1000)}).to_parquet(RunPaths(tmp_path).test_ranks)
    content = RunPaths(tmp_path).test_ranks.read_bytes()
    RunPaths(tmp_path).test_ranks.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"test-ranks.parquet: damaged"):
        ranks.read(RunPaths(tmp_path).test_ranks)
