"""A search that had ended goes on: with larger limits, or with its failed trials again.

The mark `.extending` says so until the search has ended again. As long as there is something in it,
trials are still to be taken up; so a kill in between loses none.
"""

from pathlib import Path

from tune_srs.datasets.prepared import PreparedData
from tune_srs.files import write_aside
from tune_srs.runs.journal import Journal, TrialRecord
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.tuning.early_stopping import EARLY, Judge

AGAIN = "with failed trials"


def begin(plan: Plan, data: PreparedData, folder: Path, retry_failed: bool) -> None:
    """Keep the `plan`, whose limits are larger, and mark the run in `folder`."""
    mark = AGAIN if retry_failed else "without failed trials"
    paths = RunPaths(folder)
    write_aside(paths.extending, lambda aside: aside.write_text(mark, encoding="utf-8"))
    plan.write(data, paths.settings)


def take_up(paths: RunPaths, journal: Journal, judge: Judge) -> None:
    """Take up the trials that the end of the search has cut off, if that is still to be done.

    Those that had waited wait again; those that a spent budget had stopped go on, and failed ones
    where that is asked for. Their checkpoints are gone: they train from the start, through the same
    epochs.
    """
    if not paths.extending.exists() or not (mark := paths.extending.read_text(encoding="utf-8")):
        return
    for record in list(journal.trials):
        if record.status == "stopped" and record.reason == EARLY and judge.waits:
            journal.wait(record.number)
        elif _goes_on(record, mark == AGAIN):
            journal.go_on(record.number)
    write_aside(paths.extending, lambda aside: aside.write_text("", encoding="utf-8"))


def _goes_on(record: TrialRecord, failed_too: bool) -> bool:
    if record.status == "failed":
        return failed_too
    return record.status == "stopped" and record.reason != EARLY
