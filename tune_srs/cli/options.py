"""Options that several commands share, and the parser of `--set`."""

from pathlib import Path
from typing import Annotated, Any

import typer

DataFolder = Annotated[Path, typer.Option(help="Where raw and prepared data are kept.")]
ResultsFolder = Annotated[Path, typer.Option(help="Where run folders are kept.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting by its dotted name; repeatable."
    ),
]
Dataset = Annotated[str | None, typer.Option(help="Short for --set data.name=NAME.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or its folder.")]
CpusPerTrial = Annotated[float | None, typer.Option(help="CPUs per trial or run. [default: 1]")]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        help="GPUs per trial or run; may be a share of one. [default: 0.25 if there is a GPU]"
    ),
]
AtOnce = Annotated[
    int | None,
    typer.Option(help="Trials or runs at the same time. [default: as many as fit]"),
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster, or auto. [default: this machine]"),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where checkpoints are kept: a shared folder, s3://… or gs://…. "
        "[default: the run's folder]",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after an interruption.")]


def overrides(settings: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Return `["train.lr=0.01", …]` as `{"train.lr": 0.01, …}`; values are read as YAML."""
    import yaml

    from tune_srs.errors import ConfigError

    found = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise ConfigError(f"{option}: {setting!r} is not KEY=VALUE, such as train.lr=0.001")
    return found
