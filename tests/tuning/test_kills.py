"""Everything ended with SIGKILL: nothing is lost, and nothing is done twice."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support import driver
from support.moments import SEARCH, ended
from support.searches import FIXED, METRIC, check_study, run, same_curves, write_space

from tune_srs.runs.journal import Journal
from tune_srs.runs.run import Run
from tune_srs.space.objective import Objective
from tune_srs.space.space import Space
from tune_srs.storage import Storage

SIZE = 2_000_000
# For each folder a process that does what the driver and the workers of a search do, until a timer
# of its own ends it. The timer counts the time that it computes, however busy the machine is.
WRITERS = f"""
import os, random, signal, sys
from pathlib import Path
from tune_srs.runs import tables
from tune_srs.runs.journal import Journal
from tune_srs.runs.paths import RunPaths
from tune_srs.space.objective import Objective
from tune_srs.space.space import Space
from tune_srs.storage import Storage

params = {{"train.lr": {{"type": "float", "low": 0.1, "high": 0.2}}}}
space = Space.from_dict({{"params": params}}, "space")
dice = random.Random(0)

def write(folder):
    storage = Storage(str(folder / "tune"))
    record = Journal(folder, [Objective("{METRIC}")])
    for trial in range(10**6):
        record.begin(trial, {{"train.lr": 0.1}})
        for epoch in range(1, 4):
            storage.write("trial_00000/last.safetensors", bytes([epoch]) * {SIZE})
            record.report(trial, epoch, {{"{METRIC}": epoch / 10}})
        record.end(trial, "complete")
        tables.write_trials(RunPaths(folder).trials, record.trials, space)

for folder in sys.argv[1:]:
    seconds = dice.uniform(0.005, 0.2)
    if (child := os.fork()) == 0:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        write(Path(folder))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_files_are_whole_whenever_their_writer_is_killed(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(20)]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, *map(str, folders)], capture_output=True, text=True
    )
    assert done.stdout.split() == [str(-signal.SIGPROF)] * len(folders), done.stderr
    trials = 0
    for folder in folders:
        content = Storage(str(folder / "tune")).read("trial_00000/last.safetensors")
        assert content is None or (len(content) == SIZE and len(set(content)) == 1)
        record = Journal(folder, [Objective(METRIC)])
        assert all((trial.epochs, trial.status) == (3, "complete") for trial in record.trials[:-1])
        table = folder / "trials.csv"
        rows = len(pd.read_csv(table)) if table.exists() else 0
        assert len(record.trials) - rows in (0, 1, 2)
        trials += len(record.trials)
    assert trials > len(folders)


SHORT = {
    "fixed": FIXED | {"train.max_epochs": 6},
    "search": {
        "metric": METRIC,
        "trials": 4,
        "sampler": {"type": "random"},
        "scheduler": {"type": "none"},
    },
}


@pytest.mark.slow
def test_a_search_killed_at_every_moment_ends_like_one_that_was_not(tmp_path: Path) -> None:
    write_space(tmp_path, **SHORT)
    folder = tmp_path / "results" / "cut"
    for number, moment in enumerate(SEARCH):
        how = ["--resume"] if folder.exists() else ["space.yaml"]
        how += ["--at-once", str(number % 2 + 1)]  # of sessions with one worker, and with two
        done = ended(tmp_path, "SIGKILL", moment, "search", *how, "--name", "cut")
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        assert not (folder / "best").exists()
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")

    whole, _ = driver.search(
        tmp_path / "results" / "whole", Space.from_yaml(tmp_path / "space.yaml")
    )
    same_curves(folder, whole.folder)
    tables = [one.trials.drop(columns="seconds") for one in (Run(folder), whole)]
    kept = [name for name in tables[0] if "time/" not in str(name)]
    pd.testing.assert_frame_equal(tables[0][kept], tables[1][kept])
    check_study(folder)
    left = [path for path in folder.rglob("*") if path.name.startswith(".aside-")]
    assert left == list(folder.rglob("last.safetensors")) == []
    bests = [
        json.loads((one / "best" / "metrics.json").read_text()) for one in (folder, whole.folder)
    ]
    assert bests[0]["test"] == bests[1]["test"]
