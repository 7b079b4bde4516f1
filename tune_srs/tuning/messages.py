"""What a worker tells the driver of a search: an epoch that is done, or a trial that failed."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EpochDone:
    """A trial has trained, scored and saved an epoch."""

    epoch: int  # from 1
    metrics: dict[str, float]  # val/…, train/loss, time/…
    finished: bool  # the trial ends by itself with this epoch
    note: str | None = None  # for the user, such as why a trial trains anew


@dataclass(frozen=True)
class TrialFailed:
    """A trial has raised. Tune is not told of an error, since it would run the trial again."""

    reason: str  # one line
    traceback: str
    fatal: bool = False  # the search cannot go on, such as without space on the disk


Message = EpochDone | TrialFailed


def to_result(message: Message) -> dict[str, Any]:
    """Return the message as a result that Tune takes; Tune would flatten a mapping."""
    return {"message": message}


def from_result(result: dict[str, Any]) -> Message:
    """Return the message in a result; what Tune has added is left out."""
    message: Message = result["message"]
    return message
