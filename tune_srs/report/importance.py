"""Which parameters mattered."""

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from tune_srs.report.style import BLUE, Picture, new_figure
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.optuna_study import distributions, new_study
from tune_srs.runs.run import Run

MIN_TRIALS = 10  # in which a parameter is active
ENOUGH_TRIALS = 50  # of which a tenth are five, the least that PED-ANOVA should compare
COUNTED = "Trials that were stopped early count with what they had reached, failed ones do not."


def shares(run: Run) -> dict[str, float]:
    """Shares that sum to 1, the most important parameter first; empty where trials are too few.

    PED-ANOVA (arXiv 2304.10255): how differently the best tenth of the trials, but at least five,
    and all of them are spread over a parameter. It says something of `comparable` ones only.
    """
    names = comparable(run)
    if not names or len({run.value(record) for record in run.scored}) == 1:
        return {}
    study = new_study([run.objective])
    study.add_trials([_optuna_trial(record, names, run) for record in run.scored])
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(run.scored)))
    with warnings.catch_warnings():  # the caption says what few trials are worth
        warnings.filterwarnings("ignore", "Some regimes for parameter")
        found = get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda share: -share[1]))


def comparable(run: Run) -> list[str]:
    """The parameters that are active in enough of the scored trials, and not always the same."""
    names = []
    for name in run.space.params:
        values = [record.values[name] for record in run.scored if name in record.values]
        if len(values) >= MIN_TRIALS and len(set(values)) > 1:
            names.append(name)
    return names


def bars(run: Run, shares: dict[str, float]) -> Picture | None:
    """A bar a parameter."""
    if not shares:
        return None
    figure = new_figure(0.8 + 0.32 * len(shares))
    axes = figure.subplots()
    drawn = axes.barh(list(shares), list(shares.values()), color=BLUE, height=0.6)
    axes.bar_label(drawn, [f"{share:.0%}" for share in shares.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.set_xlabel("share of the importance")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", visible=False)
    caption = (
        f"PED-ANOVA: how differently the best trials, a tenth but at least five, and all "
        f"{len(run.scored)} trials are spread over each parameter. {COUNTED}"
    )
    if left_out := [name for name in run.space.params if name not in shares]:
        caption += (
            f" Not ranked, as active in fewer than {MIN_TRIALS} trials or always the same: "
            f"{', '.join(left_out)}."
        )
    if len(run.scored) < ENOUGH_TRIALS:
        caption += (
            f" With fewer than {ENOUGH_TRIALS} trials these shares are a hint, not a finding: "
            f"another seed may well order them otherwise."
        )
    return Picture("importance", "Which parameters mattered", caption, figure)


def _optuna_trial(record: TrialRecord, names: Sequence[str], run: Run) -> FrozenTrial:
    """Return what the record has of the parameters `names`, with the value of its best epoch."""
    values = {name: record.values[name] for name in names if name in record.values}
    return optuna.create_trial(
        params=values, distributions=distributions(values, run.space), value=run.value(record)
    )
