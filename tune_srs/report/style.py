"""How pictures look: colours for every eye, light and dark, and the files they are kept in."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tune_srs.files import write_aside

INK = "#1c1f24"  # of text and axes; in an SVG it follows the reader's light or dark theme
PAPER = "#fefefe"  # behind text that crosses lines; in an SVG it follows the theme, too
MUTED = "#7a808a"  # legible on both
# Okabe and Ito's colours, told apart by colour-blind readers too, and one that shows on black
BLUE = "#0072b2"  # brighter on black
COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
BEST = "#D55E00"
WIDTH = 7.2  # inches: as wide as a page's text
SCALE: Colormap = ListedColormap(matplotlib.colormaps["viridis"].resampled(256).colors[56:225])  # type: ignore[attr-defined]

THEME = (
    f"<style>svg{{color:{INK};--paper:#fff;--blue:{BLUE}}}@media(prefers-color-scheme:dark)"
    f"{{svg{{color:#e4e7eb;--paper:#15181c;--blue:#3795d6}}}}</style>"
)
THEMED = {INK: "currentColor", PAPER: "var(--paper)", BLUE: "var(--blue)"}
SETTINGS: Any = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a $
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "tune_srs",  # the same picture, the same bytes
}


@dataclass(frozen=True)
class Picture:
    """A figure and what a reader is told of it."""

    name: str  # of its files
    title: str
    caption: str
    figure: Figure


@contextmanager
def styled() -> Iterator[None]:
    """Within, figures are drawn and saved in this style."""
    with matplotlib.rc_context(SETTINGS):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """`height` and `width` in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_above(axes: Axes, extra: Sequence[Line2D] = (), title: str = "") -> None:
    """A legend where no data are: in rows above the axes."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [*handles, *extra]
    labels = [*labels, *(str(line.get_label()) for line in extra)]
    columns = max(1, 76 // (8 + max(map(len, labels), default=0)))
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=columns,
        title=title or None,
        alignment="left",
    )


def mark(label: str, marker: str) -> Line2D:
    """An entry of a legend that is a marker alone."""
    return Line2D([], [], linestyle="none", color=MUTED, marker=marker, label=label)


def svg(figure: Figure) -> str:
    """The figure as an SVG that is dark where its reader's theme is."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    head, opening, rest = text.getvalue().partition("<svg")
    attributes, closing, content = rest.partition(">")
    for colour, themed in THEMED.items():
        content = content.replace(colour, themed)
    return head + opening + attributes + closing + THEME + content


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write the picture as PNG and as SVG."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{picture.name}.png", folder / f"{picture.name}.svg"]
    content = svg(picture.figure)
    write_aside(paths[0], lambda aside: picture.figure.savefig(aside, dpi=150))
    write_aside(paths[1], lambda aside: aside.write_text(content, encoding="utf-8"))
    return paths
