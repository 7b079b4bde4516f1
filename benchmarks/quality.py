"""Does speed cost quality? Test NDCG@10 of each way to train, paired by seed.

Each run keeps the best epoch by validation NDCG@10, looked at every `--every` epochs, and is scored
once on the test futures. `plain` is the reference, trained and scored by its own code.

    python benchmarks/quality.py --variants plain ours touched --seeds 5
"""

import argparse
import copy
import math
import random
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from reference import plain_copy, plain_ranks, plain_train_step
from scipy.stats import t as student
from shapes import prepared_named
from torch import nn

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.training.loop import new_state, train

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {},
    "touched": {"train.embedding_update": "touched"},
    "bfloat16": {"train.precision": "bfloat16"},
    "fused": {"train.fused_attention": True},
}


def models(variant: str, config: TrialConfig, split: Split) -> Iterator[nn.Module]:
    """The model after each epoch."""
    if variant != "plain":
        yield from (report.state.model for report in train(config, split))
        return
    seed = config.train.seed
    torch.manual_seed(seed)
    random.seed(seed)
    model = plain_copy(new_state(config, split.num_items).model, config.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr, betas=(0.9, 0.98))
    users = [user for user in range(split.training.num_users) if split.training.lengths[user] > 1]
    for _ in range(config.train.max_epochs):
        model.train()
        random.shuffle(users)
        for start in range(0, len(users), config.train.batch_size):
            batch = users[start : start + config.train.batch_size]
            plain_train_step(model, optimizer, split.training, batch, config.loss)
        yield model


def score(model: Any, config: TrialConfig, split: Split) -> float:
    """NDCG@10 of the nearest future, by the code that belongs to the model."""
    if hasattr(model, "queries"):
        evaluator = Evaluator(split, config.evaluation, torch.device("cpu"))
        return evaluator(model.eval()).means()["next/ndcg@10"]
    nearest = [ranks[0] for ranks in plain_ranks(model, split)]
    return statistics.mean(1 / math.log2(rank + 2) if rank < 10 else 0.0 for rank in nearest)


def test_score(variant: str, config: TrialConfig, data: PreparedData, every: int) -> float:
    """Of the best epoch by validation."""
    best, kept = -1.0, None
    for epoch, model in enumerate(models(variant, config, data.validation), start=1):
        if epoch % every == 0 or epoch == config.train.max_epochs:
            found = score(model, config, data.validation)
            if found > best:
                best, kept = found, copy.deepcopy(model)
    return score(kept, config, data.test)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval by Student's t."""
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(student.ppf(0.975, len(values) - 1)) * spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", choices=("ml-100k", "tiny"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--every", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = prepared_named(options.dataset)
    given = {"loss.num_positives": 5, "train.max_epochs": options.epochs}
    scores: dict[str, list[float]] = {}
    for variant in options.variants:
        scores[variant] = []
        for seed in range(options.seeds):
            chosen = {"train.seed": seed} | VARIANTS[variant]
            config = TrialConfig().with_overrides({"preset": "original"} | given | chosen)
            scores[variant].append(test_score(variant, config, data, options.every))
            print(f"{variant} seed {seed}: test ndcg@10 {scores[variant][-1]:.4f}", flush=True)
    first = options.variants[0]
    for variant, values in scores.items():
        mean, half = interval(
            [ours - base for ours, base in zip(values, scores[first], strict=True)]
        )
        print(
            f"{variant}: mean {statistics.mean(values):.4f}, "
            f"minus {first} {mean:+.4f} +- {half:.4f} (95 %)"
        )


if __name__ == "__main__":
    main()
