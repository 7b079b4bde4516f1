"""The benchmarks run, at a tiny size, and fast and plain rank alike. No time is asserted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import plain_copy, plain_ranks
from significance import PARTS
from support.small_data import original_model, random_split

from tune_srs.config.settings import EvaluationConfig
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.model.sasrec import SASRec

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(folder: Path, name: str, *options: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_step_and_an_evaluation_are_measured(name: str, tmp_path: Path) -> None:
    assert "plain / ours" in run(tmp_path, name, "--dataset", "tiny", "--repeats", "1")


def test_recommendations_are_measured(tmp_path: Path) -> None:
    printed = run(tmp_path, "recommendation", "--dataset", "tiny", "--repeats", "1")
    assert printed.count("histories a second") == 2


def test_what_grows_with_the_catalogue_is_measured(tmp_path: Path) -> None:
    options = ("--users", "200", "--items", "300")
    printed = run(tmp_path, "scaling", "training", *options, "400", "--repeats", "1")
    assert printed.count("step ms") == 2
    assert run(tmp_path, "scaling", "evaluation", *options).count("seconds") == 4


def test_preparation_is_compared_with_a_plain_read(tmp_path: Path) -> None:
    sizes = ("--interactions", "3000", "--users", "100", "--items", "90")
    printed = run(tmp_path, "preparation", *sizes, "--text-ids")
    assert printed.count("rows/s") == 2
    assert printed.count("peak GiB") == 4
    assert printed.count("ratio") == 2


def test_quality_is_compared_seed_by_seed(tmp_path: Path) -> None:
    options = ("--dataset", "tiny", "--seeds", "2", "--epochs", "1")
    printed = run(tmp_path, "quality", *options, "--variants", "plain", "ours", "touched")
    assert "ours: mean" in printed
    assert "minus plain" in printed


@pytest.mark.parametrize("part", PARTS)
def test_what_tests_of_a_study_find_is_counted(
    part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PARTS[part](20, np.random.default_rng(0))
    first, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) >= 2
    assert all(row.count("|") == first.count("|") and "%" in row for row in rows)


@pytest.mark.slow
def test_what_runs_on_a_gpu_runs_here(tmp_path: Path) -> None:
    sizes = ("--steps", "1", "--trials", "2", "--epochs", "1", "--seeds", "1")
    names = ("--dataset", "tiny", "--learn-from", "tiny")
    printed = run(tmp_path, "gpu", "--device", "cpu", *names, *sizes)
    assert "checked: the loss and every gradient" in printed
    assert "2 trials on one device" in printed
    assert "bfloat16, fused: val ndcg@10" in printed


@pytest.mark.slow
def test_the_overhead_of_a_search_is_measured(tmp_path: Path) -> None:
    options = ("--dataset", "synthetic", "--trials", "2", "--epochs", "1")
    printed = run(tmp_path, "search_overhead", *options)
    assert "trials 2" in printed
    assert "wall / (that / CPUs)" in printed


@pytest.mark.parametrize("num_heads", [1, 2])
def test_fast_and_plain_rank_alike(num_heads: int) -> None:
    split = random_split(seed=4, users=50, items=40, futures=3)
    config = original_model(max_length=6, hidden_units=8, num_heads=num_heads)
    model = SASRec(config, 40, torch.Generator().manual_seed(0)).eval()
    ranks, _ = Evaluator(split, EvaluationConfig(), torch.device("cpu")).ranks(model)
    assert ranks.tolist() == plain_ranks(plain_copy(model, config), split)


def test_searchers_are_compared_on_the_same_curves(tmp_path: Path) -> None:
    data = ("--users", "40", "--items", "60", "--mean-length", "24")
    options = ("--curves", "curves.csv", *data, "--epochs", "3", "--seeds", "2")
    printed = run(tmp_path, "search_quality", *options)
    for method in ("grid", "random + ASHA", "OptunaSearch", "ours"):
        assert method in printed


def test_what_many_trials_cost_is_measured(tmp_path: Path) -> None:
    printed = run(tmp_path, "search_scaling", "searcher", "--trials", "12", "24", "--epochs", "5")
    assert printed.count("ms a suggestion") == 2
    printed = run(tmp_path, "search_scaling", "records", "--trials", "20", "--epochs", "5")
    for what in ("noting a report", "reading the journal", "optuna.db", "peak memory"):
        assert what in printed
