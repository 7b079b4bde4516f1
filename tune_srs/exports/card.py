"""The model card of an export, for people: what the model is, how good, and how to use it."""

import csv
import io
import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from tune_srs.config.data import DataConfig
from tune_srs.config.settings import TrialConfig

TEXT = """# SASRec: trial {trial} of the search `{run}`

This model is a sequential recommender: it scores every item as the next one of a history.
{training}

## Use

```
tune-srs recommend {folder} --history {example} --top-k 10
tune-srs evaluate {folder}
```

```python
import tune_srs as ts

model = ts.load({path})
model.recommend([{listed}], k=10)
```

Ids are those of the data, the oldest first. Ids that are not in `items.parquet` are skipped; for a
history without any known id the most popular items are recommended. The model sees the last
{max_length} items of a history.

## Data

`{name}`: {users} users, {items} items, {interactions} interactions, {split}.
Fingerprint: `{fingerprint}`. If the data come from a log of your own, commands expect it at the
same path, relative to the folder in which the search began; `--dataset` names another path.

## Metrics

{note}
The brackets hold 95 % intervals over users.

{table}

The baselines have test/ndcg_rel@{cutoff}: {baselines}. `metrics.json` has the other metrics and
cutoffs, and the intervals of the baselines.

## Reproduce

The seed is {seed}; the versions are {versions}:

```
{command}
```

## Files

- `config.yaml`: the complete configuration.
- `model.safetensors`: the weights.
- `items.parquet`: one row per item, with its original id, how often it occurs in the histories that
  the model has learned from (`count`), and its title where titles are known. Row i is item i + 1 of
  the model; 0 is padding.
- `metrics.json`: the metrics on validation and test futures.
- `manifest.json`: the origin of the model, the version of the format, and checksums of the files.
{more}"""
SPLITS = {
    "last": "where the last {test} of each user test and the {validation} before them validate",
    "users": "where a share of {share:g} of the users is held out to validate, and as many to test",
    "time": "where the last {share:g} of them test, and as many before them validate",
}
MORE = {
    "model.onnx": "for ONNX runtimes: `items` (B, L) padded with 0 on the right → `scores` (B, I)",
    "model.pt2": "for `torch.export.load`: the same. torch may unpickle parts of such a file, so "
    "load none\n  whose origin you do not trust",
}
ROWS = ("ndcg", "ndcg_rel", "hr", "recall", "mrr", "next/ndcg", "next/hit")


def text(
    config: TrialConfig,
    facts: dict[str, Any],
    metrics: dict[str, Any],
    folder: str,
    example: Sequence[int | str],
    files: Iterable[str],
) -> str:
    """Return the card in Markdown; `facts` as in `manifest.json`, `metrics` as in `metrics.json`.

    `folder`: the folder as a command names it. `example`: the ids of a history for the examples.
    """
    cutoff = 10 if 10 in config.evaluation.cutoffs else config.evaluation.cutoffs[0]
    card = TEXT.format(
        **facts["data"],
        run=facts["run"],
        trial=facts["trial"],
        training=_training(facts),
        folder=shlex.quote(folder),
        path=repr(folder),
        example=shlex.quote(listed(example)),
        listed=list(example),
        max_length=config.model.max_length,
        split=_split(config.data),
        note=_note(facts),
        cutoff=cutoff,
        baselines=_baselines(metrics, f"test/ndcg_rel@{cutoff}"),
        table=_table(metrics, cutoff),
        seed=config.train.seed,
        versions=", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        command=_command(facts, shlex.quote(folder)),
        more="".join(f"- `{name}`: {MORE[name]}.\n" for name in MORE if name in files),
    )
    return "\n\n".join(map(_filled, card.split("\n\n")))


def listed(ids: Sequence[int | str]) -> str:
    """Return ids as `--history` takes them: separated by commas, quoted if they hold one."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(ids)
    return line.getvalue()


def _filled(paragraph: str) -> str:
    """Return text in lines of equal length; headings, lists, tables and code stay as they are."""
    if re.match(r"[#|\-]|```|import |model = ", paragraph):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _training(facts: dict[str, Any]) -> str:
    if facts["refit"]:
        return (
            f"It was trained on all interactions, futures included, for {facts['epoch']} epochs: "
            f"the number that was best on the validation futures."
        )
    return (
        f"Its weights are those of epoch {facts['epoch']}, the best on the validation futures. It "
        f"has learned from the training histories only."
    )


def _note(facts: dict[str, Any]) -> str:
    test = "The trial won the search on the validation futures; the test futures were scored once."
    if not facts["won"]:
        test = (
            "The trial was chosen by its number and is not the winner. Its test scores were "
            "computed once, for this export; do not use them to choose among trials."
        )
    if facts["refit"]:
        test += (
            " All figures belong to the model before it was trained on everything; the final one "
            "has learned these futures and cannot be scored on them."
        )
    return test


def _baselines(metrics: dict[str, Any], name: str) -> str:
    others = {scorer: of[name] for scorer, of in metrics["test"].items() if scorer != "best"}
    return ", ".join(f"{scorer} {value:.4f}" for scorer, value in others.items())


def _table(metrics: dict[str, Any], cutoff: int) -> str:
    lines = ["| metric | validation | test |", "|---|---|---|"]
    for name in (f"{row}@{cutoff}" for row in ROWS):
        validation = _cell(metrics, "validation", f"val/{name}")
        lines.append(f"| {name} | {validation} | {_cell(metrics, 'test', f'test/{name}')} |")
    return "\n".join(lines)


def _cell(metrics: dict[str, Any], split: str, name: str) -> str:
    low, high = metrics["intervals"][split]["best"][name]
    return f"{metrics[split]['best'][name]:.4f} [{low:.4f}, {high:.4f}]"


def _split(data: DataConfig) -> str:
    return SPLITS[data.split.kind].format(
        test=data.num_futures, validation=data.validation_futures, share=data.split.share
    )


def _command(facts: dict[str, Any], folder: str) -> str:
    if facts["refit"]:
        return f"tune-srs export {facts['run']} --trial {facts['trial']} --refit all --to ANOTHER"
    return f"tune-srs train {folder}/config.yaml --metric {facts['metric']}"
