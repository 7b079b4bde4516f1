"""The commands: parse, call, print. What is slow to import is imported by the command it serves."""

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tune_srs import __version__

if TYPE_CHECKING:
    import pandas as pd

    from tune_srs.runs.tables import Summary

app = typer.Typer(
    help="Hyper-parameter search for relevance-aware sequential recommenders.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data", help="List and prepare data sets.")

DataFolder = Annotated[Path, typer.Option(help="Raw and prepared data.")]
ResultsFolder = Annotated[Path, typer.Option(help="One folder a run.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting by its dotted name; repeatable."),
]
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# typer's own base of "the command line is wrong"; it is public only through its children
UsageError: Any = typer.BadParameter.__base__


class File(StrEnum):
    """What a user writes, and an editor checks."""

    CONFIG = "config"
    SPACE = "space"
    STUDY = "study"


class Format(StrEnum):
    """What an export may hold in addition."""

    ONNX = "onnx"
    TORCH = "torch"


def main() -> None:
    """Run a command; a user's mistake is one line on stderr and exit status 2."""
    from tune_srs.errors import TuneSRSError

    try:
        status = app(standalone_mode=False, prog_name="tune-srs")
    except TuneSRSError as error:
        status = _complain(str(error), error.exit_code)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "tune-srs"
        status = _complain(f"{error.format_message()} See: {command} --help", error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        status = _complain(f"{error.filename}: {error.strerror}; mend that and run again", 2)
    sys.exit(status)


def _complain(message: str, status: int) -> int:
    print("tune-srs: " + " ".join(message.split()), file=sys.stderr)
    return status


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if show:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@data_app.command("list")
def data_list(data_folder: DataFolder = Path("data")) -> None:
    """Show the data sets that are known by name, and which of them are here."""
    from rich.console import Console

    from tune_srs.datasets.prepare import known
    from tune_srs.tables.text import console_table

    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(console_table(known(data_folder), ""))


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A known data set, or the file of a log.")],
    user_col: Annotated[str | None, typer.Option(help="Of a log. [default: guessed]")] = None,
    item_col: Annotated[str | None, typer.Option(help="Of a log. [default: guessed]")] = None,
    rating_col: Annotated[str | None, typer.Option(help="Of a log. [default: guessed]")] = None,
    time_col: Annotated[str | None, typer.Option(help="Of a log. [default: guessed]")] = None,
    time_format: Annotated[
        str | None,
        typer.Option(help="s, ms, us, ns, iso, order, lines, or such as %d/%m/%Y. [default: auto]"),
    ] = None,
    num_futures: Annotated[int | None, typer.Option(help="K: test and validation futures.")] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=SHARE", help="accidental or shared, into what trains."),
    ] = None,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
) -> None:
    """Fetch, filter and split a data set or a log, and print what came of it.

    Example: tune-srs data prepare ml-1m --set data.min_rating=4 --noise accidental=0.1

    Example: tune-srs data prepare mylog.parquet --user-col who --item-col what --time-col when
    """
    from tune_srs.config.settings import TrialConfig
    from tune_srs.datasets.prepare import prepare, prepared_folder
    from tune_srs.datasets.statistics import printable

    given = {
        "data.log.user_column": user_col,
        "data.log.item_column": item_col,
        "data.log.rating_column": rating_col,
        "data.log.time_column": time_col,
        "data.log.time_format": time_format,
        "data.num_futures": num_futures,
    }
    overrides = {"data.name": name} | _overrides(settings)
    overrides |= _overrides([f"data.noise.{kind}" for kind in noise or []])
    overrides |= {key: value for key, value in given.items() if value is not None}
    config = TrialConfig().with_overrides(overrides, "data prepare").data
    data = prepare(config, data_folder, verify=True)
    print(printable(data.manifest))
    print(f"{'fingerprint':<22} {data.fingerprint}")
    print(f"{'prepared in':<22} {prepared_folder(config, data_folder)}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A trial's configuration, such as config.yaml.")],
    settings: Settings = None,
    metric: Annotated[str, typer.Option(help="What makes an epoch the best.")] = "val/ndcg_rel@10",
    metrics_to: Annotated[Path | None, typer.Option(help="Write the metrics as JSON.")] = None,
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

    trial = TrialConfig.from_yaml(config).with_overrides(_overrides(settings), "--set")
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


@app.command()
def search(
    space: Annotated[Path | None, typer.Argument(help="A search space, in YAML.")] = None,
    name: Annotated[str, typer.Option(help="The run's folder within the results.")] = "search",
    dataset: Annotated[str | None, typer.Option(help="Short for --set data.name=NAME.")] = None,
    num_trials: Annotated[int | None, typer.Option(help="Instead of the space's own.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Of each trial.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Such as 45m or 2h30m; then it ends.")
    ] = None,
    stale_trials: Annotated[
        int | None, typer.Option(help="End when so many in a row have not improved.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without improvement that end a trial.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of what is proposed. [default: 0]")
    ] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="[default: 0.25 where there is a GPU]")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(help="Trials at a time. [default: as many as there is room for]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, or auto. [default: this machine alone]")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Of the checkpoints: a shared folder, s3://… or gs://…."
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="mlflow|wandb", help="Tell a tracker, too; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Search a space with Ray Tune, Optuna and ASHA; export the best model.

    Begin: tune-srs search search_spaces/demo.yaml --name first

    Go on: tune-srs search --resume --name first
    """
    from tune_srs import api

    folder = api.search(
        space,
        name=name,
        fixed={"data.name": dataset, "train.max_epochs": max_epochs} | _overrides(settings),
        settings={
            "trials": num_trials,
            "time_budget": time_budget,
            "stale_trials": stale_trials,
            "patience": patience,
        },
        seed=seed,
        resources={
            "cpus_per_trial": cpus_per_trial,
            "gpus_per_trial": gpus_per_trial,
            "at_once": at_once,
            "address": address,
            "storage": storage,
            "trackers": track or None,
        },
        resume=resume,
        data_folder=data_folder,
        results_folder=results_folder,
    )
    if folder is None:
        raise typer.Exit(INTERRUPTED)


@app.command()
def monitor(
    name: str,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: any that is free]")
    ] = None,
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Show a run in TensorBoard, on this machine alone, while it goes on or later.

    Example: tune-srs monitor first
    """
    from tune_srs.runs.monitor import show
    from tune_srs.runs.paths import find_run

    show(find_run(results_folder, name), port, lambda line: print(line, flush=True))


@app.command()
def study(
    spec: Annotated[Path | None, typer.Argument(help="A study, in YAML.")] = None,
    name: Annotated[str, typer.Option(help="The study's folder within the results.")] = "study",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each configuration on each data set.")
    ] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(help="Also of a run. [default: 1]")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="Also of a run. [default: 0.25 where there is a GPU]")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(help="Runs at a time. [default: as many as there is room for]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, or auto. [default: this machine alone]")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Of the tunings' checkpoints, as for a search."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted study.")
    ] = False,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Compare configurations on data sets, over several seeds, with their uncertainty.

    Begin: tune-srs study studies/relevance.yaml --name relevance

    Go on: tune-srs study --resume --name relevance

    How it stands: tune-srs results relevance
    """
    from tune_srs.datasets.prepare import prepare
    from tune_srs.studies import table
    from tune_srs.studies.plan import StudyPlan, StudyRequest, study_folder

    asked = {
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "at_once": at_once,
        "address": address,
        "storage": storage,
    }
    request = StudyRequest(name, spec, _overrides(settings), seeds, asked)
    folder = study_folder(results_folder, name) if resume else results_folder / name
    plan = request.plan(results_folder, StudyPlan.read(folder) if resume else None)
    plan.check(folder, resume)
    data = {name: prepare(config, data_folder) for name, config in plan.study.data().items()}
    if resume:
        plan.check_data(data, folder)

    from tune_srs.studies.running import run_study
    from tune_srs.tuning.console import Console

    if not run_study(plan, data, folder, Console(), new=not resume):
        raise typer.Exit(INTERRUPTED)
    _print(table.write(folder))
    print(f"these tables: {folder / 'table.md'}; all figures: {folder / 'table.csv'}")


@app.command("results")
def show_results(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names, or their folders.")],
    conditions: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="EXPR", help="Such as 'lr < 0.01 and status = complete'."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Or -COLUMN, falling. [default: the best]")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="All columns, for programs.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="All columns, for programs.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="What is shown, for papers.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="What is shown.")] = False,
    to: Annotated[Path | None, typer.Option(help="A file in place of the console.")] = None,
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Print a run's trials, baselines and test scores, or several searches side by side.

    Example: tune-srs results first --filter "loss.relevance = linear" --top 5

    Example: tune-srs results first second --latex --to table.tex

    Of a study, as far as it is, its configurations against the reference.
    """
    from tune_srs.errors import ConfigError
    from tune_srs.files import check_file, write_aside
    from tune_srs.runs.run import Run
    from tune_srs.tables.listing import for_file, shown
    from tune_srs.tables.selection import selected

    asked = {"csv": csv, "json": json_, "latex": latex, "markdown": markdown}
    forms = [form for form, wanted in asked.items() if wanted]
    places = [place for run in runs for place in (results_folder / run, Path(run))]
    if studies := [place for place in places if (place / "study.yaml").is_file()]:
        if len(runs) > 1 or forms or to or conditions or sort or top:
            raise ConfigError("results: a study is shown alone and whole; it keeps its own files")
        from tune_srs.studies import table

        _print(table.summaries(studies[0]))
        return
    if len(forms) > 1 or (to and not forms):
        raise ConfigError("results: give one of --csv, --json, --latex and --markdown")
    check_file("--to", to)
    read = [Run.load(run, results_folder) for run in runs]

    def choose(table: "pd.DataFrame") -> "pd.DataFrame":
        return selected(table, conditions or [], sort, top)

    if not forms:
        _print(shown(read, choose))
        return
    content = for_file(read, choose, forms[0])
    if to:
        write_aside(to, lambda aside: aside.write_text(content, encoding="utf-8"))
    else:
        print(content, end="")


@app.command()
def report(
    name: str,
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Write report.html, which needs no network, and its figures into the folder of a run.

    Example: tune-srs report first
    """
    from tune_srs.report import write_report
    from tune_srs.runs.run import Run

    for path in write_report(Run.load(name, results_folder)):
        print(path)


@app.command("export")
def export_run(
    name: Annotated[str, typer.Argument(help="A run that has ended.")],
    to: Annotated[Path, typer.Option(help="The new folder.")],
    trial: Annotated[int | None, typer.Option(help="Its number. [default: the winner]")] = None,
    refit: Annotated[
        Literal["all"] | None,
        typer.Option(help="Train again on all interactions, futures included."),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Short for --format onnx.")] = False,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="In addition; repeatable.")
    ] = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Write a trained model, with all that is needed to use it, into a folder of its own.

    Example: tune-srs export first --to model --onnx
    """
    from tune_srs import api
    from tune_srs.runs.paths import find_run

    asked = [one.value for one in formats or []] + (["onnx"] if onnx else [])
    run = find_run(results_folder, name)
    api.export(
        run,
        to,
        trial=trial,
        refit=refit is not None,
        formats=set(asked),
        data_folder=data_folder,
    )
    print(f"exported to {to}; {to / 'README.md'} says what it is and how to use it")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="An exported model.")],
    dataset: Annotated[str | None, typer.Option(help="Short for --set data.name=NAME.")] = None,
    per_user: Annotated[
        Path | None, typer.Option(help="Write each user's scores into this Parquet file.")
    ] = None,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
) -> None:
    """Score an exported model on validation and test futures, with 95 % intervals over users.

    Example: tune-srs evaluate results/first/best --set evaluation.num_candidates=50
    """
    from rich.console import Console

    from tune_srs import api
    from tune_srs.files import check_file, write_aside
    from tune_srs.tables.text import console_table

    check_file("--per-user", per_user)
    overrides = _overrides(settings) | ({"data.name": dataset} if dataset else {})
    appraisal = api.load(folder).evaluate(overrides, data_folder=data_folder)
    console = Console(width=None if sys.stdout.isatty() else 200)
    for title, table in appraisal.tables():
        console.print(console_table(table, title))
        console.print()
    if per_user:
        write_aside(per_user, lambda aside: appraisal.per_user.to_parquet(aside, index=False))


@app.command()
def recommend(
    folder: Annotated[Path, typer.Argument(help="An exported model.")],
    history: Annotated[
        str | None,
        typer.Option(
            metavar="IDS", help='Between commas, oldest first; in "quotes" with a comma of its own.'
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Parquet: lists in a column history, or rows of user and item."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Parquet, in place of a table.")] = None,
    top_k: int = 10,
    exclude_history: Annotated[
        bool | None,
        typer.Option(
            "--exclude-history/--no-exclude-history",
            help="Whether items of the history are left out. [default: as it was evaluated]",
        ),
    ] = None,
) -> None:
    """Recommend items to follow histories, in the ids of the data.

    Example: tune-srs recommend results/first/best --history "50,172,181"
    """
    from rich.console import Console

    from tune_srs import api
    from tune_srs.errors import ConfigError
    from tune_srs.exports.recommend import read_histories
    from tune_srs.files import check_file, write_aside
    from tune_srs.tables.text import console_table

    if (history is None) == (input_file is None):
        raise ConfigError("recommend: give either --history or --input")
    check_file("--output", output)
    model = api.load(folder)
    if input_file is not None:
        found = model.recommend(read_histories(input_file), top_k, exclude_history, warn=_warn)
    else:
        (ids,) = csv.reader([history or ""], skipinitialspace=True)
        ids = [one for one in ids if one]
        found = model.recommend([ids], top_k, exclude_history, warn=_warn).drop(columns="history")
    if output:
        write_aside(output, lambda aside: found.to_parquet(aside, index=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(console_table(found, ""))


@app.command()
def relevance(
    to: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")],
    num_positives: Annotated[int, typer.Option(min=1, help="P, as in loss.num_positives.")] = 10,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RATE", help="Of a relevance, where not the default; repeatable."
        ),
    ] = None,
) -> None:
    """Draw what each relevance makes of the weights of several positives.

    Example: tune-srs relevance --to relevance.png --rate exponential=0.3
    """
    from tune_srs.report.relevance_plot import write_relevance_plot

    write_relevance_plot(to, num_positives, _overrides(rate, "--rate"))
    print(to)


@app.command()
def schema(
    file: Annotated[File, typer.Argument(help="Which kind of YAML file.")],
) -> None:
    """Print the JSON schema of a kind of file, by which editors complete and check it.

    Example: tune-srs schema space > space.schema.json
    """
    from tune_srs.schema import SCHEMAS

    print(json.dumps(SCHEMAS[file.value](), indent=2, ensure_ascii=False))


def _warn(message: str) -> None:
    print(f"tune-srs: {message}", file=sys.stderr)


def _overrides(settings: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """`["train.lr=0.01", …]` → `{"train.lr": 0.01, …}`, values as in YAML."""
    import yaml

    from tune_srs.errors import ConfigError

    overrides = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise ConfigError(f"{option}: {setting!r} is not KEY=VALUE, such as train.lr=0.001")
    return overrides


def _print(summaries: "list[Summary]") -> None:
    from rich.console import Console

    from tune_srs.tables.text import console_table

    console = Console()
    if not console.is_terminal:
        console.width = 200
    for summary in summaries:
        console.print(console_table(summary.frame, summary.title))
        console.print()


if __name__ == "__main__":
    main()
