"""The tables of a study, as files and for reading."""

from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from tune_srs.config.yaml import read_yaml
from tune_srs.files import write_aside
from tune_srs.runs.tables import Summary, learned_in_words
from tune_srs.space.parameters import Values
from tune_srs.studies import run as runs
from tune_srs.studies.comparison import Results, changes, compare
from tune_srs.studies.plan import TUNED, StudyPlan
from tune_srs.studies.significance import FEWEST
from tune_srs.studies.spec import Study

HEADINGS = {"p_holm": "p Holm", "p_users": "p users", "p_seeds": "p seeds"}
NOTE = (
    "Intervals are 95 % intervals. Mean, difference, percent and p generalise to other users and "
    "other {sample}. p users generalises to other users of the same models (permutation test), "
    "p seeds to other {sample} with the same users (t test). p Holm is p, corrected for all "
    "comparisons of the metric. Nothing here generalises to other data sets."
)
LEARNED = "The test was scored with weights that learned from {learned}."
PRIMARY = (
    "The verdict rests on p Holm of {primary} alone, the primary metric. The other metrics are "
    "secondary: they describe, and no verdict rests on them."
)
ONE_TUNING = (
    "Each tuned configuration was tuned once: the luck of that is in no interval and no p value, "
    "so another tuning may move a difference further than they say."
)
TUNINGS = (
    "Each configuration was tuned {tunings} times. A tuning counts once, as the mean of its runs: "
    "intervals and p values, where there are any, hold for other tunings, each with its own runs."
)
TOO_FEW = (
    "Where a mean or a difference has no interval, it comes from fewer than {fewest} {sample}. So "
    "few do not tell how far {sample} differ, and no claim about others is made. p users still "
    "says whether these very models differ."
)


def write(folder: Path) -> list[Summary]:
    """Write `table.csv`, `changes.csv` and `table.md`; return the tables of the last one."""
    results = Results.load(StudyPlan.read(folder).study, folder)
    table, across = compare(results), changes(results)
    shown = _shown(results, table, across)
    write_aside(folder / "table.csv", lambda aside: table.to_csv(aside, index=False))
    if len(across):
        write_aside(folder / "changes.csv", lambda aside: across.to_csv(aside, index=False))
    text = _markdown(folder, results, table, shown)
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
    shown = [
        Summary(
            f"{metric}{_rank(metric, study)}, compared with {study.reference} "
            f"({progress(results)}; learned: {learned_in_words(study.refit)})",
            _compared(table[table["metric"] == metric], study, metric),
        )
        for metric in study.metrics
    ]
    first_dataset = next(iter(study.datasets))
    for metric, rows in across.groupby("metric", sort=False):
        title = (
            f"{metric}{_rank(str(metric), study)}: does the difference from {study.reference} "
            f"differ from that on {first_dataset}?"
        )
        shown.append(Summary(title, _changed(rows)))
    return shown


def _rank(metric: str, study: Study) -> str:
    """Return the word behind a metric that says whether the verdict rests on it."""
    if len(study.metrics) == 1:
        return ""
    return " (primary)" if metric == study.primary_metric else " (secondary)"


def _compared(table: pd.DataFrame, study: Study, metric: str) -> pd.DataFrame:
    counts = ["runs", "failed", *(["tunings"] if study.tunings > 1 else [])]
    shown = table[["dataset", "configuration", *counts]].copy()
    shown["mean [95 %]"] = _intervals(table, "mean", "{:.4f}")
    shown["difference [95 %]"] = _intervals(table, "difference", "{:+.4f}")
    shown["% [95 %]"] = _intervals(table, "percent", "{:+.1f}")
    for name in ("p", "p_holm", "p_users", "p_seeds"):
        shown[HEADINGS.get(name, name)] = table[name].map("{:.4f}".format)
    if metric == study.primary_metric:
        shown["verdict"] = table["verdict"].fillna("-")
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


def _markdown(folder: Path, results: Results, table: pd.DataFrame, shown: list[Summary]) -> str:
    study = results.study
    tuned = read_yaml(folder / TUNED) if (folder / TUNED).exists() else {}
    blocks = [f"# {folder.name}", study.description, f"{progress(results)}."]
    blocks += _notes(study, table, bool(tuned))
    for summary in shown:
        blocks += [f"## {summary.title}", _table(summary.frame)]
    if tuned:
        chosen = [
            f"- {name} on {dataset}{_which(trial, study)}: {_settings(trial['values'])} "
            f"(trial {trial['trial']}, {study.select} {trial['validation'][study.select]:.4f})"
            for name, of_data in tuned.items()
            for dataset, trials in of_data.items()
            for trial in trials
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


def _notes(study: Study, table: pd.DataFrame, tuned: bool) -> list[str]:
    """Return what the intervals and p values hold for, and what not."""
    notes = [LEARNED, NOTE]
    if len(study.metrics) > 1:
        notes.append(PRIMARY)
    if tuned:
        notes.append(TUNINGS if study.tunings > 1 else ONE_TUNING)
    unknown = {"mean": "mean_low", "difference": "p"}
    if any((table[known].notna() & table[lost].isna()).any() for known, lost in unknown.items()):
        notes.append(TOO_FEW)
    facts = {
        "sample": study.sample,
        "learned": learned_in_words(study.refit),
        "primary": study.primary_metric,
        "tunings": study.tunings,
        "fewest": FEWEST,
    }
    return [note.format_map(facts) for note in notes]


def _which(trial: dict[str, Any], study: Study) -> str:
    return f", tuning {trial['tuning']}" if study.tunings > 1 else ""


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
