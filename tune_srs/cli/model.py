"""The commands about one model: `train`, `export`, `evaluate` and `recommend`."""

import csv
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tune_srs.cli.options import (
    DataFolder,
    Dataset,
    ResultsFolder,
    RunName,
    Settings,
    overrides,
)
from tune_srs.cli.output import warn


class Format(StrEnum):
    """An extra format of an export."""

    ONNX = "onnx"
    TORCH = "torch"


ExportedModel = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder of an exported model.")
]


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="The configuration of a trial.")
    ],
    settings: Settings = None,
    metric: Annotated[
        str, typer.Option(help="The metric that decides which epoch is the best.")
    ] = "val/ndcg_rel@10",
    metrics_to: Annotated[
        Path | None, typer.Option(help="Write the metrics of the best epoch as JSON.")
    ] = None,
    data_folder: DataFolder = Path("data"),
) -> None:
    """Train one configuration and print its validation metrics.

    Example: tune-srs train results/demo/best/config.yaml
    """
    from tune_srs.config.settings import TrialConfig
    from tune_srs.datasets.prepare import prepare
    from tune_srs.files import check_file, write_aside
    from tune_srs.metric_names import check_metric
    from tune_srs.space.objective import Objective
    from tune_srs.training.checkpoint import Best
    from tune_srs.training.loop import compile_kernels, device_of
    from tune_srs.training.loop import train as train_epochs

    trial = TrialConfig.from_yaml(config).with_overrides(overrides(settings), "--set")
    check_file("--metrics-to", metrics_to)
    check_metric(metric, trial.evaluation.cutoffs, "--metric")
    print(f"training on {device_of(trial.train)}")
    data = prepare(trial.data, data_folder)
    compile_kernels(trial, print)
    best = Best(Objective(metric, "max" if metric.startswith("val/") else "min"))
    for report in train_epochs(trial, data.validation):
        best.update(report)
        loss, value = report.metrics["train/loss"], report.metrics[metric]
        print(f"epoch {report.epoch}: train/loss {loss:.4f}, {metric} {value:.6f}", flush=True)
    print(f"best epoch {best.epoch}:")
    for name, value in best.metrics.items():
        print(f"  {name:<20} {value:.8f}")
    if metrics_to:
        content = json.dumps({"epoch": best.epoch, "metrics": best.metrics}, indent=2)
        write_aside(metrics_to, lambda aside: aside.write_text(content, encoding="utf-8"))


def export(
    name: RunName,
    to: Annotated[Path, typer.Option(help="The new folder to write.")],
    trial: Annotated[
        int | None, typer.Option(help="Number of the trial. [default: the winner]")
    ] = None,
    refit: Annotated[
        Literal["validation", "all"] | None,
        typer.Option(
            help="Train again. validation: on training and validation, before the test is scored; "
            "all: on all interactions, the test futures included, after that."
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Short for --format onnx.")] = False,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Extra export format; repeatable.")
    ] = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Write a trained model of an ended run into a new folder.

    The folder holds everything that is needed to use the model.

    Example: tune-srs export first --to model --onnx
    """
    from tune_srs import api
    from tune_srs.runs.paths import find_run

    asked = [one.value for one in formats or []] + (["onnx"] if onnx else [])
    api.export(
        find_run(results_folder, name),
        to,
        trial=trial,
        refit=refit,
        formats=set(asked),
        data_folder=data_folder,
    )
    print(f"exported to {to}; {to / 'README.md'} says what it is and how to use it")


def evaluate(
    folder: ExportedModel,
    dataset: Dataset = None,
    per_user: Annotated[
        Path | None, typer.Option(help="Write each user's scores into this Parquet file.")
    ] = None,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
) -> None:
    """Score an exported model on validation and test futures.

    The intervals are 95 % intervals over users. Validation scores that chose the model are
    optimistic and have none.

    Example: tune-srs evaluate results/first/best --set evaluation.num_candidates=50
    """
    from tune_srs import api
    from tune_srs.files import check_file, write_aside
    from tune_srs.tables.text import print_tables

    check_file("--per-user", per_user)
    changes = overrides(settings) | ({"data.name": dataset} if dataset else {})
    evaluation = api.load(folder).evaluate(changes, data_folder=data_folder)
    print_tables(evaluation.tables())
    if per_user:
        write_aside(per_user, lambda aside: evaluation.per_user.to_parquet(aside, index=False))


def recommend(
    folder: ExportedModel,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="IDS",
            help="Item ids with commas between them, the oldest first; "
            'put an id that holds a comma in "quotes".',
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Parquet file with a column history of lists of ids, or with columns user and "
            "item.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write a Parquet file instead of printing.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Recommendations per history.")] = 10,
    exclude_history: Annotated[
        bool | None,
        typer.Option(
            "--exclude-history/--no-exclude-history",
            help="Leave out items of the history, or not. [default: as in the evaluation]",
        ),
    ] = None,
) -> None:
    """Recommend the items that are likely to follow a history.

    Ids are those of the data.

    Example: tune-srs recommend results/first/best --history "50,172,181"
    """
    from tune_srs import api
    from tune_srs.errors import ConfigError
    from tune_srs.exports.recommend import read_histories
    from tune_srs.files import check_file, write_aside
    from tune_srs.tables.text import print_table

    if (history is None) == (input_file is None):
        raise ConfigError("recommend: give either --history or --input")
    check_file("--output", output)
    model = api.load(folder)
    if input_file is not None:
        found = model.recommend(read_histories(input_file), top_k, exclude_history, warn=warn)
    else:
        (ids,) = csv.reader([history or ""], skipinitialspace=True)
        ids = [one for one in ids if one]
        found = model.recommend([ids], top_k, exclude_history, warn=warn).drop(columns="history")
    if output:
        write_aside(output, lambda aside: found.to_parquet(aside, index=False))
    else:
        print_table(found)
