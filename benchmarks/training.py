"""A training step against the plain reference and against the arithmetic floor, on one thread.

The floor is the time that the multiplications of valid tokens alone would take at the rate of this
machine's matrix product, the best of those measured here at the shapes of a batch and of parts of
it. Attention counts every pair of a row's tokens, as is usual; the causal floor only those that the
causal mask leaves.

    python benchmarks/training.py --dataset ml-100k --architecture default
"""

import argparse
import itertools
import statistics

import torch
from reference import plain_copy, plain_train_step
from shapes import DATASETS, median_ms, split_named

from tune_srs.config.presets import PRESETS
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batch_negatives import num_negatives
from tune_srs.training.batches import Batch, Batches
from tune_srs.training.loop import new_state, train_step

CPU = torch.device("cpu")


def step_flop(batch: Batch, config: TrialConfig, causal: bool) -> float:
    """Floating-point operations of a step on its valid tokens: forward once, backward twice."""
    model = config.model
    units, blocks = model.hidden_units, model.num_blocks
    scored = config.loss.num_positives + num_negatives(config.loss)
    assert batch.offsets is not None
    lengths = batch.offsets.diff()
    tokens, pairs = int(lengths.sum()), int((lengths * lengths).sum())
    if causal:
        pairs = (pairs + tokens) // 2
    inner = model.feed_forward_factor * (3 if model.activation == "swiglu" else 2)
    # query, key, value, output, the feed-forward, gates
    linear = (4 + inner + (2 if model.gates else 0)) * units**2 * tokens
    return 3 * 2 * (blocks * (linear + 2 * units * pairs) + scored * units * tokens)


def product_rate(tokens: int, units: int) -> float:
    """FLOP/s of (tokens, units) x (units, units)."""
    a, b = torch.randn(tokens, units), torch.randn(units, units)
    ms = median_ms(lambda: [a @ b for _ in range(20)], repeats=25, warm_up=5) / 20
    return 2 * tokens * units**2 / (ms / 1e3)


def measure(split: Split, config: TrialConfig, repeats: int, plain: bool) -> dict[str, float]:
    """One row of the table; `plain` asks for the reference, too."""
    state = new_state(config, split.num_items)
    batches = Batches(split.training, config.train.batch_size, config.model.max_length, CPU)
    loss_of = BatchLoss(config, split.training, CPU)
    epoch = list(batches.epoch(state.order))
    epoch = epoch[:-1] or epoch  # the last one may be smaller
    endless = itertools.cycle(epoch)
    state.model.train()

    def step() -> None:
        train_step(state, batches.batch(next(endless)), loss_of)

    ours = median_ms(step, repeats, warm_up=3)
    seen = [batches.batch(users) for users in epoch]
    tokens = statistics.mean(len(batch.items) for batch in seen)
    units, parts = config.model.hidden_units, (1, 8, len(epoch[0]))
    rate = max(product_rate(max(1, int(tokens / part)), units) for part in parts)
    floor, causal_floor = (
        1e3 * statistics.mean(step_flop(batch, config, causal) for batch in seen) / rate
        for causal in (False, True)
    )
    row = {
        "P": config.loss.num_positives,
        "tokens a step": tokens,
        "GFLOP/s": rate / 1e9,
        "ours ms": ours,
        "floor / ours": floor / ours,
        "causal floor / ours": causal_floor / ours,
    }
    if plain:
        model = plain_copy(state.model, config.model).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr, betas=(0.9, 0.98))
        users = epoch[0].tolist()
        row["plain ms"] = median_ms(
            lambda: plain_train_step(model, optimizer, split.training, users, config.loss),
            repeats=max(1, repeats // 5),
        )
        row["plain / ours"] = row["plain ms"] / ours
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", help=DATASETS)
    parser.add_argument("--architecture", default="original", choices=("default", *PRESETS))
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = split_named(options.dataset)
    print(f"{options.dataset}, {split.num_users} users, one thread, median of the steps")
    for count in (1, 5, 20):
        changes = {"loss.num_positives": count, "train.batch_size": 128}
        if options.architecture != "default":
            changes["preset"] = options.architecture
        config = TrialConfig().with_overrides(changes)
        plain = count == 5 and options.architecture == "original"
        row = measure(split, config, options.repeats, plain)
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
