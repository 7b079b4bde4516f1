"""The program: it collects the commands, and turns errors into one line and an exit status.

Commands import slow modules when they run, so that `--help` is quick.
"""

import sys
from typing import Annotated

import typer

from tune_srs import __version__
from tune_srs.cli import data, model, results, search
from tune_srs.cli.output import warn

app = typer.Typer(
    help="Hyper-parameter search for relevance-aware sequential recommenders.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data", help="List and prepare data sets.")
data_app.command("list")(data.list_datasets)
data_app.command("prepare")(data.prepare)
app.command()(model.train)
app.command()(search.search)
app.command()(search.monitor)
app.command()(search.study)
app.command("results")(results.show_results)
app.command()(results.report)
app.command()(model.export)
app.command()(model.evaluate)
app.command()(model.recommend)
app.command()(results.relevance)
app.command()(results.schema)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if show:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run a command; a user's mistake is one line on stderr and exit status 2."""
    from tune_srs.errors import TuneSRSError

    try:
        status = app(standalone_mode=False, prog_name="tune-srs")
    except TuneSRSError as error:
        status = _complain(str(error), error.exit_code)
    except typer.TyperException as error:  # the command line is wrong
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "tune-srs"
        status = _complain(f"{error.format_message()} See: {command} --help", error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        status = _complain(f"{error.filename}: {error.strerror}; fix that and run again", 2)
    sys.exit(status)


def _complain(message: str, status: int) -> int:
    warn(" ".join(message.split()))
    return status


if __name__ == "__main__":
    main()
