"""The commands that run for long: `search` and `study`; and `monitor`, which shows a search."""

from pathlib import Path
from typing import Annotated

import typer

from tune_srs.cli.options import (
    Address,
    AtOnce,
    CpusPerTrial,
    DataFolder,
    Dataset,
    GpusPerTrial,
    ResultsFolder,
    Resume,
    RunName,
    Settings,
    Storage,
    overrides,
)

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def search(
    space: Annotated[
        Path | None,
        typer.Argument(metavar="SPACE.yaml", help="The search space; --resume needs none."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run and of its folder.")] = "search",
    dataset: Dataset = None,
    num_trials: Annotated[
        int | None, typer.Option(help="Number of trials; overrides the space.")
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Maximum epochs per trial.")] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="End the search after this time, such as 45m or 2h30m."
        ),
    ] = None,
    stale_trials: Annotated[
        int | None,
        typer.Option(
            help="End the search when this many trials in a row have not improved the result."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="End a trial after this many epochs without improvement."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the sampler. [default: 0]")
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    at_once: AtOnce = None,
    address: Address = None,
    storage: Storage = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mlflow|wandb", help="Also report every epoch to this tracker; repeatable."
        ),
    ] = None,
    resume: Resume = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: train trials that failed again."),
    ] = False,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Search a space, stop poor trials, and export the best model.

    Begin: tune-srs search search_spaces/demo.yaml --name first

    Continue: tune-srs search --resume --name first

    More of one that has ended: tune-srs search --resume --name first --num-trials 60
    """
    from tune_srs import api

    folder = api.search(
        space,
        name=name,
        fixed={"data.name": dataset, "train.max_epochs": max_epochs} | overrides(settings),
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
        retry_failed=retry_failed,
        data_folder=data_folder,
        results_folder=results_folder,
    )
    if folder is None:
        raise typer.Exit(INTERRUPTED)


def monitor(
    name: RunName,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page. [default: a free one]")
    ] = None,
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Show a search in TensorBoard, while it runs or later.

    Only this machine can see the page.

    Example: tune-srs monitor first
    """
    from tune_srs.runs.monitor import show
    from tune_srs.runs.paths import find_run

    show(find_run(results_folder, name), port, lambda line: print(line, flush=True))


def study(
    spec: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="The study; --resume needs none.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the study and of its folder.")] = "study",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Seeds per tuning, configuration and data set; overrides the study."
        ),
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    at_once: AtOnce = None,
    address: Address = None,
    storage: Storage = None,
    resume: Resume = False,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Compare configurations on data sets, over several seeds.

    Every difference comes with its 95 % interval and p value.

    Begin: tune-srs study studies/relevance.yaml --name relevance

    Continue: tune-srs study --resume --name relevance

    Show the results so far: tune-srs results relevance
    """
    from tune_srs import api

    folder = api.study(
        spec,
        name=name,
        fixed=overrides(settings),
        seeds=seeds,
        resources={
            "cpus_per_trial": cpus_per_trial,
            "gpus_per_trial": gpus_per_trial,
            "at_once": at_once,
            "address": address,
            "storage": storage,
        },
        resume=resume,
        data_folder=data_folder,
        results_folder=results_folder,
    )
    if folder is None:
        raise typer.Exit(INTERRUPTED)
