"""How a training step and an evaluation grow with the data, on one thread.

Steps of all catalogues alternate, so that a busy minute slows all of them. Memory is the peak of
the whole process, data included.

    python benchmarks/scaling.py training --items 10000 1000000
    python benchmarks/scaling.py evaluation --users 100000 --items 200000
"""

import argparse
import itertools
import resource
import statistics
import time
from collections.abc import Callable

import torch
from shapes import random_split

from tune_srs.config.settings import TrialConfig
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.model.sasrec import SASRec
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batches import Batches
from tune_srs.training.loop import new_state, touches_few, train_step

CPU = torch.device("cpu")
MEAN_LENGTH = 100


def step_of(config: TrialConfig, users: int, items: int) -> Callable[[], object]:
    """A training step on the next batch of random histories."""
    split = random_split(users, items, MEAN_LENGTH)
    state = new_state(config, items)
    state.model.train()
    batches = Batches(split.training, config.train.batch_size, config.model.max_length, CPU)
    loss_of = BatchLoss(config, split.training, CPU, touches_few(config, items))
    endless = itertools.cycle(itertools.islice(batches.epoch(state.order), 64))
    return lambda: train_step(state, batches.batch(next(endless)), loss_of)


def training(users: int, catalogues: list[int], repeats: int) -> None:
    config = TrialConfig().with_overrides({"preset": "original", "loss.num_positives": 5})
    steps = [step_of(config, users, items) for items in catalogues]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(3 + repeats):
        for step, taken in zip(steps, times, strict=True):
            started = time.perf_counter()
            step()
            taken.append(1e3 * (time.perf_counter() - started))
    medians = [statistics.median(taken[3:]) for taken in times]
    for items, median in zip(catalogues, medians, strict=True):
        update = "touched rows" if touches_few(config, items) else "all rows"
        print(f"items {items}  {update}  step ms {median:.4g}  ratio {median / medians[0]:.3g}")
    print(f"peak GiB {peak():.3g}")


def evaluation(most_users: int, most_items: int, num_futures: int) -> None:
    """The whole, a quarter of the users, a quarter of the items."""
    config = TrialConfig.from_dict({"preset": "original"})
    sizes = ((most_users // 4, most_items), (most_users, most_items // 4), (most_users, most_items))
    for users, items in ((64, 1000), *sizes):  # the first compiles the kernels, and warms up
        split = random_split(users, items, MEAN_LENGTH // 5, num_futures)
        model = SASRec(config.model, items, torch.Generator().manual_seed(0)).eval()
        evaluator = Evaluator(split, config.evaluation, CPU)
        started = time.perf_counter()
        evaluator(model)
        seconds = time.perf_counter() - started
        print(
            f"users {users}  items {items}  seconds {seconds:.4g}  "
            f"ns a user and item {1e9 * seconds / (users * items):.3g}  peak GiB {peak():.3g}",
            flush=True,
        )


def peak() -> float:
    """The most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("training")
    one.add_argument("--users", type=int, default=100_000)
    one.add_argument("--items", type=int, nargs="+", default=[10_000, 1_000_000])
    one.add_argument("--repeats", type=int, default=25)
    other = parts.add_parser("evaluation")
    other.add_argument("--users", type=int, default=100_000)
    other.add_argument("--items", type=int, default=200_000)
    other.add_argument("--futures", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.users} users, histories of about {MEAN_LENGTH} items, one thread")
    if options.part == "training":
        training(options.users, options.items, options.repeats)
    else:
        evaluation(options.users, options.items, options.futures)


if __name__ == "__main__":
    main()
