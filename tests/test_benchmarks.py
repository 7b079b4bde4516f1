"""The benchmarks run, at a tiny size, and fast and plain rank alike. No time is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import plain_copy, plain_ranks
from small_data import random_sequences

from tune_srs.config import EvaluationConfig, ModelConfig
from tune_srs.evaluate import Evaluator
from tune_srs.model import SASRec

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_benchmark_prints_its_table(name: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / f"{name}.py"),
        "--dataset",
        "tiny",
        "--repeats",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "plain / ours" in done.stdout


@pytest.mark.slow
def test_the_overhead_of_a_search_is_measured(tmp_path: Path) -> None:
    options = ["--trials", "2", "--epochs", "1", "--users", "60"]
    command = [sys.executable, str(BENCHMARKS / "search_overhead.py"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trials 2" in done.stdout


@pytest.mark.parametrize("num_heads", [1, 2])
def test_fast_and_plain_rank_alike(num_heads: int) -> None:
    sequences = random_sequences(seed=4, users=50, items=40, futures=3)
    config = ModelConfig(max_length=6, hidden_units=8, num_heads=num_heads)
    model = SASRec(config, 40, torch.Generator().manual_seed(0)).eval()
    ranks, _ = Evaluator(sequences, EvaluationConfig(), torch.device("cpu")).ranks(model)
    assert ranks.tolist() == plain_ranks(plain_copy(model, config), sequences)
