"""`tune-srs data`: list and prepare data sets."""

from pathlib import Path
from typing import Annotated

import typer

from tune_srs.cli.options import DataFolder, Settings, overrides


def list_datasets(data_folder: DataFolder = Path("data")) -> None:
    """List the known data sets, and show which of them are here."""
    from tune_srs.datasets.prepare import known
    from tune_srs.tables.text import print_table

    print_table(known(data_folder))


def prepare(
    name: Annotated[
        str, typer.Argument(help="A known data set, or the path of an interaction log.")
    ],
    user_col: Annotated[
        str | None, typer.Option(help="Column with the user ids. [default: guessed]")
    ] = None,
    item_col: Annotated[
        str | None, typer.Option(help="Column with the item ids. [default: guessed]")
    ] = None,
    rating_col: Annotated[
        str | None, typer.Option(help="Column with the ratings. [default: guessed]")
    ] = None,
    time_col: Annotated[
        str | None, typer.Option(help="Column with the times. [default: guessed]")
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            help="How times are written: s, ms, us, ns, iso, order, lines, or a pattern such as "
            "%d/%m/%Y. [default: auto]"
        ),
    ] = None,
    num_futures: Annotated[
        int | None,
        typer.Option(
            help="K, the number of test and of validation futures per user; with "
            "data.split.kind=time at most so many. [default: 10, or all]"
        ),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=SHARE",
            help="Add noise to the training histories: accidental or shared; repeatable.",
        ),
    ] = None,
    settings: Settings = None,
    data_folder: DataFolder = Path("data"),
) -> None:
    """Fetch, filter and split a data set or a log, and print its statistics.

    Example: tune-srs data prepare ml-1m --set data.min_rating=4 --noise accidental=0.1

    Example: tune-srs data prepare mylog.parquet --user-col who --item-col what --time-col when
    """
    from tune_srs.config.settings import TrialConfig
    from tune_srs.datasets.prepare import prepare as prepare_data
    from tune_srs.datasets.prepare import prepared_folder
    from tune_srs.datasets.statistics import of_repeats, printable, row

    options = {
        "data.log.user_column": user_col,
        "data.log.item_column": item_col,
        "data.log.rating_column": rating_col,
        "data.log.time_column": time_col,
        "data.log.time_format": time_format,
        "data.num_futures": num_futures,
    }
    changes = {"data.name": name} | overrides(settings)
    changes |= overrides([f"data.noise.{kind}" for kind in noise or []])
    changes |= {key: value for key, value in options.items() if value is not None}
    config = TrialConfig().with_overrides(changes, "data prepare").data
    data = prepare_data(config, data_folder, verify=True)
    print(printable(data.manifest))
    print(row("fingerprint", data.fingerprint))
    print(row("prepared in", prepared_folder(config, data_folder)))
    print(of_repeats(data.manifest, exclude_history=True))
