"""What the parameters did: one at a time, two at a time, all together."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke

from tune_srs.report.axes import ParameterAxis, spread, text_width
from tune_srs.report.importance import COUNTED
from tune_srs.report.style import BEST, BLUE, INK, MUTED, PAPER, SCALE, WIDTH, Picture, new_figure
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.run import Run

SLICES, PAIRS = 6, 3  # shown, those of the most important parameters first
MIN_TRIALS = 5  # of a pair
LABEL_SIZE = 8  # points, of what stands at an axis of the parallel view


def slices(run: Run, shares: dict[str, float]) -> Picture | None:
    """The metric over each of the parameters that matter most."""
    shown = [axis for axis in _by_importance(run, shares)[:SLICES] if _having(run, axis)]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(0.3 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, axis in zip(panels.flat, shown, strict=False):
        records = _having(run, axis)
        values = [run.value(record) for record in records]
        places = spread(records, [axis])[0]
        axes.scatter(places, values, s=26, color=BLUE, alpha=0.75, linewidth=0)
        _star(axes, run, records, places, values)
        axis.dress(axes, "x")
    for axes in panels[:, 0]:
        axes.set_ylabel(run.metric)
    caption = f"{run.metric} of each trial over one parameter; the star is the best. {COUNTED}"
    return Picture("slices", "One parameter at a time", caption, figure)


def interactions(run: Run, shares: dict[str, float]) -> Picture | None:
    """The metric over pairs of the parameters that matter most."""
    pairs = [
        pair
        for pair in combinations(_by_importance(run, shares), 2)
        if len(_having(run, *pair)) >= MIN_TRIALS
    ][:PAIRS]
    if not pairs:
        return None
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    colours = _colours(run)
    figure.colorbar(colours, ax=panels, label=run.metric, aspect=30, pad=0.02)
    for axes, pair in zip(panels, pairs, strict=True):
        pair[1].dress(axes, "y")
    for axes, pair in zip(panels, pairs, strict=True):
        records = _having(run, *pair)
        x, y = spread(records, pair)
        values = np.array([run.value(record) for record in records])
        axes.scatter(x, y, s=42, c=colours.to_rgba(values), edgecolor=MUTED, linewidth=0.5)
        _star(axes, run, records, x, y)
        pair[0].dress(axes, "x")
    caption = f"{run.metric} by two parameters, where both are active; the star is the best."
    return Picture("interactions", "Two parameters at a time", caption, figure)


def parallel(run: Run) -> Picture | None:
    """A line a trial through all of its parameters, the best ones last and so on top."""
    records = sorted(run.scored, key=lambda record: run.objective.sign * run.value(record))
    if len(records) < 2:
        return None
    shown = [ParameterAxis(*item) for item in run.space.params.items()]
    widths = [text_width([text for _, text in axis.marks()], LABEL_SIZE) + 0.2 for axis in shown]
    step = max(1, *widths)  # inches from an axis to the next
    figure = new_figure(3.8, max(WIDTH, len(shown) * step + 1))
    axes = figure.subplots()
    colours = _colours(run)
    for record in records:
        colour = colours.to_rgba(np.array(run.value(record)))
        axes.plot([axis.height(record) for axis in shown], color=colour, linewidth=1, alpha=0.75)
    if run.winner:
        axes.plot([axis.height(run.winner) for axis in shown], color=BEST, linewidth=2.4)
    for place, axis in enumerate(shown):
        axes.axvline(place, color=INK, linewidth=0.8)
        for height, text in axis.marks():
            label = axes.text(place + 0.03, height, text, fontsize=LABEL_SIZE, va="center")
            label.set_in_layout(False)  # or the layout of a narrow figure finds no room
            label.set_path_effects([withStroke(linewidth=3, foreground=PAPER)])
    names = [axis.name.replace(".", ".\n").replace("_", "\n") for axis in shown]
    axes.set_xticks(range(len(shown)), names)
    axes.set_xlim(-0.1, len(shown) - 1 + widths[-1] / step)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(colours, ax=axes, label=run.metric, aspect=30, pad=0.02)
    caption = (
        f"Each line is a trial, its colour {run.metric}, the thick one the best. "
        f"At the bottom, at “-”, a parameter is inactive. {COUNTED}"
    )
    return Picture("parallel-coordinates", "All parameters together", caption, figure)


def _by_importance(run: Run, shares: dict[str, float]) -> list[ParameterAxis]:
    """The parameters by their importance; behind them the others, as the space has them."""
    names = dict.fromkeys([*shares, *run.space.params])
    return [ParameterAxis(name, run.space.params[name]) for name in names]


def _having(run: Run, *axes: ParameterAxis) -> list[TrialRecord]:
    """The scored trials in which all of these parameters are active."""
    return [r for r in run.scored if all(axis.name in r.values for axis in axes)]


def _star(
    axes: Axes,
    run: Run,
    records: Sequence[TrialRecord],
    x: Sequence[float],
    y: Sequence[float],
) -> None:
    """Marks the best of the trials, if it is among them."""
    for record, across, up in zip(records, x, y, strict=True):
        if record is run.winner:
            axes.plot(across, up, "*", color=BEST, ms=14, markeredgecolor=INK, markeredgewidth=0.6,
                      clip_on=False, zorder=3)  # fmt: skip


def _colours(run: Run) -> ScalarMappable:
    """Of the values that the trials reached."""
    values = [run.value(record) for record in run.scored]
    return ScalarMappable(Normalize(min(values), max(values)), SCALE)
