"""A results folder → pictures, and one HTML page with all of them that needs no network."""

from pathlib import Path

from tune_srs.errors import ConfigError
from tune_srs.files import write_aside
from tune_srs.report import effort, futures, importance, page, parameters, progress
from tune_srs.report.search import Search
from tune_srs.report.style import Picture, save, styled


def write_report(folder: Path) -> list[Path]:
    """Write `report.html` and `figures/` into the folder of a run; the paths, the page first.

    Raises `ConfigError` as long as no trial has ended or reported an epoch.
    """
    search = Search.read(folder)
    if not any(record.ended or record.epochs for record in search.records):
        raise ConfigError(f"{folder}: no trial has reported an epoch yet; run the search first")
    figures = folder / "figures"
    with styled():
        drawn = pictures(search)
        files = [path for picture in drawn for path in save(picture, figures)]
    content = page.render(search, drawn, figures)
    path = folder / "report.html"
    write_aside(path, lambda aside: aside.write_text(content, encoding="utf-8"))
    return [path, *files]


def pictures(search: Search) -> list[Picture]:
    """Those that the run has something to show for."""
    shares = importance.shares(search)
    drawn = [
        progress.history(search),
        progress.curves(search),
        importance.bars(search, shares),
        parameters.slices(search, shares),
        parameters.interactions(search, shares),
        parameters.parallel(search),
        futures.hit_rates(search),
        effort.bars(search),
    ]
    return [picture for picture in drawn if picture is not None]
