"""What a search shows while it runs: a live display in a terminal, plain lines elsewhere."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_srs.commands import place, typed
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.statistics import of_repeats
from tune_srs.runs.journal import Journal, TrialRecord
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.run import Run
from tune_srs.space.search import seconds
from tune_srs.space.space import Space

WORDS: dict[Any, str] = {"complete": "complete", "stopped": "stopped early", "failed": "failed"}


class Console:
    """Prints lines, and between them how a search stands."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        # its own hold on stdout: while a search runs, what else is printed goes to a log
        self._console = console or rich.console.Console(file=sys.stdout, highlight=False)

    def say(self, line: str) -> None:
        """A line of news, above the live display where there is one."""
        self._console.print(Text(line), soft_wrap=True)

    @contextmanager
    def watching(self, journal: Journal, space: Space) -> Iterator[None]:
        """In a terminal, show how the search stands for as long as the block lasts."""
        if not self._console.is_terminal:
            yield
            return
        before = journal.elapsed, sum(record.epochs for record in journal.trials)

        def render() -> RenderableType:
            return state(journal, space, *before)

        with Live(console=self._console, get_renderable=render, transient=True):
            yield

    def trial_ended(self, record: TrialRecord, journal: Journal, space: Space) -> None:
        """Print a line per trial; in a terminal for failures only: the display has the rest."""
        if self._console.is_terminal and record.status != "failed":
            return
        metric, result = space.search.metrics[0], record.reason
        if record.status != "failed" and record.best_metrics:
            result = f"{metric} {record.best_metrics[metric]:.4f}"
        self.say(
            f"[{journal.ended()}/{space.trials}] trial {record.number} {WORDS[record.status]} "
            f"after {record.epochs} epochs: {result}"
        )


def opening(plan: Plan, data: PreparedData, folder: Path) -> list[str]:
    """What is about to run, before anything takes time."""
    space, facts, search = plan.space, data.manifest, plan.space.search
    aims = ", ".join(f"{one.mode} {one.metric}" for one in search.objectives)
    validation, test = map(number_of_futures, (data.validation, data.test))
    lines = [
        f"data: {space.base.data.name}, {facts['users']} users, {facts['items']} items, "
        f"{facts['interactions']} interactions, {validation} futures per user to validate and "
        f"{test} to test; fingerprint {data.fingerprint[:12]}",
        of_repeats(facts, space.base.evaluation.exclude_history),
        f"search: {space.trials} trials of at most {space.base.train.max_epochs} epochs, "
        f"for {aims}; Ray's log: {RunPaths(folder).log}",
    ]
    if (note := space.early_stopping_note()) is not None:
        lines.append(note)
    return [*lines, f"watch it: {typed('tune-srs')} monitor {plan.name}{place(folder)}"]


def number_of_futures(split: Split) -> str:
    """The number of futures of a user: `10`, or `1 to 10`."""
    least, most = int(split.future_counts.min()), split.num_futures
    return f"{most}" if least == most else f"{least} to {most}"


def closing(plan: Plan, folder: Path) -> list[str]:
    """What a search came to, and where that is."""
    run = Run(folder)
    counts, *rest = run.conclusion()
    return [
        f"{counts}; all of them: {typed('tune-srs')} results {plan.name}{place(folder)}",
        *rest,
        f"the best configuration and model: {run.paths.best}",
        f"see it in TensorBoard: {typed('tune-srs')} monitor {plan.name}{place(folder)}",
    ]


def state(
    journal: Journal, space: Space, elapsed_before: float, epochs_before: int
) -> RenderableType:
    """How the search stands; `…_before` is what earlier sessions did."""
    trials = list(journal.trials)
    count: Counter[str] = Counter(record.status for record in trials)
    ended = len(trials) - count["unfinished"]
    max_epochs = space.base.train.max_epochs
    begun = sum(record.epochs for record in trials if not record.ended) / max_epochs
    epochs = sum(record.epochs for record in trials)
    rate = (epochs - epochs_before) / max(journal.elapsed - elapsed_before, 1e-9)

    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=space.trials, completed=ended + begun, width=40),
        f"{ended}/{space.trials} trials",
        f"{clock(journal.elapsed)} gone, {_remaining(journal, space, ended + begun)} left",
    )
    numbers = ", ".join(
        [f"{count['unfinished']} running"]
        + [f"{count[status]} {word}" for status, word in WORDS.items()]
    )
    rows: list[Any] = [bar, Text(f"{numbers}; {rate:.2f} epochs/s")]
    if best := journal.best():
        metric = space.search.metrics[0]
        values = ", ".join(f"{name}={value}" for name, value in best.values.items())
        rows.append(
            Text(f"best: trial {best.number}, {metric} {best.best_metrics[metric]:.4f} ({values})")
        )
    return Group(*rows)


def _remaining(journal: Journal, space: Space, done: float) -> str:
    estimates = []
    if done:
        estimates.append(journal.elapsed / done * (space.trials - done))
    if space.search.time_budget:
        estimates.append(seconds(space.search.time_budget) - journal.elapsed)
    return clock(max(0.0, min(estimates))) if estimates else "?"


def clock(duration: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
