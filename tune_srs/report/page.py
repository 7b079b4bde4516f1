"""The page: what was searched, what came of it, and the pictures, in one file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from tune_srs.config.yaml import dump_yaml
from tune_srs.report.effort import duration
from tune_srs.report.scores import test_table
from tune_srs.report.style import Picture
from tune_srs.runs.run import Run
from tune_srs.runs.tables import learned_in_words, spelled, with_nulls
from tune_srs.space.parameters import Categorical, Distribution
from tune_srs.tables.text import readable


def render(run: Run, pictures: Sequence[Picture], figures: Path) -> str:
    """The page as HTML, with the pictures that were saved in the folder `figures`.

    Everything that comes from the run is escaped by the template.
    """
    environment = Environment(
        loader=PackageLoader("tune_srs.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    trials, *_ = run.summaries()
    return environment.get_template("page.html").render(
        name=run.plan.name,
        description=run.space.description,
        metric=run.metric,
        facts=_facts(run),
        parameters=_table(_space(run)),
        winner=_winner(run),
        learned=learned_in_words(run.space.search.refit),
        scores=None if (scores := test_table(run)) is None else _table(scores),
        pictures=[
            (picture, _data_address(figures / f"{picture.name}.svg")) for picture in pictures
        ],
        failures=_table(_failures(run)),
        trials=_table(trials.frame),
        settings=dump_yaml(run.settings),
    )


def _facts(run: Run) -> dict[str, str]:
    """What was searched on which data, how, and with which versions."""
    settings, space = run.settings, run.space
    data, wanted = settings["data"], space.search
    validation, test = space.base.data.futures_in_words()
    count = run.trials["status"].value_counts()
    versions = settings.get("versions", {})
    facts = {
        "Data": f"{space.base.data.name}: {data['users']} users, {data['items']} items, "
        f"{data['interactions']} interactions",
        "Fingerprint": data["fingerprint"],
        "Split": f"{space.base.data.split.kind}, {validation} futures a user to validate, {test} "
        f"to test",
        "In the history": f"{data['test_futures_in_history']:.1%} of the test futures; they "
        + ("count as missed" if space.base.evaluation.exclude_history else "are candidates"),
        "Searched for": ", ".join(f"{one.mode} {one.metric}" for one in wanted.objectives),
        "Searched by": f"{wanted.sampler.type}, seed {run.plan.seed}; early stopping: "
        f"{wanted.scheduler.type}",
        "Trials": f"{len(run.records)} of {space.trials}: "
        + ", ".join(f"{number} {status}" for status, number in count.items()),
        "Time": f"{duration(run.trials['seconds'].sum())} of trials, summed over those "
        f"that ran side by side",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    if "pareto" in run.trials:
        best = run.trials.loc[run.trials["pareto"], "trial"]
        facts["Pareto set"] = f"trials {', '.join(map(str, best))}"
    return facts


def _space(run: Run) -> pd.DataFrame:
    rows = [
        (name, _values(parameter), _condition(parameter))
        for name, parameter in run.space.params.items()
    ]
    return pd.DataFrame(rows, columns=["parameter", "values", "active where"])


def _values(parameter: Distribution) -> str:
    if isinstance(parameter, Categorical):
        return ", ".join(map(spelled, parameter.choices))
    step = f", step {parameter.step:g}" if parameter.step else ""
    return f"{parameter.low:g} … {parameter.high:g}{step}{', log' if parameter.log else ''}"


def _condition(parameter: Distribution) -> str:
    conditions = [f"{name} in {', '.join(map(spelled, of))}" for name, of in parameter.when.items()]
    return " and ".join(conditions) or "always"


def _winner(run: Run) -> dict[str, Any] | None:
    """The best trial and its complete configuration."""
    record = run.winner
    if record is None:
        return None
    return {
        "number": record.number,
        "epoch": record.best_epoch,
        "value": f"{run.value(record):.4f}",
        "values": {name: f"{value:.4g}" if isinstance(value, float) else spelled(value)
                   for name, value in record.values.items()},
        "config": dump_yaml(run.space.config(record.values).to_dict()),
    }  # fmt: skip


def _failures(run: Run) -> pd.DataFrame:
    rows = [
        {"trial": record.number, "epochs": record.epochs, "reason": record.reason}
        | with_nulls(record.values)
        for record in run.records
        if record.status == "failed"
    ]
    return pd.DataFrame(rows)


def _table(frame: pd.DataFrame) -> Markup | None:
    """As HTML, which pandas escapes; None of an empty one."""
    if frame.empty:
        return None
    return Markup(readable(frame).to_html(index=False, border=0))


def _data_address(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
