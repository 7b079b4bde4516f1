"""A picture of the relevances: what the positives of a position weigh, the nearest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tune_srs.config.settings import LossConfig, Position
from tune_srs.config.validation import nearest, validated
from tune_srs.errors import ConfigError
from tune_srs.files import check_file, write_aside
from tune_srs.relevance import DEFAULT_RATES, loss_weights

# Okabe and Ito's colours: told apart by colour-blind readers too
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
MARKERS = "os^Dvp"
KINDS = ("png", "svg", "pdf")


def relevance_figure(count: int, rates: Mapping[str, Any]) -> Figure:
    """Weights of `count` positives in a loss, under both normalisations.

    `rates` by relevance, where others than the default are wanted. Relevance by time or learned is
    no function of the place and not drawn. Raises `ConfigError` for a rate that bends nothing, and
    for weights that overflow.
    """
    for name in rates:
        if name not in DEFAULT_RATES:
            known = nearest(name, DEFAULT_RATES)
            raise ConfigError(f"--rate: {name} is no relevance that a rate bends{known}")
    drawn = []
    for name in get_args(Position):
        values = {"relevance": name, "rate": rates.get(name), "num_positives": count}
        values["normalization"] = "original"  # whose weights are the larger ones
        drawn.append(validated(LossConfig, values, f"relevance {name}"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    _draw(left, drawn, "mean")
    left.set_title("normalization: mean (each sums to P)")
    left.set_ylim(bottom=0)
    _draw(right, drawn, "original")
    right.set_title("normalization: original (divided by P (P + 1) / 2)")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("place of the positive, 1 the next item")
        axes.set_ylabel("weight in the loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
    figure.suptitle(f"Relevance of P = {count} positives")
    return figure


def _draw(axes: Axes, drawn: Sequence[LossConfig], normalization: str) -> None:
    for config, colour, marker in zip(drawn, COLOURS, MARKERS, strict=True):
        name, count = config.relevance, config.num_positives
        weights = loss_weights(name, count, config.rate, normalization)
        rate = config.rate or DEFAULT_RATES.get(name)
        label = name if rate is None else f"{name}, rate {rate:g}"
        if normalization == "original":
            label += f" (sum {weights.sum():.3g})"
        axes.plot(range(1, count + 1), weights, color=colour, marker=marker, ms=4, label=label)


def write_relevance_plot(path: Path, count: int, rates: Mapping[str, Any]) -> None:
    """The figure as a PNG, SVG or PDF, as the name of the file says."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise ConfigError(f"--to: {path} is no picture; end its name with .{', .'.join(KINDS)}")
    check_file("--to", path)
    figure = relevance_figure(count, rates)
    write_aside(path, lambda aside: figure.savefig(aside, dpi=150, format=kind))
    plt.close(figure)
