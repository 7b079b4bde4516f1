"""How a search went: its best value over time, and the learning curves."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

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
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.run import Run
from tune_srs.runs.tables import spelled

STYLES = ("-", "--", ":", "-.")
BASELINE_STYLES = ("--", ":", "-.")
COLOURED_BY = ("loss.type", "loss.relevance", "loss.num_positives")
MANY_POINTS = 50_000  # of curves; more are drawn as pixels, or an SVG grows too large to open
MARKERS = {"complete": "o", "stopped": "X", "failed": "|", "waiting": "X", "unfinished": "."}
WORDS = {status: status for status in MARKERS} | {"stopped": "stopped early"}
NOT_THERE = "inactive"


def history(run: Run) -> Picture | None:
    """The value of each trial, and the best until then."""
    if not run.scored:
        return None
    figure = new_figure(3.6)
    axes = figure.subplots()
    numbers = [record.number for record in run.scored]
    values = [run.value(record) for record in run.scored]
    sign = run.objective.sign
    best = sign * np.maximum.accumulate(sign * np.array(values))
    axes.step(numbers, best, where="post", color=BEST, label="best so far")
    for status, marker in MARKERS.items():
        own = [record for record in run.scored if record.status == status]
        if own:
            axes.plot(
                [record.number for record in own],
                [run.value(record) for record in own],
                linestyle="none",
                marker=marker,
                color=COLOURS[0] if status == "complete" else MUTED,
                label=WORDS[status],
            )
    failed = [record.number for record in run.records if record.status == "failed"]
    if failed:
        at_the_bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), MARKERS["failed"], color=COLOURS[3], ms=9,
                  label="failed", transform=at_the_bottom)  # fmt: skip
    _draw_baselines(axes, run)
    axes.set_xlabel("trial, in the order in which they began")
    axes.set_ylabel(run.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(axes)
    caption = (
        f"{run.metric} of each trial at its best epoch. A trial that was stopped early would "
        f"have gone on learning: its value is what it had reached."
    )
    return Picture("history", "How the best was found", caption, figure)


def curves(run: Run) -> Picture | None:
    """The metric by epoch, coloured by what a trial trained with."""
    epochs = run.epochs
    if epochs.empty:
        return None
    names = [name for name in COLOURED_BY if name in run.space.params] or [""]
    figure = new_figure(0.6 + 3.4 * len(names))
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    present = {record.status for record in run.records if record.epochs}
    ends = [mark(WORDS[own], marker) for own, marker in MARKERS.items() if own in present]
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        _draw_curves(axes, run, name)
        _draw_baselines(axes, run)
        axes.set_ylabel(run.metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend_above(axes, ends if place == 0 else (), name)
    panels[-1].set_xlabel("epoch")
    where = " on the validation futures" if run.metric.startswith("val/") else ""
    caption = (
        f"{run.metric}{where} after each epoch, a line a trial. "
        f"Its end is marked by what became of it; a parameter is inactive in trials where "
        f"it would change nothing, as relevance with a single positive."
    )
    return Picture("learning-curves", "How the trials learned", caption, figure)


def _draw_curves(axes: Axes, run: Run, name: str) -> None:
    epochs = run.epochs
    groups = _groups(run, name)
    as_pixels = len(epochs) > MANY_POINTS
    curve_of = dict(iter(epochs.groupby("trial")))
    looks = _looks(list(groups), ordered=_are_numbers(_values(run, name)))
    for (label, records), (colour, line) in zip(groups.items(), looks, strict=True):
        for place, record in enumerate(records):
            curve = curve_of[record.number]
            shown = label if place == 0 else None
            axes.plot(curve["epoch"], curve[run.metric], color=colour, label=shown, alpha=0.8,
                      linestyle=line, linewidth=1.2, rasterized=as_pixels)  # fmt: skip
            marker = MARKERS[record.status]
            axes.plot(curve["epoch"].iloc[-1], curve[run.metric].iloc[-1], marker, color=colour,
                      ms=6, markeredgecolor="none" if marker != "|" else colour)  # fmt: skip


def _groups(run: Run, name: str) -> dict[str, list[TrialRecord]]:
    """The trials that have learned, by their value of the parameter; the inactive ones last."""
    records = [record for record in run.records if record.epochs]
    if not name:
        return {"a trial": records}
    values = _values(run, name)
    groups: dict[str, list[TrialRecord]] = {}
    for value in sorted(set(values), key=_order(values)):
        groups[spelled(value)] = [r for r in records if r.values.get(name, groups) == value]
    if inactive := [record for record in records if name not in record.values]:
        groups[NOT_THERE] = inactive
    return groups


def _values(run: Run, name: str) -> list[Any]:
    """Those of the trials that have learned."""
    return [r.values[name] for r in run.records if r.epochs and name in r.values]


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _order(values: Sequence[Any]) -> Callable[[Any], Any]:
    """Numbers by size, anything else as text."""
    return float if _are_numbers(values) else str


def _looks(labels: Sequence[str], ordered: bool) -> list[tuple[Any, str]]:
    """A colour and a style of line for each label; grey for what is inactive.

    Of more values than there are colours, numbers have a scale; texts the colours again, dashed.
    """
    count = sum(label != NOT_THERE for label in labels)
    looks: list[tuple[Any, str]]
    if ordered and count > len(COLOURS):
        looks = [(SCALE(place), "-") for place in np.linspace(0, 1, count)]
    else:
        styles = islice(cycle(product(STYLES, COLOURS)), count)
        looks = [(colour, style) for style, colour in styles]
    return [*looks, *([(MUTED, "-")] if NOT_THERE in labels else [])]


def _draw_baselines(axes: Axes, run: Run) -> None:
    baselines = run.baselines
    if run.metric not in baselines:
        return
    values = zip(baselines["trial"], baselines[run.metric], BASELINE_STYLES, strict=False)
    for name, value, style in values:
        axes.axhline(float(value), color=MUTED, linestyle=style, label=str(name))
