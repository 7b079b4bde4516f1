"""Which parameters mattered, and how: importance, slices, interactions, parallel coordinates."""

import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from tune_srs.journal import TrialRecord
from tune_srs.report.search import Search
from tune_srs.report.style import (
    BEST,
    COLOURS,
    INK,
    MUTED,
    PAPER,
    SCALE,
    WIDTH,
    Picture,
    new_figure,
)
from tune_srs.space import Categorical, Distribution, Int

optuna.logging.set_verbosity(optuna.logging.WARNING)  # not that a study was made
MIN_TRIALS = 5
ENOUGH_TRIALS = 50  # of which a tenth are five, the least that PED-ANOVA should compare
MARGIN = 0.06  # of a range, left free at both of its ends
SLICES, PAIRS = 6, 3  # shown, those of the most important parameters first
COUNTED = "Trials that were stopped early count with what they had reached, failed ones do not."


def importances(search: Search) -> dict[str, float]:
    """Shares that sum to 1, the most important parameter first; empty where trials are too few.

    PED-ANOVA (arXiv 2304.10255): how differently the best tenth of the trials, but at least five,
    and all of them are spread over a parameter.
    """
    count = len(search.scored)
    if count < MIN_TRIALS or len({search.value(record) for record in search.scored}) == 1:
        return {}
    study = optuna.create_study(direction="maximize" if search.rising else "minimize")
    study.add_trials([_optuna_trial(record, search) for record in search.scored])
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(5 / count, 0.5)))
    with warnings.catch_warnings():  # the caption says what few trials are worth
        warnings.filterwarnings("ignore", "Some regimes for parameter")
        shares = get_param_importances(study, evaluator=evaluator)
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def importance(search: Search, shares: dict[str, float]) -> Picture | None:
    """A bar a parameter."""
    if not shares:
        return None
    figure = new_figure(0.8 + 0.32 * len(shares))
    axes = figure.subplots()
    bars = axes.barh(list(map(short, shares)), list(shares.values()), color=COLOURS[0], height=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.set_xlabel("share of the importance")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", visible=False)
    caption = (
        f"PED-ANOVA: how differently the best trials, a tenth but at least five, and all "
        f"{len(search.scored)} trials are spread over each parameter. {COUNTED}"
    )
    if len(search.scored) < ENOUGH_TRIALS:
        caption += (
            f" With fewer than {ENOUGH_TRIALS} trials these shares are a hint, not a finding: "
            f"another seed may well order them otherwise."
        )
    return Picture("importance", "Which parameters mattered", caption, figure)


def slices(search: Search, shares: dict[str, float]) -> Picture | None:
    """The metric over each of the parameters that matter most."""
    names = _most_important(search, shares)[:SLICES]
    names = [name for name in names if _having(search, [name])]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(0.3 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(names):
            axes.set_axis_off()
            continue
        name = names[place]
        records = _having(search, [name])
        x = _spread(records, [name], search)[0]
        values = [search.value(record) for record in records]
        axes.scatter(x, values, s=26, color=COLOURS[0], alpha=0.75, linewidth=0)
        _star(axes, search, records, x, values)
        _dress(axes, "x", name, search)
        if place % columns == 0:
            axes.set_ylabel(search.metric)
    caption = f"{search.metric} of each trial over one parameter; the star is the best. {COUNTED}"
    return Picture("slices", "One parameter at a time", caption, figure)


def interactions(search: Search, shares: dict[str, float]) -> Picture | None:
    """The metric over pairs of the parameters that matter most."""
    pairs = [
        pair
        for pair in combinations(_most_important(search, shares), 2)
        if len(_having(search, pair)) >= MIN_TRIALS
    ][:PAIRS]
    if not pairs:
        return None
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    colours = _colours(search)
    for axes, pair in zip(panels, pairs, strict=True):
        records = _having(search, pair)
        x, y = _spread(records, pair, search)
        values = [search.value(record) for record in records]
        axes.scatter(
            x, y, s=42, c=colours.to_rgba(np.array(values)), edgecolor=MUTED, linewidth=0.5
        )
        _star(axes, search, records, x, y)
        _dress(axes, "x", pair[0], search)
        _dress(axes, "y", pair[1], search)
    figure.colorbar(colours, ax=panels, label=search.metric, aspect=30, pad=0.02)
    caption = (
        f"{search.metric} by two parameters together, where both are active; the star is the best."
    )
    return Picture("interactions", "Two parameters at a time", caption, figure)


def parallel(search: Search) -> Picture | None:
    """A line a trial through all of its parameters, the best ones last and so on top."""
    records = sorted(search.scored, key=search.value, reverse=not search.rising)
    if len(records) < 2:
        return None
    names = list(search.space.params)
    figure = new_figure(3.8, max(WIDTH, len(names) + 1))
    axes = figure.subplots()
    colours = _colours(search)
    for record in records:
        heights = [_height(record, name, search) for name in names]
        best = record is search.winner
        axes.plot(
            heights,
            color=BEST if best else colours.to_rgba(np.array(search.value(record))),
            linewidth=2.4 if best else 1.0,
            alpha=1.0 if best else 0.75,
            label="best" if best else None,
        )
    for place, name in enumerate(names):
        axes.axvline(place, color=INK, linewidth=0.8)
        for height, text in _marks(name, search):
            label = axes.text(place + 0.03, height, text, fontsize=8, va="center")
            label.set_in_layout(False)  # it may reach beyond the last axis
            label.set_path_effects([withStroke(linewidth=3, foreground=PAPER)])
    axes.set_xticks(range(len(names)), [short(name).replace("_", "\n") for name in names])
    axes.set_xlim(-0.1, len(names) - 0.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(colours, ax=axes, label=search.metric, aspect=30, pad=0.02)
    caption = (
        f"Each line is a trial, its colour {search.metric}, the thick one the best. "
        f"At the bottom, below “-”, a parameter is inactive. {COUNTED}"
    )
    return Picture("parallel-coordinates", "All parameters together", caption, figure)


def short(name: str) -> str:
    """A parameter without its section."""
    return name.rpartition(".")[2]


def _optuna_trial(record: TrialRecord, search: Search) -> optuna.trial.FrozenTrial:
    return optuna.create_trial(
        params=record.values,
        distributions={name: _distribution(search.space.params[name]) for name in record.values},
        value=search.value(record),
    )


def _distribution(parameter: Distribution) -> BaseDistribution:
    """The same in Optuna's classes."""
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    low, high, log = parameter.low, parameter.high, parameter.log
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=log, step=parameter.step or 1)
    return FloatDistribution(low, high, log=log, step=parameter.step)


def _most_important(search: Search, shares: dict[str, float]) -> list[str]:
    """The parameters by their importance; where that is unknown, as the space has them."""
    return list(shares) or list(search.space.params)


def _having(search: Search, names: Sequence[str]) -> list[TrialRecord]:
    """The scored trials in which all of these parameters are active."""
    return [r for r in search.scored if all(name in r.values for name in names)]


def _place(parameter: Distribution, value: Any) -> float:
    """Where a value stands on the axis of its parameter."""
    if isinstance(parameter, Categorical):
        return float(parameter.choices.index(value))
    return float(value)


def _spread(
    records: Sequence[TrialRecord], names: Sequence[str], search: Search
) -> list[list[float]]:
    """Coordinates of the trials; those that share a point stand beside each other there."""
    params = [search.space.params[name] for name in names]
    points = [tuple(_place(p, r.values[n]) for n, p in zip(names, params, strict=True))
              for r in records]  # fmt: skip
    together, met = Counter(points), Counter[tuple[float, ...]]()
    coordinates: list[list[float]] = [[] for _ in names]
    for point in points:
        shift = (met[point] - (together[point] - 1) / 2) * min(0.12, 0.6 / together[point])
        met[point] += 1
        for axis, (place, parameter) in enumerate(zip(point, params, strict=True)):
            moved = axis == 0 and isinstance(parameter, Categorical)
            coordinates[axis].append(place + shift if moved else place)
    return coordinates


def _dress(axes: Axes, which: str, name: str, search: Search) -> None:
    """Label, scale and ticks of the axis of a parameter."""
    parameter = search.space.params[name]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(short(name))
    if isinstance(parameter, Categorical):
        texts = list(map(str, parameter.choices))
        axis.set_ticks(range(len(texts)), texts)
        if which == "x" and sum(map(len, texts)) > 16:
            for label in axis.get_ticklabels():
                label.set(rotation=30, ha="right", rotation_mode="anchor")
        limits = (-0.5, len(texts) - 0.5)
    elif parameter.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(FixedLocator(_round_values(parameter.low, parameter.high)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_locator(FixedLocator([]))
        room = (parameter.high / parameter.low) ** MARGIN
        limits = (parameter.low / room, parameter.high * room)
    else:
        axis.set_major_locator(MaxNLocator(4, integer=isinstance(parameter, Int)))
        room = (parameter.high - parameter.low) * MARGIN
        limits = (parameter.low - room, parameter.high + room)
    if limits[0] < limits[1]:  # a range may hold one value only
        (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)


def _round_values(low: float, high: float) -> list[float]:
    """At most three round values of a logarithmic axis."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 3) if len(decades) <= 3 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    inside = [value for value in values if low * 0.99 <= value <= high * 1.01]
    return inside[:: -(-len(inside) // 3)] or [low, high]


def _star(
    axes: Axes,
    search: Search,
    records: Sequence[TrialRecord],
    x: Sequence[float],
    y: Sequence[float],
) -> None:
    for record, across, up in zip(records, x, y, strict=True):
        if record is search.winner:
            axes.plot(across, up, "*", color=BEST, ms=14, markeredgecolor=INK, markeredgewidth=0.6,
                      clip_on=False, zorder=3)  # fmt: skip


def _colours(search: Search) -> ScalarMappable:
    """Of the values that the trials reached."""
    values = [search.value(record) for record in search.scored]
    return ScalarMappable(Normalize(min(values), max(values)), SCALE)


def _height(record: TrialRecord, name: str, search: Search) -> float:
    """0 … 1 within the range of the parameter, lower where it is inactive."""
    if name not in record.values:
        return -0.15
    return _share(search.space.params[name], record.values[name])


def _share(parameter: Distribution, value: Any) -> float:
    if isinstance(parameter, Categorical):
        return _place(parameter, value) / max(1, len(parameter.choices) - 1)
    low, high, number = parameter.low, parameter.high, float(value)
    if parameter.log:
        low, high, number = np.log([low, high, number])
    return float((number - low) / (high - low)) if high > low else 0.5


def _marks(name: str, search: Search) -> list[tuple[float, str]]:
    """The heights that are labelled on the axis of a parameter."""
    parameter = search.space.params[name]
    inactive = [(-0.15, "-")] if parameter.when else []
    if isinstance(parameter, Categorical):
        values: list[Any] = parameter.choices
    else:
        values = [parameter.low, parameter.high]
    texts = [str(v) if isinstance(v, str | bool | None) else f"{v:g}" for v in values]
    return inactive + [(_share(parameter, v), text) for v, text in zip(values, texts, strict=True)]
