"""A training step against the plain reference and against the arithmetic floor, on one thread.

The floor is the time that the multiplications of valid tokens alone would take at the rate of this
machine's matrix product, measured here at the shape that the model uses.

    python benchmarks/training.py --dataset ml-100k
"""

import argparse
import itertools
import statistics

import torch
from reference import plain_copy, plain_train_step
from shapes import NAMES, median_ms, sequences_named

from tune_srs.batches import GROUPS, Batches, Group, NegativeSampler
from tune_srs.config import TrialConfig
from tune_srs.datasets.sequences import Sequences
from tune_srs.train import BatchLoss, new_state, train_step

CPU = torch.device("cpu")


def step_flop(groups: list[Group], config: TrialConfig) -> float:
    """Floating-point operations of a step on its valid tokens: forward once, backward twice."""
    units, blocks = config.model.hidden_units, config.model.num_blocks
    scored = config.loss.num_positives + (config.loss.num_negatives or config.loss.num_positives)
    products = 0.0
    for group in groups:
        lengths = group.lengths.double()
        linear = 6 * units**2 * lengths  # query, key, value, output, two of the feed-forward
        attention = units * lengths * (lengths + 1)  # scores and mixing, on what stands before
        products += (blocks * (linear + attention) + scored * units * lengths).sum().item()
    return 3 * 2 * products


def product_rate(tokens: int, units: int) -> float:
    """FLOP/s of (tokens, units) x (units, units)."""
    a, b = torch.randn(tokens, units), torch.randn(units, units)
    ms = median_ms(lambda: [a @ b for _ in range(20)], repeats=25, warm_up=5) / 20
    return 2 * tokens * units**2 / (ms / 1e3)


def measure(
    sequences: Sequences, config: TrialConfig, repeats: int, plain: bool
) -> dict[str, float]:
    """One row of the table; `plain` asks for the reference, too."""
    state = new_state(config, sequences.num_items)
    batches = Batches(sequences, config.train.batch_size, config.model.max_length, CPU)
    loss_of = BatchLoss(config.loss, NegativeSampler(sequences, CPU), CPU)
    epoch = list(batches.epoch(state.order))
    endless = itertools.cycle(epoch)
    state.model.train()
    ours = median_ms(lambda: train_step(state, next(endless), loss_of), repeats, warm_up=3)
    tokens = statistics.mean(sum(int(g.lengths.sum()) for g in groups) for groups in epoch)
    rate = product_rate(int(tokens / GROUPS), config.model.hidden_units)
    floor = 1e3 * statistics.mean(step_flop(groups, config) for groups in epoch) / rate
    row = {
        "P": config.loss.num_positives,
        "tokens a step": tokens,
        "GFLOP/s": rate / 1e9,
        "floor ms": floor,
        "ours ms": ours,
        "floor / ours": floor / ours,
    }
    if plain:
        model = plain_copy(state.model, config.model).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr, betas=(0.9, 0.98))
        users = [user for group in epoch[0] for user in group.users.tolist()]
        row["plain ms"] = median_ms(
            lambda: plain_train_step(model, optimizer, sequences, users, config.loss),
            repeats=max(1, repeats // 5),
        )
        row["plain / ours"] = row["plain ms"] / ours
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", choices=NAMES)
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sequences = sequences_named(options.dataset)
    print(f"{options.dataset}, {sequences.num_users} users, one thread, median of the steps")
    for count in (1, 5, 20):
        config = TrialConfig().with_overrides({"loss.num_positives": count})
        row = measure(sequences, config, options.repeats, plain=count == 5)
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
