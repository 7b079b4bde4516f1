"""A results folder → pandas tables. Reads files only: Ray need not be there."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tune_srs.config import nearest, read_yaml
from tune_srs.errors import ConfigError, DataError

EPOCHS = "epochs.jsonl"  # of a trial, in its folder
SHOWN_METRICS = ("ndcg@10", "ndcg_rel@10", "hr@10", "next/ndcg@10")


def run_folder(results: Path, name: str) -> Path:
    """The folder of an existing run, or a `ConfigError` that names the runs there are."""
    folder = results / name
    if not (folder / "search.yaml").is_file():
        runs = sorted(path.parent.name for path in results.glob("*/search.yaml"))
        hint = nearest(name, runs) if runs else "; there are none yet, see tune-srs search --help"
        raise ConfigError(f"{results}: no results named {name}{hint}")
    return folder


def trials(folder: Path) -> pd.DataFrame:
    """One row a trial, none before the first has ended.

    Columns: `trial` (its number), `trial_id` (Ray's), `status` (complete, stopped early, failed or
    unfinished), `epochs` and `best_epoch`, `seconds`, `error` (why it failed), its parameters by
    dotted name, and its metrics at its best epoch.
    """
    path = folder / "trials.csv"
    if not path.exists():
        return pd.DataFrame({"trial": pd.Series(dtype=int), "status": pd.Series(dtype=str)})
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error
    missing = {"trial", "trial_id", "status", "epochs", "best_epoch", "error"} - set(table)
    if missing:
        raise DataError(f"{path}: damaged, no column {min(missing)}; restore it, or search again")
    return table


def append_epoch(trial_folder: Path, row: dict[str, Any]) -> None:
    """Note an epoch of a trial: its number, its parameters, the epoch and its metrics."""
    with (trial_folder / EPOCHS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def forget_epochs(trial_folder: Path) -> None:
    """Delete what was noted of an earlier trial with this folder."""
    (trial_folder / EPOCHS).unlink(missing_ok=True)


def epochs(folder: Path) -> pd.DataFrame:
    """One row a trial and epoch: `trial`, `epoch`, its parameters, and the metrics of the epoch."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "tune").glob(f"*/{EPOCHS}")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:  # the line that is being written just now
                continue
    if not rows:
        return pd.DataFrame({"trial": pd.Series(dtype=int), "epoch": pd.Series(dtype=int)})
    # a resumed trial notes its last epoch again, as it may have been cut off before it did
    table = pd.DataFrame(rows).drop_duplicates(["trial", "epoch"], keep="last")
    return table.sort_values(["trial", "epoch"], ignore_index=True)


def settings(folder: Path) -> dict[str, Any]:
    """`search.yaml`: everything needed to run the search again."""
    path = folder / "search.yaml"
    values = read_yaml(path)
    for key in (
        "name",
        "seed",
        "resources",
        "space.description",
        "space.search.metric",
        "space.search.mode",
        "space.params",
        "data.fingerprint",
    ):
        section: Any = values
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is None:
            raise ConfigError(f"{path}: damaged, {key} is missing; start a new search")
    return values


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds; a damaged file is a `DataError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error


def yardsticks(folder: Path) -> pd.DataFrame:
    """One row a baseline: `trial` (its name), and its validation metrics."""
    path = folder / "yardsticks.json"
    if not path.exists():
        return pd.DataFrame()
    values = read_json(path)
    return pd.DataFrame([{"trial": name, **metrics} for name, metrics in values.items()])


def test_scores(folder: Path) -> pd.DataFrame | None:
    """Rows `best` and the baselines, columns the test metrics; None before a search has ended."""
    path = folder / "best" / "metrics.json"
    if not path.exists():
        return None
    return pd.DataFrame.from_dict(read_json(path)["test"], orient="index")


@dataclass(frozen=True)
class Summary:
    """A table made for reading."""

    title: str
    frame: pd.DataFrame


def summaries(folder: Path) -> list[Summary]:
    """The trials beside the yardsticks, best first; then the test scores, once they are there."""
    plan = settings(folder)
    search = plan["space"]["search"]
    metric = search["metric"]
    shown = list(dict.fromkeys([metric, *(f"val/{name}" for name in SHOWN_METRICS)]))
    table = trials(folder)
    if metric in table:
        table = table.sort_values(metric, ascending=search["mode"] == "min", kind="stable")
    table = table.astype({"trial": "string"})
    both = pd.concat([table, yardsticks(folder)], ignore_index=True)
    columns = ["trial", "status", "epochs", "best_epoch", *plan["space"]["params"], *shown]
    title = "trials and yardsticks, on the validation futures"
    tables = [Summary(title, both.reindex(columns=[c for c in columns if c in both]))]
    test = test_scores(folder)
    if test is not None:
        names = [name.replace("val/", "test/") for name in shown]
        test = test[[name for name in names if name in test]].rename_axis("scorer").reset_index()
        tables.append(Summary("the best trial and the yardsticks, on the test futures", test))
    return tables


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in the place of `path` in one step."""
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        write(aside)
        aside.replace(path)
