"""What a search takes beyond the training and evaluation of its trials.

python benchmarks/search_overhead.py --trials 64
"""

import argparse
import tempfile
import time
from pathlib import Path

from tune_srs.datasets.prepare import prepare
from tune_srs.runs.journal import Journal, TrialRecord
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources, available_cpus
from tune_srs.runs.run import Run
from tune_srs.space.space import Space
from tune_srs.tuning.console import Console
from tune_srs.tuning.search import search

SPACE = {
    "description": "short trials of one kind",
    "search": {"sampler": {"type": "random"}, "scheduler": {"type": "none"}},
    "params": {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}},
}


def measure(dataset: str, trials: int, epochs: int) -> dict[str, float]:
    """One search of `trials` trials, as many at once as there are CPUs."""
    fixed: dict[str, object] = {"data.name": dataset, "train.max_epochs": epochs}
    if dataset == "synthetic":
        fixed |= {"data.synthetic.users": 60, "model.max_length": 50}
    space = Space.from_dict(SPACE, "benchmark", fixed=fixed, search={"trials": trials})
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as parent:
        data = prepare(space.base.data, Path("data" if dataset == "ml-100k" else parent))
        folder = Path(parent) / "overhead"
        plan = Plan("overhead", space, 0, Resources(gpus_per_trial=0))
        started = time.perf_counter()
        search(plan, data, folder, Watch(memory), resume=False)
        wall = time.perf_counter() - started
        table = Run(folder).epochs
    busy = table[["time/train_s", "time/evaluate_s"]].to_numpy().sum()
    return {
        "trials": trials,
        "wall s": wall,
        "training and evaluation s": busy,
        "wall / (that / CPUs)": wall / (busy / available_cpus()),
    } | {
        f"workers' GiB after {share}%": memory[max(0, len(memory) * share // 100 - 1)]
        for share in (10, 25, 50, 75, 100)
    }


class Watch(Console):
    """Notes the workers' memory whenever a trial has ended."""

    def __init__(self, memory: list[float]) -> None:
        super().__init__()
        self._memory = memory

    def trial_ended(self, record: TrialRecord, journal: Journal, space: Space) -> None:
        self._memory.append(worker_memory())


def worker_memory() -> float:
    """GiB that Ray's workers take at the moment, shared memory included (Linux)."""
    kilobytes = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if (status.parent / "cmdline").read_bytes().startswith(b"ray::"):
                kilobytes += int(status.read_text().partition("VmRSS:")[2].split()[0])
        except (OSError, IndexError):  # it ended meanwhile
            continue
    return kilobytes / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", choices=("ml-100k", "synthetic"))
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    row = measure(options.dataset, options.trials, options.epochs)
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
