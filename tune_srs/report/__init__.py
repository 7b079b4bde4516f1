"""A results folder → pictures, and one HTML page with all of them that needs no network."""

from pathlib import Path

from tune_srs.errors import ConfigError
from tune_srs.files import write_aside
from tune_srs.report import effort, futures, importance, page, parameters, progress
from tune_srs.report.style import Picture, save, styled
from tune_srs.runs.run import Run


def write_report(run: Run) -> list[Path]:
    """Write `report.html` and `figures/` into the folder of `run`; return the paths, page first.

    Raises `ConfigError` as long as no trial has ended or reported an epoch.
    """
    if not any(record.ended or record.epochs for record in run.records):
        raise ConfigError(f"{run.folder}: no trial has reported an epoch yet; run the search first")
    figures = run.paths.figures
    with styled():
        drawn = pictures(run)
        files = [path for picture in drawn for path in save(picture, figures)]
    content = page.render(run, drawn, figures)
    path = run.paths.report
    write_aside(path, lambda aside: aside.write_text(content, encoding="utf-8"))
    return [path, *files]


def pictures(run: Run) -> list[Picture]:
    """Those that the run has something to show for."""
    shares = importance.shares(run)
    drawn = [
        progress.history(run),
        progress.curves(run),
        importance.bars(run, shares),
        parameters.slices(run, shares),
        parameters.interactions(run, shares),
        parameters.parallel(run),
        futures.hit_rates(run),
        effort.bars(run),
    ]
    return [picture for picture in drawn if picture is not None]
