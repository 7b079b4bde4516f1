"""What a search cost, and what stopping trials early saved."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from tune_srs.report.style import BLUE, COLOURS, Picture, legend_above, new_figure
from tune_srs.runs.run import Run
from tune_srs.tuning.early_stopping import EARLY


def bars(run: Run) -> Picture | None:
    """Epochs and seconds of each trial, and what stopping them early saved."""
    table = spent(run)
    if not table["epochs"].any():
        return None
    figure = new_figure(4.6)
    panels = figure.subplots(2, sharex=True)
    for axes, unit, label in zip(
        panels, ("epochs", "seconds"), ("epochs", "time (s)"), strict=True
    ):
        axes.bar(table.index, table[unit], color=BLUE, label="spent")
        axes.bar(
            table.index,
            table[f"{unit}_saved"],
            bottom=table[unit],
            facecolor="none",
            edgecolor=COLOURS[1],
            hatch="////",
            linewidth=0.5,
            label="saved by stopping early",
        )
        axes.set_ylabel(label)
        axes.grid(axis="x", visible=False)
    panels[-1].set_xlabel("trial")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(panels[0])
    total = table.sum()
    share = total["epochs_saved"] / (total["epochs"] + total["epochs_saved"])
    caption = (
        f"Trained: {total['epochs']:.0f} epochs in {duration(total['seconds'])} of training and "
        f"evaluation, all trials together. Saved by stopping before {max_epochs(run)} epochs: "
        f"{total['epochs_saved']:.0f} epochs ({share:.0%}), about "
        f"{duration(total['seconds_saved'])} at each trial's own pace."
    )
    return Picture("effort", "What was spent, and what was saved", caption, figure)


def max_epochs(run: Run) -> int:
    return run.space.base.train.max_epochs


def spent(run: Run) -> pd.DataFrame:
    """By trial: `epochs`, `seconds` that they took, and those that were saved, `…_saved`.

    Saved is what a trial had left until `max_epochs` when it was stopped as a poor one or had not
    improved for long, at its median time an epoch: a first epoch may hold a worker's warm-up.
    """
    epochs, rows = run.epochs, []
    times = pd.Series(dtype=float)
    if not epochs.empty:
        times = epochs["time/train_s"] + epochs["time/evaluate_s"]
    for record in run.records:
        own = times[epochs["trial"] == record.number]
        early = record.status == "complete" or record.reason == EARLY
        left = max_epochs(run) - record.epochs if early else 0
        pace = own.median() if len(own) else 0.0
        rows.append((record.epochs, own.sum(), left, left * pace))
    columns = ["epochs", "seconds", "epochs_saved", "seconds_saved"]
    return pd.DataFrame(rows, [record.number for record in run.records], columns)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
