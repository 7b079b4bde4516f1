"""`tune-srs`, ended by a signal at a moment that has a name, however busy the machine is.

python -m support.moments SIGNAL MOMENT ARGUMENT...
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

from support.searches import family
from tune_srs.cli.app import main
from tune_srs.exports import exported
from tune_srs.runs import begin
from tune_srs.runs.journal import Journal
from tune_srs.studies import run as runs
from tune_srs.tuning import winner


@dataclass(frozen=True)
class Moment:
    """Before or after a call of a function, in the process of the command."""

    owner: Any  # the module or class
    function: str
    after: bool
    call: int = 1  # which one


SEARCH = {
    "the folder is made": Moment(begin, "make_folder", after=True),
    "a trial is noted and has not started": Moment(Journal, "begin", after=True),
    "an epoch is saved and not noted": Moment(Journal, "report", after=False, call=3),
    "an epoch is noted and TensorBoard not told": Moment(Journal, "report", after=True, call=4),
    "an end is noted and its checkpoint kept": Moment(Journal, "end", after=True),
    "trials.csv is being written": Moment(pd.DataFrame, "to_csv", after=True),
    "all trials have ended": Moment(winner, "export_winner", after=False),
    "best/ is being written": Moment(exported, "seal", after=True),
}
STUDY = {"a run is written": Moment(runs, "write", after=True)}


def ended(
    folder: Path, name: str, moment: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with `arguments` in `folder`; the signal `name` comes at `moment`."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "support.moments", name, moment, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def end(number: signal.Signals) -> None:
    """Send a signal to this process; SIGKILL first to all that it started."""
    own = os.getpid()
    if number == signal.SIGKILL:
        for pid in family(own) - {own}:
            os.kill(pid, number)
    os.kill(own, number)


def ending(moment: Moment, number: signal.Signals) -> Callable[..., Any]:
    """Return the function of `moment`, which at its time ends the process."""
    function, calls = getattr(moment.owner, moment.function), 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment.call and not moment.after:
            end(number)
        result = function(*arguments, **named)
        if calls == moment.call and moment.after:
            end(number)
        return result

    return call


if __name__ == "__main__":
    number, moment = signal.Signals[sys.argv.pop(1)], (SEARCH | STUDY)[sys.argv.pop(1)]
    with patch.object(moment.owner, moment.function, ending(moment, number)):
        main()
