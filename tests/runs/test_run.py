"""What reads a run opens each of its files once, and needs little to do so."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.exports import write_run

from tune_srs.errors import ConfigError
from tune_srs.runs import tables
from tune_srs.runs.run import Run

# runs a command and prints which files it opened, one line per opening
COUNTED = """
import os, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from tune_srs.cli.app import main
status = 0
try:
    main()
except SystemExit as end:
    status = end.code or 0
print("\\n".join(["OPENED", *opened]))
sys.exit(status)
"""
# imports and does what a command does, and prints which of the heavy packages came along
IMPORTED = """
import sys
from tune_srs.cli.app import main
sys.argv = ["tune-srs", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
print("IMPORTED", *{{"torch", "ray", "optuna"}} & set(sys.modules))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `results/tiny`, which has ended, and its data."""
    folder = tmp_path_factory.mktemp("read")
    write_run(folder)
    return folder


def opened_by(folder: Path, arguments: list[str]) -> list[str]:
    """Return what a command opens, one name per opening."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("OPENED")[2].split("\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["results", "tiny"],
        ["results", "tiny", "results/tiny"],
        ["report", "tiny"],
        ["export", "tiny", "--to", "exported"],
    ],
)
def test_a_command_opens_the_plan_and_the_journal_once(folder: Path, arguments: list[str]) -> None:
    opened = opened_by(folder, arguments)
    times = 2 if len(arguments) == 3 and arguments[0] == "results" else 1  # two runs are asked for
    assert sum(name.endswith("tiny/search.yaml") for name in opened) == times
    assert sum(name.endswith("tiny/journal.jsonl") for name in opened) == times


def test_of_two_runs_only_a_journal_that_is_ahead_of_its_table_is_read(
    folder: Path, tmp_path: Path
) -> None:
    for name, written in (("ahead", -1), ("ended", 1)):  # the table, s after the journal
        run = Run(shutil.copytree(folder / "results" / "tiny", tmp_path / "results" / name))
        tables.write_trials(run.paths.trials, run.records, run.space)
        noted = run.paths.journal.stat().st_mtime
        os.utime(run.paths.trials, (noted, noted + written))
    opened = opened_by(tmp_path, ["results", "ahead", "ended"])
    names = ("ahead/search.yaml", "ended/search.yaml", "ahead/journal.jsonl", "ended/journal.jsonl")
    assert [sum(path.endswith(name) for path in opened) for name in names] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    "arguments", [["results", "tiny"], ["schema", "space"], ["schema", "study"]]
)
def test_what_reads_a_run_imports_neither_torch_nor_ray(folder: Path, arguments: list[str]) -> None:
    code = IMPORTED.format(arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("IMPORTED")


def test_what_watches_a_run_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, tune_srs.runs.monitor, tune_srs.runs.run; "
        "print(*{'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_run_that_goes_on_is_as_far_as_it_is(folder: Path, tmp_path: Path) -> None:
    run = Run(folder / "results" / "tiny")
    (tmp_path / "search.yaml").write_text(run.paths.settings.read_text())
    begun = Run(tmp_path)
    assert (begun.records, begun.winner, begun.test, begun.ranks) == ([], None, None, None)
    assert begun.trials.empty
    assert begun.epochs.empty
    assert begun.baselines.empty


def test_a_run_gives_its_winner_and_its_tables(folder: Path) -> None:
    run = Run.load("tiny", folder / "results")
    assert run.winner is not None
    scores = json.loads(run.paths.best_metrics.read_text())
    assert run.winner.number == scores["trial"]
    assert run.value(run.winner) == run.trials[run.metric].max()
    assert run.epochs.groupby("trial").size().tolist() == run.trials["epochs"].tolist()
    assert repr(run) == f"Run('{folder / 'results' / 'tiny'}')"
    with pytest.raises(ConfigError, match="did you mean tiny"):
        Run.load("tini", folder / "results")
