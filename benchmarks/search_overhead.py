"""What a search takes beyond the training and evaluation of its trials.

python benchmarks/search_overhead.py --trials 64
"""

import argparse
import tempfile
import time
from pathlib import Path

from tune_srs import results
from tune_srs.datasets.prepare import prepare
from tune_srs.plan import Plan, Resources, available_cpus
from tune_srs.search import run
from tune_srs.space import Space

SPACE = {
    "description": "short trials of one kind",
    "search": {"sampler": {"type": "random"}, "scheduler": {"type": "none"}},
    "params": {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}},
}


def measure(trials: int, epochs: int, users: int) -> dict[str, float]:
    """One search of `trials` trials, as many at once as there are CPUs."""
    fixed = {
        "data.name": "synthetic",
        "data.synthetic.users": users,
        "model.max_length": 50,
        "train.max_epochs": epochs,
    }
    space = Space.from_dict(SPACE, "benchmark", fixed=fixed, trials=trials)
    with tempfile.TemporaryDirectory() as parent:
        data = prepare(space.base.data, Path(parent))
        folder = Path(parent) / "overhead"
        started = time.perf_counter()
        run(
            Plan("overhead", space, 0, Resources(gpus_per_trial=0)), data, folder, lambda line: None
        )
        wall = time.perf_counter() - started
        table = results.epochs(folder)
    busy = table[["time/train_s", "time/evaluate_s"]].to_numpy().sum()
    return {
        "trials": trials,
        "wall s": wall,
        "training and evaluation s": busy,
        "wall / (that / CPUs)": wall / (busy / available_cpus()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--users", type=int, default=400)
    options = parser.parse_args()
    row = measure(options.trials, options.epochs, options.users)
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
