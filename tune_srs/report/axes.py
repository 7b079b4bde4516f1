"""A parameter as an axis: where its values stand, and how it is labelled."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.tables import spelled
from tune_srs.space.parameters import Categorical, Distribution, Int

POINTS = 72  # an inch
MOST_LABELS = 12  # of an axis where they stand one upon the other
LETTER, LINE = 0.65, 1.2  # width of a letter and height of a line, in font sizes
MARGIN = 0.06  # of a range, left free at both of its ends
INACTIVE_HEIGHT = -0.15  # below the range


@dataclass(frozen=True)
class ParameterAxis:
    """The axis of one parameter; categories stand one apart, in their order."""

    name: str
    parameter: Distribution

    def place(self, value: Any) -> float:
        """Where a value stands."""
        if isinstance(self.parameter, Categorical):
            return float(self.parameter.choices.index(value))
        return float(value)

    def height(self, record: TrialRecord) -> float:
        """0 … 1 within the range, or `INACTIVE_HEIGHT`."""
        if self.name not in record.values:
            return INACTIVE_HEIGHT
        return self._share(record.values[self.name])

    def marks(self) -> list[tuple[float, str]]:
        """The heights that are labelled: categories, or both ends of a range."""
        parameter = self.parameter
        if isinstance(parameter, Categorical):
            labelled = parameter.choices[:: _every(len(parameter.choices))]
            marks = [(self._share(choice), spelled(choice)) for choice in labelled]
        else:
            ends = (parameter.low, parameter.high)
            marks = [(self._share(end), f"{end:g}") for end in ends]
        return [(INACTIVE_HEIGHT, "-"), *marks] if parameter.when else marks

    def dress(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Label, scale, ticks and limits of an axis of `axes`; of several panels, y first."""
        parameter = self.parameter
        axis, limit = (axes.xaxis, axes.set_xlim) if which == "x" else (axes.yaxis, axes.set_ylim)
        axis.set_label_text(self.name)
        if isinstance(parameter, Categorical):
            texts = list(map(spelled, parameter.choices))
            every, look = _across(texts, axes) if which == "x" else (_every(len(texts)), {})
            axis.set_ticks(range(0, len(texts), every), texts[::every], **look)
            limit(-0.5, len(texts) - 0.5)
        elif parameter.low == parameter.high:
            axis.set_ticks([parameter.low])
        elif parameter.log:
            axes.set(**{f"{which}scale": "log"})
            axis.set_major_locator(FixedLocator(_round_values(parameter.low, parameter.high)))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_locator(FixedLocator([]))
            room = (parameter.high / parameter.low) ** MARGIN
            limit(parameter.low / room, parameter.high * room)
        else:
            axis.set_major_locator(MaxNLocator(4, integer=isinstance(parameter, Int)))
            room = (parameter.high - parameter.low) * MARGIN
            limit(parameter.low - room, parameter.high + room)

    def _share(self, value: Any) -> float:
        parameter = self.parameter
        if isinstance(parameter, Categorical):
            return self.place(value) / max(1, len(parameter.choices) - 1)
        low, high, number = parameter.low, parameter.high, float(value)
        if parameter.log:
            low, high, number = np.log([low, high, number])
        return float((number - low) / (high - low)) if high > low else 0.5


def spread(records: Sequence[TrialRecord], axes: Sequence[ParameterAxis]) -> list[list[float]]:
    """The coordinates of the trials on each axis.

    Those that share a point stand beside each other on the first axis that has categories.
    """
    points = [tuple(axis.place(record.values[axis.name]) for axis in axes) for record in records]
    together, met = Counter(points), Counter[tuple[float, ...]]()
    coordinates = [list(column) for column in zip(*points, strict=True)]
    for axis, column in zip(axes, coordinates, strict=False):  # without points, no columns
        if isinstance(axis.parameter, Categorical):
            for row, point in enumerate(points):
                step = min(0.12, 0.6 / together[point])
                column[row] += (met[point] - (together[point] - 1) / 2) * step
                met[point] += 1
            break
    return coordinates


def text_width(texts: Iterable[str], size: float) -> float:
    """Inches that the longest of them takes at most, in letters of `size` points."""
    return max(map(len, texts)) * LETTER * size / POINTS


def _every(count: int) -> int:
    """Each which one of so many labels is shown, where they stand one upon the other."""
    return -(-count // MOST_LABELS)


def _across(texts: Sequence[str], axes: Axes) -> tuple[int, dict[str, Any]]:
    """Of labels side by side, each which one is shown, and how so that it crosses no other."""
    size = float(matplotlib.rcParams["font.size"])
    line = LINE * size / POINTS
    room = _width(axes) / len(texts)
    if text_width(texts, size) + line / 2 <= room:
        return 1, {}
    if line / math.sin(math.radians(30)) <= room:
        return 1, {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    return math.ceil(line / room), {"rotation": 90}


def _width(axes: Axes) -> float:
    """Inches of a panel, as what is in its figure so far leaves them."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # lays it out
    return float(axes.get_window_extent().width / figure.dpi)


def _round_values(low: float, high: float) -> list[float]:
    """At most three round values of a logarithmic axis."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 3) if len(decades) <= 3 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    inside = [value for value in values if low * 0.99 <= value <= high * 1.01]
    return inside[:: -(-len(inside) // 3)] or [low, high]
