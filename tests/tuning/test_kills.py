"""Everything ended with SIGKILL, at many moments: nothing is lost, and nothing is done twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from support.searches import (
    FIXED,
    METRIC,
    check_study,
    kill_family,
    lines_with,
    run,
    same_curves,
    started,
    write_space,
)

from tune_srs.runs.journal import Journal
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.run import Run
from tune_srs.space.objective import Objective
from tune_srs.storage import Storage

SIZE = 2_000_000
# A process of one thread that forks a writer for each folder it is told of. The writer does what
# the driver and the workers of a search do, and nothing else.
WRITERS = f"""
import os, signal, sys
from pathlib import Path
from tune_srs.runs import tables
from tune_srs.runs.journal import Journal
from tune_srs.space.space import Space
from tune_srs.storage import Storage

params = {{"train.lr": {{"type": "float", "low": 0.1, "high": 0.2}}}}
space = Space.from_dict({{"params": params}}, "space")
signal.signal(signal.SIGCHLD, signal.SIG_IGN)

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

for line in sys.stdin:
    if (child := os.fork()) == 0:
        write(Path(line.strip()))
    print(child, flush=True)
"""


def test_files_are_whole_whenever_their_writer_is_killed(tmp_path: Path) -> None:
    dice = random.Random(0)
    folders = [tmp_path / str(number) for number in range(30)]
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for folder in folders:
            folder.mkdir()
            print(folder, file=writers.stdin, flush=True)
            child = int(writers.stdout.readline())
            time.sleep(dice.uniform(0.005, 0.2))  # the moment of the kill; nothing is waited for
            os.kill(child, signal.SIGKILL)
    for folder in folders:
        content = Storage(str(folder / "tune")).read("trial_00000/last.safetensors")
        assert content is None or (len(content) == SIZE and len(set(content)) == 1)
        record = Journal(folder, [Objective(METRIC)])
        assert all((trial.epochs, trial.status) == (3, "complete") for trial in record.trials[:-1])
        table = folder / "trials.csv"
        ended = len(pd.read_csv(table)) if table.exists() else 0
        assert len(record.trials) - ended in (0, 1, 2)


def kill_at(moment: Callable[[Path], bool]) -> Callable[[Path, subprocess.Popen[str]], None]:
    """Wait until `moment(results/cut)`, or for the end, then kill."""

    def wait(folder: Path, process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not moment(folder / "results" / "cut"):
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.002)

    return wait


def after(seconds: float) -> Callable[[Path, subprocess.Popen[str]], None]:
    def wait(_: Path, process: subprocess.Popen[str]) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)

    return wait


def more(text: str, count: int) -> Callable[[Path, subprocess.Popen[str]], None]:
    """After so many more lines of the journal with `text`."""

    def wait(folder: Path, process: subprocess.Popen[str]) -> None:
        before = lines_with(folder / "results" / "cut", text)
        kill_at(lambda run: lines_with(run, text) >= before + count)(folder, process)

    return wait


MOMENTS = [
    after(0.3),  # while it imports
    after(2.0),
    after(3.5),  # while Ray starts
    kill_at(lambda run: run.exists()),
    kill_at(lambda run: RunPaths(run).journal.exists()),
    more('"begin"', 1),
    kill_at(lambda run: any(run.glob("tune/*/.aside-*"))),  # while a checkpoint is written
    kill_at(lambda run: any(run.glob("tune/*/last.safetensors"))),
    more('"epoch"', 1),
    more('"epoch"', 7),
    kill_at(lambda run: any(run.glob("tune/*/.aside-*"))),
    more('"epoch"', 30),
    more('"end"', 1),
    kill_at(lambda run: any(run.glob(".aside-*"))),  # while trials.csv is written
    after(1.2),
    after(5.0),  # while the workers start
    after(2.7),
    after(7.0),
    more('"epoch"', 13),
    kill_at(lambda run: lines_with(run, '"end"') == TRIALS),  # before the export
    kill_at(lambda run: any(run.glob(".aside-*/best"))),  # in it
]
TRIALS = 10
LONG = {
    "fixed": FIXED | {"train.max_epochs": 40},
    "search": {
        "metric": METRIC,
        "trials": TRIALS,
        "sampler": {"type": "random"},
        "scheduler": {"type": "none"},
    },
}


@pytest.mark.slow
def test_a_search_killed_at_many_moments_ends_like_one_that_was_not(tmp_path: Path) -> None:
    write_space(tmp_path, **LONG)
    folder = tmp_path / "results" / "cut"
    killed = 0
    for number, moment in enumerate(MOMENTS):
        begun = (folder / "search.yaml").exists()
        how = ["--resume"] if begun else ["space.yaml"]
        how += ["--at-once", str(number % 2 + 1)]  # of sessions with one worker, and with two
        with started(tmp_path, "search", *how, "--name", "cut") as process:
            moment(tmp_path, process)
            if process.poll() is None:
                kill_family(process)
                killed += 1
            else:
                assert process.returncode == 0, process.communicate()
        if (folder / "best").exists():
            break
        record = Journal(folder, [Objective(METRIC)]) if folder.exists() else None
        assert record is None or len(record.trials) <= TRIALS
    if not (folder / "best").exists():
        done = run(tmp_path, "search", "--resume", "--name", "cut")
        assert (done.returncode, done.stderr) == (0, "")
    assert killed >= 20

    assert run(tmp_path, "search", "space.yaml", "--name", "whole").returncode == 0
    whole = tmp_path / "results" / "whole"
    same_curves(folder, whole)
    tables = [Run(one).trials.drop(columns="seconds") for one in (folder, whole)]
    kept = [name for name in tables[0] if "time/" not in str(name)]
    pd.testing.assert_frame_equal(tables[0][kept], tables[1][kept])
    check_study(folder)
    left = [path for path in folder.rglob("*") if path.name.startswith(".aside-")]
    assert left == list(folder.rglob("last.safetensors")) == []
    bests = [json.loads((one / "best" / "metrics.json").read_text()) for one in (folder, whole)]
    assert bests[0]["test"] == bests[1]["test"]
