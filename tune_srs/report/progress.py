"""How a search went: its best value over time, and the learning curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tune_srs.journal import TrialRecord
from tune_srs.report.search import Search
from tune_srs.report.style import (
    BEST,
    COLOURS,
    MUTED,
    SCALE,
    Picture,
    legend_above,
    mark,
    new_figure,
)
from tune_srs.results import spelled

BASELINE_STYLES = ("--", ":", "-.")
COLOURED_BY = ("loss.type", "loss.relevance", "loss.num_positives")
MANY_POINTS = 50_000  # of curves; more are drawn as pixels, or an SVG grows too large to open
MARKERS = {"complete": "o", "stopped": "X", "failed": "|", "unfinished": "."}
WORDS = {status: status for status in MARKERS} | {"stopped": "stopped early"}
NOT_THERE = "inactive"


def history(search: Search) -> Picture | None:
    """The value of each trial, and the best until then."""
    if not search.scored:
        return None
    figure = new_figure(3.6)
    axes = figure.subplots()
    numbers = [record.number for record in search.scored]
    values = [search.value(record) for record in search.scored]
    best = np.maximum.accumulate(values) if search.rising else np.minimum.accumulate(values)
    axes.step(numbers, best, where="post", color=BEST, label="best so far")
    for status, marker in MARKERS.items():
        own = [record for record in search.scored if record.status == status]
        if own:
            axes.plot(
                [record.number for record in own],
                [search.value(record) for record in own],
                linestyle="none",
                marker=marker,
                color=COLOURS[0] if status == "complete" else MUTED,
                label=WORDS[status],
            )
    failed = [record.number for record in search.records if record.status == "failed"]
    if failed:
        at_the_bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), MARKERS["failed"], color=COLOURS[3], ms=9,
                  label="failed", transform=at_the_bottom)  # fmt: skip
    _draw_yardsticks(axes, search)
    axes.set_xlabel("trial, in the order in which they began")
    axes.set_ylabel(search.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(axes)
    caption = (
        f"{search.metric} of each trial at its best epoch. A trial that was stopped early would "
        f"have gone on learning: its value is what it had reached."
    )
    return Picture("history", "How the best was found", caption, figure)


def curves(search: Search) -> Picture | None:
    """The metric by epoch, coloured by what a trial trained with."""
    epochs = search.run.epochs
    if epochs.empty:
        return None
    names = [name for name in COLOURED_BY if name in search.space.params] or [""]
    figure = new_figure(0.6 + 3.4 * len(names))
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    present = {record.status for record in search.records if record.epochs}
    ends = [mark(WORDS[own], marker) for own, marker in MARKERS.items() if own in present]
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        _draw_curves(axes, search, name)
        _draw_yardsticks(axes, search)
        axes.set_ylabel(search.metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend_above(axes, ends if place == 0 else (), name)
    panels[-1].set_xlabel("epoch")
    caption = (
        f"{search.metric} on the validation futures after each epoch, a line a trial. "
        f"Its end is marked by what became of it; a parameter is inactive in trials where "
        f"it would change nothing, as relevance with a single positive."
    )
    return Picture("learning-curves", "How the trials learned", caption, figure)


def _draw_curves(axes: Axes, search: Search, name: str) -> None:
    epochs = search.run.epochs
    groups = _groups(search, name)
    as_pixels = len(epochs) > MANY_POINTS
    curve_of = dict(iter(epochs.groupby("trial")))
    for (label, records), colour in zip(groups.items(), _colours(list(groups)), strict=True):
        for place, record in enumerate(records):
            curve = curve_of[record.number]
            shown = label if place == 0 else None
            axes.plot(curve["epoch"], curve[search.metric], color=colour, label=shown, alpha=0.8,
                      linewidth=1.2, rasterized=as_pixels)  # fmt: skip
            marker = MARKERS[record.status]
            axes.plot(curve["epoch"].iloc[-1], curve[search.metric].iloc[-1], marker, color=colour,
                      ms=6, markeredgecolor="none" if marker != "|" else colour)  # fmt: skip


def _groups(search: Search, name: str) -> dict[str, list[TrialRecord]]:
    """The trials that have learned, by their value of the parameter; the inactive ones last."""
    records = [record for record in search.records if record.epochs]
    if not name:
        return {"a trial": records}
    values = [record.values[name] for record in records if name in record.values]
    groups: dict[str, list[TrialRecord]] = {}
    for value in sorted(set(values), key=_order(values)):
        groups[spelled(value)] = [r for r in records if r.values.get(name, groups) == value]
    if inactive := [record for record in records if name not in record.values]:
        groups[NOT_THERE] = inactive
    return groups


def _order(values: Sequence[Any]) -> Callable[[Any], Any]:
    """Numbers by size, anything else as text."""
    return float if all(isinstance(value, int | float) for value in values) else str


def _colours(labels: Sequence[str]) -> list[Any]:
    """Grey for what is inactive, a scale for more values than there are colours."""
    active = [label for label in labels if label != NOT_THERE]
    if len(active) > len(COLOURS):
        colours: list[Any] = [SCALE(place) for place in np.linspace(0, 1, len(active))]
    else:
        colours = list(COLOURS[: len(active)])
    return [*colours, *([MUTED] if NOT_THERE in labels else [])]


def _draw_yardsticks(axes: Axes, search: Search) -> None:
    yardsticks = search.run.yardsticks
    if search.metric not in yardsticks:
        return
    values = zip(yardsticks["trial"], yardsticks[search.metric], BASELINE_STYLES, strict=False)
    for name, value, style in values:
        axes.axhline(float(value), color=MUTED, linestyle=style, label=str(name))
