"""When to try again and when to give up, for the trials of a search and the runs of a study."""

from collections.abc import Sequence

RETRIES = 3  # of a trial or run whose worker died
FAILURES_IN_VAIN = 5  # that may fail before any has succeeded


def died(reason: str) -> str:
    """Return why a trial or run failed whose worker has died once more than it may be retried."""
    return f"the worker died {RETRIES + 1} times: {reason[:300]}"


def in_vain(failures: Sequence[str | None], succeeded: bool, kind: str) -> str | None:
    """Return why going on would waste the budget; None if it would not.

    `failures`: the reason of each `kind`, such as trials, that has failed, the first one first.
    """
    if succeeded or len(failures) < FAILURES_IN_VAIN:
        return None
    return f"all of {len(failures)} {kind} failed, the first for this reason: {failures[0]}"
