"""Evaluation of one split against the plain reference, user by user, on one thread.

The share of ranks that are the same is printed; rounding may decide between nearly equal scores.

    python benchmarks/evaluation.py --dataset ml-100k
"""

import argparse

import torch
from reference import plain_copy, plain_ranks
from shapes import DATASETS, median_ms, split_named

from tune_srs.config.settings import EvaluationConfig, TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.model.sasrec import SASRec

CPU = torch.device("cpu")


def measure(split: Split, repeats: int) -> dict[str, float]:
    """Times of both, their ratio, and the share of futures whose ranks agree exactly."""
    config = TrialConfig.from_dict({"preset": "original"}).model
    model = SASRec(config, split.num_items, torch.Generator().manual_seed(0)).eval()
    plain = plain_copy(model, config)
    evaluator = Evaluator(split, EvaluationConfig(), CPU)
    ranks, _ = evaluator.ranks(model)
    same = (ranks == torch.tensor(plain_ranks(plain, split))).double().mean().item()
    ours = median_ms(lambda: evaluator(model), repeats)
    theirs = median_ms(lambda: plain_ranks(plain, split), repeats=1, warm_up=0)
    return {"ours ms": ours, "plain ms": theirs, "plain / ours": theirs / ours, "same ranks": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", help=DATASETS)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = split_named(options.dataset)
    print(f"{options.dataset}, {split.num_users} users, one thread, median")
    row = measure(split, options.repeats)
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
