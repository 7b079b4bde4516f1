"""A results folder → a picture of the learning curves, and one HTML page that needs no network."""

import base64
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_srs import results
from tune_srs.config import dump_yaml
from tune_srs.errors import ConfigError
from tune_srs.tables import readable

# Okabe and Ito's colours: told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BASELINE_STYLES = ("--", ":", "-.")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto;
  padding: 0 1rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }}
th, td {{ padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884 }}
img {{ max-width: 100%; height: auto; background: white }}
pre {{ overflow-x: auto }}
</style></head><body>
<h1>{title}</h1>
<p>{description}</p>
{tables}
<h2>Learning curves</h2>
<img alt="{metric} of each trial by epoch" src="data:image/png;base64,{picture}">
<h2>What was run</h2>
<pre>{settings}</pre>
</body></html>
"""


def write_report(folder: Path) -> list[Path]:
    """Write `learning-curves.png` and `report.html` into the folder of a run."""
    picture, page = folder / "learning-curves.png", folder / "report.html"
    figure = learning_curves(folder)
    results.write_aside(picture, lambda aside: figure.savefig(aside, dpi=150, format="png"))
    plt.close(figure)
    settings = results.settings(folder)
    tables = "".join(
        f'<h2>{escape(summary.title)}</h2><div class="wide">'
        f"{readable(summary.frame).to_html(index=False, border=0)}</div>"
        for summary in results.summaries(folder)
    )
    content = PAGE.format(
        title=escape(str(settings["name"])),
        description=escape(str(settings["space"]["description"])),
        tables=tables,
        metric=escape(results.searched(folder).metrics[0]),
        picture=base64.b64encode(picture.read_bytes()).decode(),
        settings=escape(dump_yaml(settings)),
    )
    results.write_aside(page, lambda aside: aside.write_text(content, encoding="utf-8"))
    return [picture, page]


def learning_curves(folder: Path) -> Figure:
    """The searched metric by epoch, a line a trial, coloured by what it trained with."""
    epochs = results.epochs(folder)
    if epochs.empty:
        raise ConfigError(f"{folder}: no trial has reported an epoch yet; run the search first")
    settings = results.settings(folder)
    metric = results.searched(folder).metrics[0]
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    groups = _groups(epochs)
    for (label, group), colour in zip(groups.items(), _cycle(len(groups)), strict=True):
        for place, (_, curve) in enumerate(group.groupby("trial")):
            name = label if place == 0 else None
            axes.plot(curve["epoch"], curve[metric], color=colour, label=name, alpha=0.85)
            axes.plot(curve["epoch"].iloc[-1], curve[metric].iloc[-1], "o", color=colour, ms=4)
    _draw_yardsticks(axes, results.yardsticks(folder), metric)
    axes.set_xlabel("epoch (a dot where a trial ended or was stopped early)")
    axes.set_ylabel(f"{metric} (validation futures)")
    axes.set_title(f"{settings['name']}: {settings['space']['description']}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _groups(epochs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The curves by relevance; where none was active, the trial had one positive."""
    if "loss.relevance" not in epochs:
        return {"trials": epochs}
    relevance = epochs["loss.relevance"].fillna("one positive")
    return {str(name): epochs[relevance == name] for name in sorted(relevance.unique())}


def _draw_yardsticks(axes: Axes, yardsticks: pd.DataFrame, metric: str) -> None:
    if metric not in yardsticks:
        return
    values = zip(yardsticks["trial"], yardsticks[metric], BASELINE_STYLES, strict=False)
    for name, value, style in values:
        axes.axhline(float(value), color="0.35", linestyle=style, label=str(name))


def _cycle(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
