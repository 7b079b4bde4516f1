"""What a report reads of a run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from tune_srs.runs import journal, ranks, tables
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.plan import Plan
from tune_srs.space.space import Space


@dataclass(frozen=True)
class Search:
    """A run: its plan, its trials, and what they were worth."""

    run: tables.Run
    plan: Plan
    records: list[TrialRecord]
    test_ranks: pd.DataFrame | None  # see `ranks.read`

    @classmethod
    def read(cls, folder: Path) -> "Search":
        """Everything from the files of the run, which may still be going on."""
        plan = Plan.read(folder)
        search = plan.space.search
        recorded = (folder / journal.FILE).exists()
        records = journal.replay(folder, search.metrics, search.modes)[0] if recorded else []
        return cls(tables.load(folder), plan, records, ranks.read(folder))

    @property
    def space(self) -> Space:
        return self.plan.space

    @property
    def metric(self) -> str:
        """The one that decides, of the validation futures."""
        return self.space.search.metrics[0]

    @property
    def rising(self) -> bool:
        """Whether more of the metric is better."""
        return self.space.search.modes[0] == "max"

    @cached_property
    def scored(self) -> list[TrialRecord]:
        """Trials that have not failed and have a value."""
        return [record for record in self.records if record.status != "failed" and record.epochs]

    def value(self, record: TrialRecord) -> float:
        """The metric at the best epoch of a trial that has one."""
        return record.best_metrics[self.metric]

    @cached_property
    def winner(self) -> TrialRecord | None:
        """The best trial, the earlier one of equals."""
        sign = 1 if self.rising else -1
        return max(self.scored, key=lambda record: sign * self.value(record), default=None)
