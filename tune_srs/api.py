"""The functions and classes of `import tune_srs as ts`; most commands only call them.

`search`, `study` and `export` import Ray and Optuna; everything else runs without them.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tune_srs.config.data import DataConfig as DataConfig
from tune_srs.config.settings import TrialConfig as TrialConfig
from tune_srs.config.validation import dotted_keys
from tune_srs.datasets.histories import Histories, Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError, Say
from tune_srs.errors import TuneSRSError as TuneSRSError
from tune_srs.exports.recommend import Recommender as Recommender
from tune_srs.runs.run import Run as Run

if TYPE_CHECKING:
    from tune_srs.training.loop import EpochReport


def prepare(
    data: DataConfig | Path | str, data_folder: Path | str = "data", say: Say = print
) -> PreparedData:
    """Read, filter and split a data set or a log, and keep the result for the next time.

    `data`: its settings; with the default settings, its name or path. Raises `ConfigError` for
    invalid settings, `DataError` for data that cannot be read or used.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     data = prepare("synthetic", folder)
    >>> data.validation.num_users, data.validation.num_items, data.test.num_futures
    (400, 300, 10)
    """
    from tune_srs.datasets.prepare import prepare as prepared

    config = data if isinstance(data, DataConfig) else DataConfig(name=str(data))
    return prepared(config, Path(data_folder), say)


def train(config: TrialConfig, split: Split | Histories) -> Iterator["EpochReport"]:
    """Train one configuration on the training histories of `split`; yield one report per epoch.

    A split holds the histories that train, and the futures with the histories that predict them.
    Give the `validation` split of prepared data, which never holds test futures; its futures are
    scored after each epoch. If you give `Histories`, such as `everything` of prepared data, nothing
    is scored. See `tune_srs.training.loop.train`.

    >>> from tempfile import TemporaryDirectory
    >>> config = TrialConfig().with_overrides(
    ...     {"data.name": "synthetic", "model.hidden_units": 8, "train.max_epochs": 2}
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     split = prepare(config.data, folder).validation
    ...     reports = [(one.epoch, one.metrics["val/ndcg@10"]) for one in train(config, split)]
    >>> [epoch for epoch, _ in reports], all(0 < value < 1 for _, value in reports)
    ([1, 2], True)
    """
    from tune_srs.training.loop import train as epochs

    if not isinstance(split, Split | Histories):
        raise ConfigError("train: give a split, such as prepare(...).validation")
    return epochs(config, split)


def search(
    space: Path | str | Mapping[str, Any] | None,
    data: PreparedData | None = None,
    *,
    name: str = "search",
    fixed: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    resources: Mapping[str, Any] | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    data_folder: Path | str = "data",
    results_folder: Path | str = "results",
) -> Path | None:
    """Search a space with Ray Tune, Optuna and early stopping, and export the best model.

    `space`: a YAML file or its contents; None resumes a run, which may have ended: then `settings`
    and `fixed` hold larger limits (`trials`, `time_budget`, `stale_trials`; `train.max_epochs`), or
    `retry_failed` has its failed trials trained again. `data`: prepared data to
    search on instead of the data that the space names. `fixed`: settings by dotted name;
    `settings`: those of the section `search`; both override the space. `resources`: see
    `tune_srs.runs.resources.Resources`. Progress is printed, as `tune-srs search` does.

    Returns the folder of the run, with the exported model in `best/`; None if the search was
    interrupted, so that it can be resumed. Raises `ConfigError` for a request that cannot be
    carried out, `DataError` for data that cannot be read, `SearchError` if the search fails.
    """
    from tune_srs.runs.paths import find_run
    from tune_srs.tuning.request import Request

    results = Path(results_folder)
    request = Request(
        name,
        Path(space) if isinstance(space, str) else space,
        dict(fixed or {}) | (_settings_of(data, fixed or {}) if data else {}),
        settings or {},
        seed,
        resources or {},
        retry_failed,
    )
    run = Run(find_run(results, name)) if resume else None
    folder = run.folder if run else results / name
    plan = request.plan(stored=run.plan if run else None)
    extends = resume and space is None and request.extends
    plan.check(folder, resume, extends)
    if data is None:
        data = prepare(plan.space.base.data, data_folder)
    plan.check_times(data)
    if run:
        run.check_data(data)

    try:
        from tune_srs.tuning.search import search as run_search
    except ModuleNotFoundError as error:
        raise ConfigError(f"search: {error.name} is not installed; pip install it") from error
    from tune_srs.tuning.console import Console, closing, opening

    console = Console()
    for line in opening(plan, data, folder):
        console.say(line)
    if not run_search(plan, data, folder, console, resume, extends, retry_failed):
        return None
    for line in closing(plan, folder):
        console.say(line)
    return folder


def study(
    spec: Path | str | None,
    *,
    name: str = "study",
    fixed: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    resources: Mapping[str, Any] | None = None,
    resume: bool = False,
    data_folder: Path | str = "data",
    results_folder: Path | str = "results",
) -> Path | None:
    """Compare configurations on data sets over several seeds, and write the tables.

    `spec`: a YAML file; None resumes a study unchanged. `fixed`: settings by dotted name, for all
    configurations or all data sets. `seeds`: number of seeds per tuning, configuration and data
    set. `resources`: see `tune_srs.runs.resources.Resources`. Progress and the tables are printed,
    as by `tune-srs study`.

    Returns the folder of the study; None if it was interrupted, so that it can be resumed. Raises
    `ConfigError` for a request that cannot be carried out, `DataError` for data that cannot be
    read, `SearchError` if a tuning or all of the first runs fail.
    """
    from tune_srs.studies import table
    from tune_srs.studies.plan import StudyPlan, StudyRequest, study_folder
    from tune_srs.tables.text import print_tables

    results = Path(results_folder)
    request = StudyRequest(
        name, Path(spec) if spec else None, dict(fixed or {}), seeds, resources or {}
    )
    folder = study_folder(results, name) if resume else results / name
    plan = request.plan(results, StudyPlan.read(folder) if resume else None)
    plan.check(folder, resume)
    data = {name: prepare(config, data_folder) for name, config in plan.study.data().items()}
    if resume:
        plan.check_data(data, folder)

    from tune_srs.studies.running import run_study
    from tune_srs.tuning.console import Console

    if not run_study(plan, data, folder, Console(), new=not resume):
        return None
    print_tables(table.write(folder))
    print(f"these tables: {folder / 'table.md'}; all figures: {folder / 'table.csv'}")
    return folder


def _settings_of(data: PreparedData, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `data` by dotted name; a `ConfigError` if `fixed` has others."""
    given = [key for key in fixed if key.startswith("data.")]
    if given:
        raise ConfigError(
            f"search: {given[0]} is fixed, but data is given too; leave one of them out"
        )
    settings = {}
    for key in dotted_keys(DataConfig):
        value: Any = data.manifest["settings"]
        for part in key.split("."):
            value = value[part]
        settings[f"data.{key}"] = value
    return settings


def export(
    run: Path | str,
    to: Path | str,
    *,
    trial: int | None = None,
    refit: Literal["validation", "all"] | None = None,
    formats: Collection[str] = (),
    data_folder: Path | str = "data",
    say: Say = print,
) -> None:
    """Export the winner of an ended search, or another `trial`, to the new folder `to`.

    `run`: the folder of the search. With `refit` the configuration is trained again for its best
    number of epochs: with `validation` on training and validation, before the test is scored; with
    `all` on all interactions, futures included, after that. `formats`: extra formats, `onnx` and
    `torch`. Raises `ConfigError` for a request that cannot be carried out, `DataError` for data
    that cannot be read or have changed.
    """
    from tune_srs.tuning.winner import export_trial

    export_trial(Path(run), Path(to), trial, refit, formats, Path(data_folder), say)


def load(folder: Path | str) -> Recommender:
    """Load an exported model, to recommend or to evaluate, without Ray and Optuna.

    Raises `DataError` for a folder that is not exactly what was exported.

    >>> load("nowhere")
    Traceback (most recent call last):
    tune_srs.errors.DataError: nowhere: no such folder; give one that tune-srs export has written
    """
    return Recommender.load(Path(folder))
