"""The model card of an export: what the model is, how good, and how to use it. For people."""

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

A sequential recommender: it scores every item as the one that follows a history.
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

Ids are those of the data, oldest first. One that is not in `items.parquet` is skipped; a history
without any known id is answered by popularity. The last {max_length} items of a history are seen.

## Data

`{name}`: {users} users, {items} items, {interactions} interactions, {split}.
Fingerprint: `{fingerprint}`. A log of one's own is looked for where it was, from the folder in
which the search began; `--dataset` names another place.

## Metrics

{note}
In brackets: 95 % bootstrap intervals over users.

{table}

The baselines' test/ndcg_rel@{cutoff}: {baselines}. `metrics.json` has the other metrics and
cutoffs, and the baselines' intervals.

## Reproduce

Seed {seed}, with {versions}:

```
{command}
```

## Files

- `config.yaml`: the complete configuration.
- `model.safetensors`: the weights.
- `items.parquet`: of each item the original id, how often it occurs in what the model has learned
  from (`count`), and its title where titles are known; row i is item i + 1 of the model, 0 is
  padding.
- `metrics.json`: the metrics on validation and test futures.
- `manifest.json`: where the model comes from, the format's version, and the files' checksums.
{more}"""
SPLITS = {
    "last": "of each user the last {test} to test and the {validation} before them to validate",
    "users": "a share of {share:g} of the users held out to validate, and as many to test",
    "time": "the last {share:g} of them to test, as many before to validate",
}
MORE = {
    "model.onnx": "for ONNX runtimes: `items` (B, L) padded with 0 on the right → `scores` (B, I)",
    "model.pt2": "for `torch.export.load`: the same. torch may unpickle parts of such a file: load "
    "none\n  whose origin you do not trust",
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
    """The card in Markdown; `facts` as in `manifest.json`, `metrics` as in `metrics.json`.

    `folder`: how a command names it; `example`: ids of a history to show the use with.
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
    """Ids as `--history` takes them: between commas, in quotes where they hold one."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(ids)
    return line.getvalue()


def _filled(paragraph: str) -> str:
    """Plain text in even lines; headings, lists, tables and code as they are."""
    if re.match(r"[#|\-]|```|import |model = ", paragraph):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _training(facts: dict[str, Any]) -> str:
    if facts["refit"]:
        return (
            f"It has been trained on all interactions, futures included, for the {facts['epoch']} "
            f"epochs that were best for validation."
        )
    return (
        f"Its weights are those of epoch {facts['epoch']}, the best on the validation futures; it "
        f"has learned from the training histories only."
    )


def _note(facts: dict[str, Any]) -> str:
    test = "The trial won the search on the validation futures; the test was scored once."
    if not facts["won"]:
        test = (
            "The trial was chosen by its number, it is not the winner: its test scores, computed "
            "once for this export, must not be used to choose among trials."
        )
    if facts["refit"]:
        test += (
            " All figures are those of the model before it was trained on everything; this one "
            "cannot be scored on these futures any more."
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
