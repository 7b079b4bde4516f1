"""What a study's file may say, what it stands for, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.searches import METRIC, SPACE
from support.small_study import METRICS, OF_DATA, STUDY, TUNE, study_of, write_study

from tune_srs.errors import ConfigError
from tune_srs.runs.journal import Journal
from tune_srs.space.objective import Objective
from tune_srs.studies import run as runs
from tune_srs.studies.spec import Study

STUDIES = Path(__file__).parent.parent.parent / "studies"
FIXED: dict[str, Any] = STUDY["fixed"]

SHUFFLE = OF_DATA | {"data.ties.order": "shuffle"}

# of a data set, as `search.yaml` has them
FACTS = {
    "fingerprint": "f",
    "settings": {},
    "users": 9,
    "items": 9,
    "interactions": 99,
    "test_futures_in_history": 0.0,
}


def test_a_configuration_has_what_is_fixed_for_all_then_its_own_then_what_is_tuned(
    tmp_path: Path,
) -> None:
    study = study_of(tmp_path, fixed=FIXED | {"loss.num_positives": 7, "train.lr": 0.5})
    config = study.config("wide-linear", "noisy", 3, {"train.lr": 0.2})
    assert (config.loss.num_positives, config.loss.relevance) == (2, "linear")
    assert (config.train.lr, config.train.seed) == (0.2, 3)
    assert (config.data.name, config.data.noise.accidental) == ("synthetic", 0.3)
    assert study.config("plain", "clean", 3).train.lr == 0.5


def test_a_grid_is_a_configuration_for_each_combination(tmp_path: Path) -> None:
    grid = {"loss.relevance": ["linear", "power"], "loss.num_positives": [2, 3]}
    configurations = {"plain": {}, "relevance": {"grid": grid, "fixed": {"train.lr": 0.1}}}
    study = study_of(tmp_path, configurations=configurations)
    names = ["linear-2", "linear-3", "power-2", "power-3"]
    assert list(study.configurations) == ["plain", *(f"relevance-{name}" for name in names)]
    config = study.config("relevance-power-3", "clean", 1)
    assert (config.loss.relevance, config.loss.num_positives) == ("power", 3)
    assert config.train.lr == 0.1


def finished_search(folder: Path) -> None:
    run = folder / "results" / "earlier"
    (run / "best").mkdir(parents=True)
    fixed = SPACE["fixed"] | {"model.num_blocks": 1}  # type: ignore[operator]
    space = SPACE | {"fixed": fixed}
    plan = {"name": "earlier", "seed": 0, "resources": {}, "space": space}
    (run / "search.yaml").write_text(yaml.safe_dump(plan | {"data": FACTS}))
    journal = Journal(run, [Objective(METRIC)])
    for number, value in enumerate([0.1, 0.3, 0.2, 0.9]):
        journal.begin(number, {"train.lr": 0.01, "loss.num_positives": 1 + number % 2})
        journal.report(number, 1, {METRIC: value})
        journal.end(number, "failed" if value == 0.9 else "complete")


def test_the_winners_of_a_search_are_its_best_trials(tmp_path: Path) -> None:
    finished_search(tmp_path)
    configurations = {"plain": {}, "winner": {"search": "earlier", "top": 2}}
    study = study_of(tmp_path, configurations=configurations, tune=TUNE)
    assert list(study.configurations) == ["plain", "winner-1", "winner-2"]
    configs = [study.config(name, "noisy", 1) for name in ("winner-1", "winner-2")]
    assert [config.loss.num_positives for config in configs] == [2, 1]
    assert configs[0].model.num_blocks == 1  # fixed in its search, and not by the study
    assert configs[0].data.noise.accidental == 0.3
    assert study.space("winner-1", "clean") is None  # found already: nothing left to tune
    with pytest.raises(ConfigError, match="top is 4, but only 3 trials"):
        study_of(tmp_path, configurations={"plain": {}, "w": {"search": "earlier", "top": 4}})


def test_tunings_have_the_same_budget_and_each_its_own_parameters(tmp_path: Path) -> None:
    own = {"loss.num_positives": {"type": "int", "low": 2, "high": 3}}
    configurations = {"plain": {}, "more": {"params": own}, "set": {"fixed": {"train.lr": 0.1}}}
    study = study_of(tmp_path, configurations=configurations, tune=TUNE | {"dataset": "each"})
    assert study.tuned_on == ["clean", "noisy"]
    plain, more = (study.space(name, "noisy") for name in ("plain", "more"))
    assert plain is not None
    assert more is not None
    assert (list(plain.params), list(more.params)) == (["train.lr"], ["train.lr", *own])
    assert plain.search == more.search
    assert plain.trials == 2
    assert plain.search.metrics == ["val/ndcg@10"]
    assert plain.base.data.noise.accidental == 0.3
    assert study.space("set", "noisy") is None


def test_no_run_has_the_seed_of_the_tuning(tmp_path: Path) -> None:
    assert study_of(tmp_path, seeds=3).seed_list == [1, 2, 3]
    assert study_of(tmp_path, seeds=[5, 0]).seed_list == [5, 0]


def test_each_tuning_and_its_runs_have_seeds_of_their_own(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=2, tune=TUNE | {"tunings": 3})
    assert [study.seeds_of(tuning) for tuning in (1, 2, 3)] == [[1, 2], [4, 5], [7, 8]]
    spaces = [study.space("plain", "clean", tuning=tuning) for tuning in (1, 2, 3)]
    assert [space.base.train.seed for space in spaces if space] == [0, 3, 6]
    tasks = runs.tasks(study)
    assert len(tasks) == 3 * 2 * 2 * 2  # tunings, seeds, data sets, configurations
    assert len({task.path(tmp_path) for task in tasks}) == len(tasks)
    listed = study_of(tmp_path, seeds=[5, 2], tune=TUNE | {"tunings": 2})
    assert [listed.seeds_of(tuning) for tuning in (1, 2)] == [[5, 2], [11, 8]]
    assert study_of(tmp_path).tunings == 1


def test_the_verdict_rests_on_the_first_metric_unless_another_is_named(tmp_path: Path) -> None:
    assert study_of(tmp_path).primary_metric == METRICS[0]
    assert study_of(tmp_path, primary=METRICS[1]).primary_metric == METRICS[1]


def test_what_is_stored_stands_for_itself(tmp_path: Path) -> None:
    study = study_of(tmp_path, tune=TUNE)
    stored = yaml.safe_load(yaml.safe_dump(study.to_dict()))
    assert Study.from_dict(stored, "study.yaml") == study


def test_options_are_for_all_configurations_or_all_data(tmp_path: Path) -> None:
    overrides = {"train.max_epochs": 9, "data.num_futures": 1}
    study = Study.from_yaml(write_study(tmp_path), tmp_path, overrides, seeds=4)
    assert study.config("plain", "noisy", 1).train.max_epochs == 9
    assert [config.num_futures for config in study.data().values()] == [1, 1]
    assert study.seed_list == [1, 2, 3, 4]


def test_several_orders_of_equal_times_are_data_sets(tmp_path: Path) -> None:
    shuffled = {f"shuffled-{n}": SHUFFLE | {"data.ties.seed": n} for n in (1, 2)}
    study = study_of(tmp_path, datasets={"file": OF_DATA} | shuffled)
    ties = {name: (config.ties.order, config.ties.seed) for name, config in study.data().items()}
    assert ties == {
        "file": ("file", 0),
        "shuffled-1": ("shuffle", 1),
        "shuffled-2": ("shuffle", 2),
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown reference": ({"reference": "plane"}, "no configuration plane, did you mean plain?"),
    "unknown metric": ({"metrics": ["test/ndgc@10"]}, "did you mean test/ndcg@10?"),
    "another cutoff": (
        {"datasets": {"clean": OF_DATA | {"evaluation.cutoffs": [3]}}},
        "unknown metric test/ndcg@10",
    ),
    "selecting on the test": ({"select": "test/ndcg@10"}, "use one of val/"),
    "a primary metric that is not compared": (
        {"primary": "test/ndgc@10"},
        "primary: test/ndgc@10 is none of the metrics, did you mean test/ndcg@10?",
    ),
    "no tuning": ({"tune": TUNE | {"tunings": 0}}, "tune.tunings"),
    "seeds too large for several tunings": (
        {"seeds": [2**63 - 9], "tune": TUNE | {"tunings": 2}},
        "train.seed",
    ),
    "seeds twice": ({"seeds": [1, 1]}, "all different"),
    "no seeds": ({"seeds": 0}, "at least one"),
    "a name with a slash": (
        {"configurations": {"plain": {}, "a/b": {}}},
        "'a/b' cannot name a folder",
    ),
    "data in a configuration": (
        {"configurations": {"plain": {"fixed": {"data.name": "x"}}}},
        "put it into datasets",
    ),
    "a seed in a configuration": ({"fixed": {"train.seed": 1}}, "set by `seeds`"),
    "training in a data set": ({"datasets": {"clean": {"train.lr": 1}}}, "unknown key train.lr"),
    "misspelt key": ({"fixed": {"train.bach_size": 1}}, "did you mean train.batch_size?"),
    "misspelt part of a configuration": (
        {"configurations": {"plain": {"fixd": {}}}},
        "configurations.plain: unknown key fixd, did you mean fixed?",
    ),
    "an impossible value": ({"fixed": {"train.lr": -1}}, "plain on clean: train.lr"),
    "params without a tuning": (
        {"configurations": {"plain": {"params": TUNE["params"]}}},
        "there is no `tune`",
    ),
    "tuning on what is not there": ({"tune": TUNE | {"dataset": "clear"}}, "did you mean clean?"),
    "a tuning's own metric": ({"tune": TUNE | {"search": {"metric": "x"}}}, "leave out metric"),
    "unequal budgets": ({"tune": TUNE | {"search": {"sampler": "grid"}}}, "budgets differ"),
    "misspelt part of a search": (
        {"tune": TUNE | {"search": {"trails": 3}}},
        "did you mean search.trials?",
    ),
    "both fixed and tuned": ({"fixed": {"train.lr": 0.1}, "tune": TUNE}, "both fixed and searched"),
    "a search that is not there": (
        {"configurations": {"plain": {"search": "no"}}},
        "no results named no",
    ),
    "top of no search": ({"configurations": {"plain": {"top": 2}}}, "search: RUN"),
    "a grid of a search": (
        {"configurations": {"plain": {"search": "no", "grid": {"train.lr": [1]}}}},
        "exclude each other",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study_of(tmp_path, **changes)
    assert message in str(error.value)
    assert "study.yaml" in str(error.value) or "no results named" in message


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_come_along_are_valid(path: Path, tmp_path: Path) -> None:
    study = Study.from_yaml(path, tmp_path)
    assert study.description
    assert study.seed_list
