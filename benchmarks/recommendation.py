"""Histories answered a second on one thread, from lists of original ids to a table of them.

Those of a data set's users, once with the histories' items excluded and once without.

    python benchmarks/recommendation.py --dataset ml-100k
"""

import argparse
from itertools import pairwise

import pandas as pd
import torch
from shapes import DATASETS, median_ms, split_named

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.exports.exported import Exported, items_of
from tune_srs.exports.recommend import Recommender
from tune_srs.model.sasrec import SASRec

PREFIX = "item-"


def measure(split: Split, top_k: int, repeats: int) -> dict[str, float]:
    """Histories a second, without and with their items excluded."""
    config = TrialConfig()
    model = SASRec(config.model, split.num_items, torch.Generator().manual_seed(0)).eval()
    ids = pd.Series([f"{PREFIX}{number}" for number in range(1, split.num_items + 1)])
    recommender = Recommender(Exported(config, model, items_of(ids, None, split.training), {}, {}))
    items = [f"{PREFIX}{number}" for number in split.histories.items]
    ends = split.histories.offsets.tolist()
    histories = [items[start:end] for start, end in pairwise(ends)]

    def rate(exclude: bool) -> float:
        answered = median_ms(lambda: recommender.recommend(histories, top_k, exclude), repeats)
        return 1e3 * len(histories) / answered

    return {"nothing excluded": rate(False), "their items excluded": rate(True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", help=DATASETS)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = split_named(options.dataset)
    print(f"{options.dataset}, {split.num_users} histories, one thread, median")
    for name, rate in measure(split, options.top_k, options.repeats).items():
        print(f"histories a second, {name:<20} {rate:8.0f}")


if __name__ == "__main__":
    main()
