"""The tables of a study, as files and for reading."""

from math import isnan
from pathlib import Path

import pandas as pd

from tune_srs.config.yaml import read_yaml
from tune_srs.files import write_aside
from tune_srs.runs.tables import Summary
from tune_srs.space.parameters import Values
from tune_srs.studies import run as runs
from tune_srs.studies.comparison import Results, changes, compare
from tune_srs.studies.plan import TUNED, StudyPlan

HEADINGS = {"p_holm": "p Holm", "p_users": "p users", "p_seeds": "p seeds"}
NOTE = (
    "Intervals are 95 % intervals. Difference, percent and p generalise to other users and other "
    "seeds. p users generalises to other users of the same models (permutation test), p seeds to "
    "other trainings with the same users (t test). p Holm is p, corrected for all comparisons of "
    "the metric."
)


def write(folder: Path) -> list[Summary]:
    """Write `table.csv`, `changes.csv` and `table.md`; return the tables of the last one."""
    results = Results.load(StudyPlan.read(folder).study, folder)
    table, across = compare(results), changes(results)
    shown = _shown(results, table, across)
    write_aside(folder / "table.csv", lambda aside: table.to_csv(aside, index=False))
    if len(across):
        write_aside(folder / "changes.csv", lambda aside: across.to_csv(aside, index=False))
    text = _markdown(folder, results, shown)
    write_aside(folder / "table.md", lambda aside: aside.write_text(text, encoding="utf-8"))
    return shown


def summaries(folder: Path) -> list[Summary]:
    """Return the tables of a study, which may be running, for reading; nothing is written."""
    results = Results.load(StudyPlan.read(folder).study, folder)
    return _shown(results, compare(results), changes(results))


def progress(results: Results) -> str:
    """Return how far a study is: `5 of 12 runs, 1 of them failed`."""
    failed = sum(facts.failure is not None for facts in results.facts.values())
    line = f"{len(results.facts)} of {len(runs.tasks(results.study))} runs"
    return f"{line}, {failed} of them failed" if failed else line


def _shown(results: Results, table: pd.DataFrame, across: pd.DataFrame) -> list[Summary]:
    study = results.study
    title = f"{{}}, compared with {study.reference} ({progress(results)})"
    shown = [
        Summary(title.format(metric), _compared(table[table["metric"] == metric]))
        for metric in study.metrics
    ]
    first_dataset = next(iter(study.datasets))
    for metric, rows in across.groupby("metric", sort=False):
        title = (
            f"{metric}: does the difference from {study.reference} "
            f"differ from that on {first_dataset}?"
        )
        shown.append(Summary(title, _changed(rows)))
    return shown


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[["dataset", "configuration", "runs", "failed"]].copy()
    shown["mean [95 %]"] = _intervals(table, "mean", "{:.4f}")
    shown["difference [95 %]"] = _intervals(table, "difference", "{:+.4f}")
    shown["% [95 %]"] = _intervals(table, "percent", "{:+.1f}")
    for name in ("p", "p_holm", "p_users", "p_seeds"):
        shown[HEADINGS.get(name, name)] = table[name].map("{:.4f}".format)
    return shown.replace("nan", "-")


def _changed(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[["dataset", "configuration"]].copy()
    shown["change [95 %]"] = _intervals(table, "change", "{:+.4f}")
    for name in ("p", "p_holm"):
        shown[HEADINGS.get(name, name)] = table[name].map("{:.4f}".format)
    shown["paired"] = table["paired"].map({True: "yes", False: "no"})
    return shown.replace("nan", "-")


def _intervals(table: pd.DataFrame, name: str, form: str) -> list[str]:
    """Return `mean [low, high]` of each row; "-" where it is unknown."""
    texts = []
    for mean, low, high in table[[name, f"{name}_low", f"{name}_high"]].astype(float).to_numpy():
        interval = "" if isnan(low) else f" [{form.format(low)}, {form.format(high)}]"
        texts.append("-" if isnan(mean) else form.format(mean) + interval)
    return texts


def _markdown(folder: Path, results: Results, shown: list[Summary]) -> str:
    study = results.study
    blocks = [f"# {folder.name}", study.description, f"{progress(results)}. {NOTE}"]
    for summary in shown:
        blocks += [f"## {summary.title}", _table(summary.frame)]
    if (folder / TUNED).exists():
        chosen = [
            f"- {name} on {dataset}: {_settings(trial['values'])} (trial {trial['trial']}, "
            f"{study.select} {trial['validation'][study.select]:.4f})"
            for name, of_data in read_yaml(folder / TUNED).items()
            for dataset, trial in of_data.items()
        ]
        blocks += [
            "## Settings that the tuning chose, on the validation futures",
            "\n".join(chosen),
        ]
    failures = [
        f"- {task}: {facts.failure}" for task, facts in results.facts.items() if facts.failure
    ]
    if failures:
        blocks += ["## Runs that failed", "\n".join(failures)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _settings(values: Values) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


def _table(frame: pd.DataFrame) -> str:
    """Return a table as Markdown, with numbers aligned to the right."""
    rows = [list(frame), *frame.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numeric = (pd.api.types.is_numeric_dtype(frame[name]) for name in frame)
    lines.insert(1, "|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    return "\n".join(lines)
