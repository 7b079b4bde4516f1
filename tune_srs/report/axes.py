"""A parameter as an axis: where its values stand, and how it is labelled."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from tune_srs.journal import TrialRecord
from tune_srs.space import Categorical, Distribution, Int

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
        """The heights that are labelled: each category, or both ends of a range."""
        parameter = self.parameter
        if isinstance(parameter, Categorical):
            marks = [(self._share(choice), str(choice)) for choice in parameter.choices]
        else:
            ends = (parameter.low, parameter.high)
            marks = [(self._share(end), f"{end:g}") for end in ends]
        return [(INACTIVE_HEIGHT, "-"), *marks] if parameter.when else marks

    def dress(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Label, scale, ticks and limits of an axis of `axes`."""
        parameter = self.parameter
        axis, limit = (axes.xaxis, axes.set_xlim) if which == "x" else (axes.yaxis, axes.set_ylim)
        axis.set_label_text(self.name)
        if isinstance(parameter, Categorical):
            texts = list(map(str, parameter.choices))
            axis.set_ticks(range(len(texts)), texts)
            if which == "x" and sum(map(len, texts)) > 16:
                for label in axis.get_ticklabels():
                    label.set(rotation=30, ha="right", rotation_mode="anchor")
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

    Those that share a point stand beside each other if the first axis has categories.
    """
    points = [tuple(axis.place(record.values[axis.name]) for axis in axes) for record in records]
    together, met = Counter(points), Counter[tuple[float, ...]]()
    coordinates = [list(column) for column in zip(*points, strict=True)]
    if isinstance(axes[0].parameter, Categorical):
        for row, point in enumerate(points):
            step = min(0.12, 0.6 / together[point])
            coordinates[0][row] += (met[point] - (together[point] - 1) / 2) * step
            met[point] += 1
    return coordinates


def _round_values(low: float, high: float) -> list[float]:
    """At most three round values of a logarithmic axis."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 3) if len(decades) <= 3 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    inside = [value for value in values if low * 0.99 <= value <= high * 1.01]
    return inside[:: -(-len(inside) // 3)] or [low, high]
