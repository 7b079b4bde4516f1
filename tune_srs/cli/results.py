"""The commands that show something: `results`, `report`, `relevance` and `schema`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_srs.cli.options import ResultsFolder, RunName, overrides

if TYPE_CHECKING:
    import pandas as pd


class File(StrEnum):
    """A file that a user writes and an editor checks."""

    CONFIG = "config"
    SPACE = "space"
    STUDY = "study"


def show_results(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="Names of runs, or their folders.")
    ],
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="EXPR",
            help="Keep rows such as 'lr < 0.01 and status = complete'; repeatable.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Sort by a column; -COLUMN sorts descending. [default: the best first]",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV with all columns.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Write JSON with all columns.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write the shown columns as LaTeX.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the shown columns as Markdown.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option(help="Write into this file instead of printing.")
    ] = None,
    results_folder: ResultsFolder = Path("results"),
) -> None:
    """Print the trials and scores of a run, or compare several runs.

    Example: tune-srs results first --filter "loss.relevance = linear" --top 5

    Example: tune-srs results first second --latex --to table.tex

    For a study, print its tables so far: each configuration against the reference.
    """
    from tune_srs.errors import ConfigError
    from tune_srs.files import check_file, write_aside
    from tune_srs.runs.run import Run
    from tune_srs.tables.listing import for_file, shown
    from tune_srs.tables.selection import selected
    from tune_srs.tables.text import print_tables

    asked = {"csv": csv, "json": json_, "latex": latex, "markdown": markdown}
    forms = [form for form, wanted in asked.items() if wanted]
    places = [place for run in runs for place in (results_folder / run, Path(run))]
    if studies := [place for place in places if (place / "study.yaml").is_file()]:
        if len(runs) > 1 or forms or to or conditions or sort or top:
            raise ConfigError("results: a study is shown alone and whole; it keeps its own files")
        from tune_srs.studies import table

        print_tables(table.summaries(studies[0]))
        return
    if len(forms) > 1 or (to and not forms):
        raise ConfigError("results: give one of --csv, --json, --latex and --markdown")
    check_file("--to", to)
    read = [Run.load(run, results_folder) for run in runs]

    def choose(table: "pd.DataFrame") -> "pd.DataFrame":
        return selected(table, conditions or [], sort, top)

    if not forms:
        print_tables(shown(read, choose))
        return
    content = for_file(read, choose, forms[0])
    if to:
        write_aside(to, lambda aside: aside.write_text(content, encoding="utf-8"))
    else:
        print(content, end="")


def report(name: RunName, results_folder: ResultsFolder = Path("results")) -> None:
    """Write the report of a run: an HTML page and its figures.

    They go into the folder of the run. The page needs no network.

    Example: tune-srs report first
    """
    from tune_srs.report import write_report
    from tune_srs.runs.run import Run

    for path in write_report(Run.load(name, results_folder)):
        print(path)


def relevance(
    to: Annotated[Path, typer.Option(help="File of the picture: .png, .svg or .pdf.")],
    num_positives: Annotated[int, typer.Option(min=1, help="P, as in loss.num_positives.")] = 10,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RATE", help="Rate of a relevance; overrides its default; repeatable."
        ),
    ] = None,
) -> None:
    """Draw the weight that each relevance gives to each positive.

    Example: tune-srs relevance --to relevance.png --rate exponential=0.3
    """
    from tune_srs.report.relevance_plot import write_relevance_plot

    write_relevance_plot(to, num_positives, overrides(rate, "--rate"))
    print(to)


def schema(file: Annotated[File, typer.Argument(help="The kind of YAML file.")]) -> None:
    """Print the JSON schema of a kind of file.

    Editors use it to complete and check such files.

    Example: tune-srs schema space > space.schema.json
    """
    from tune_srs.schema import SCHEMAS

    print(json.dumps(SCHEMAS[file.value](), indent=2, ensure_ascii=False))
