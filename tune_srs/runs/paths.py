"""The names of the files in a run's folder, and how a run is found."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from tune_srs.config.validation import nearest
from tune_srs.errors import ConfigError
from tune_srs.storage import trial_name


@dataclass(frozen=True)
class RunPaths:
    """Where everything lies that belongs to the run in `folder`."""

    folder: Path

    @property
    def settings(self) -> Path:
        """All that is needed to run the search again."""
        return self.folder / "search.yaml"

    @property
    def journal(self) -> Path:
        """Each trial that began, each epoch, each end."""
        return self.folder / "journal.jsonl"

    @property
    def trials(self) -> Path:
        """One row per trial."""
        return self.folder / "trials.csv"

    @property
    def baselines(self) -> Path:
        """The validation metrics of the baselines."""
        return self.folder / "baselines.json"

    @property
    def optuna(self) -> Path:
        """The trials as an Optuna study, in sqlite."""
        return self.folder / "optuna.db"

    @property
    def best(self) -> Path:
        """The exported winner; it is there as soon as the search has ended."""
        return self.folder / "best"

    @property
    def extending(self) -> Path:
        """Is there while a search goes on that had ended; `best` is then of what it was."""
        return self.folder / ".extending"

    def former_best(self) -> Path:
        """Return a free name for a winner that another one replaces."""
        return next(
            path
            for number in itertools.count(1)
            if not (path := self.folder / f"best-{number}").exists()
        )

    @property
    def best_metrics(self) -> Path:
        """The scores of the winner and of the baselines, with their intervals."""
        return self.best / "metrics.json"

    @property
    def test_ranks(self) -> Path:
        """The ranks of all test futures, by the winner and by the baselines."""
        return self.folder / "test-ranks.parquet"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.folder / "report.html"

    @property
    def figures(self) -> Path:
        """The pictures of the report."""
        return self.folder / "figures"

    @property
    def tune(self) -> Path:
        """One folder per trial: TensorBoard events and, if no other storage is set, checkpoints."""
        return self.folder / "tune"

    def trial(self, number: int) -> Path:
        """The folder of one trial."""
        return self.tune / trial_name(number)

    @property
    def log(self) -> Path:
        """Ray's log."""
        return self.folder / "ray.log"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the search."""
        return self.folder / ".lock"


def find_run(results: Path, name: str) -> Path:
    """Return the folder of an existing search.

    `name`: of a run in `results`, or the path of one. Raises a `ConfigError` that names the runs
    that exist.
    """
    for folder in (results / name, Path(name)):
        if RunPaths(folder).settings.is_file():
            return folder
        if (folder / "study.yaml").is_file():
            raise ConfigError(
                f"{folder}: a study, not a search; tune-srs results {name} shows how it stands"
            )
    runs = sorted(path.parent.name for path in results.glob("*/search.yaml"))
    hint = nearest(name, runs) if runs else "; there are none yet, see tune-srs search --help"
    raise ConfigError(f"{results}: no results named {name}{hint}")
