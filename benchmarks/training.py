"""A training step against the plain reference and against the arithmetic floor, on one core.

The floor is the time that the multiplications of valid tokens alone would take at the rate of this
machine's matrix product, measured here at the shape the model uses.

    python benchmarks/training.py [--dataset ml-100k|ml-1m-shaped|tiny]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from reference import plain_copy, plain_train_step

from tune_srs.batches import Batches, Group, NegativeSampler
from tune_srs.config import DataConfig, TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.sequences import Sequences
from tune_srs.train import BatchLoss, new_state, train_step

CPU = torch.device("cpu")


def random_sequences(users: int, items: int, mean_length: int, futures: int = 1) -> Sequences:
    """Lengths and popularity shaped like a log of films; nothing to learn in it."""
    generator = np.random.default_rng(0)
    lengths = np.clip(
        generator.lognormal(np.log(mean_length) - 0.5, 1.0, users), 5, 20 * mean_length
    )
    offsets = np.concatenate([[0], np.cumsum(lengths.astype(np.int64))])
    popularity = 1 / np.arange(10, items + 10)
    drawn = generator.choice(
        items, size=offsets[-1] + users * futures, p=popularity / popularity.sum()
    )
    drawn = (drawn + 1).astype(np.int32)
    return Sequences(
        drawn[: offsets[-1]], offsets, drawn[offsets[-1] :].reshape(users, futures), items
    )


def sequences_named(name: str) -> Sequences:
    if name == "ml-100k":
        return prepare(DataConfig(num_futures=1), Path("data")).validation
    if name == "ml-1m-shaped":
        return random_sequences(users=6040, items=3416, mean_length=165)
    return random_sequences(users=60, items=50, mean_length=12)


def median_ms(step: Callable[[], object], repeats: int, warm_up: int = 2) -> float:
    times = []
    for number in range(warm_up + repeats):
        started = time.perf_counter()
        step()
        if number >= warm_up:
            times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def step_flop(groups: list[Group], config: TrialConfig) -> float:
    """Floating-point operations of a step on its valid tokens: forward once, backward twice."""
    units, blocks = config.model.hidden_units, config.model.num_blocks
    scored = config.loss.num_positives + (config.loss.num_negatives or config.loss.num_positives)
    flop = 0.0
    for group in groups:
        lengths = group.lengths.double()
        linear = 6 * units**2 * lengths  # query, key, value, output, two of feed-forward
        attention = units * lengths * (lengths + 1)  # each position on those before it, twice
        flop += 2 * (blocks * (linear + attention) + scored * units * lengths).sum().item()
    return 3 * flop


def product_rate(tokens: int, units: int) -> float:
    """FLOP/s of (tokens, units) x (units, units)."""
    a, b = torch.randn(tokens, units), torch.randn(units, units)
    ms = median_ms(lambda: [a @ b for _ in range(20)], repeats=15) / 20
    return 2 * tokens * units**2 / (ms / 1e3)


def measure(
    sequences: Sequences, config: TrialConfig, repeats: int, plain: bool
) -> dict[str, float]:
    state = new_state(config, sequences.num_items)
    batches = Batches(sequences, config.train.batch_size, config.model.max_length, CPU)
    loss_of = BatchLoss(config.loss, NegativeSampler(sequences, CPU), CPU)
    epoch = list(batches.epoch(state.order))
    endless = iter(lambda: random.choice(epoch), None)
    tokens = sum(int(group.lengths.sum()) for groups in epoch for group in groups) / len(epoch)
    rate = product_rate(int(tokens / 8), config.model.hidden_units)
    flop = statistics.mean(step_flop(groups, config) for groups in epoch)
    ours = median_ms(lambda: train_step(state, next(endless), loss_of), repeats)
    result = {
        "P": config.loss.num_positives,
        "tokens a step": tokens,
        "GFLOP/s": rate / 1e9,
        "floor ms": 1e3 * flop / rate,
        "ours ms": ours,
        "share of floor": 1e3 * flop / rate / ours,
    }
    if plain:
        model = plain_copy(state.model, config.model).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
        users = [group.users.tolist() for group in epoch[0]]
        batch = [user for group in users for user in group]
        result["plain ms"] = median_ms(
            lambda: plain_train_step(model, optimizer, sequences, batch, config.loss),
            repeats=max(1, repeats // 5),
            warm_up=1,
        )
        result["plain / ours"] = result["plain ms"] / ours
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", choices=["ml-100k", "ml-1m-shaped", "tiny"])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--no-plain", action="store_true", help="leave the slow reference out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sequences = sequences_named(options.dataset)
    print(
        f"{options.dataset}: {sequences.num_users} users, one thread, medians of {options.repeats}"
    )
    for count in (1, 5, 20):
        config = TrialConfig().with_overrides({"loss.num_positives": count})
        row = measure(sequences, config, options.repeats, plain=not options.no_plain and count == 5)
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
