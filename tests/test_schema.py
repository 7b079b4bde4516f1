"""The schemas for editors accept what the commands accept, and mark what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tune_srs.cli import app
from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import dotted_keys
from tune_srs.errors import ConfigError
from tune_srs.schema import SCHEMAS, settings
from tune_srs.space.space import Space
from tune_srs.studies.spec import Study

ROOT = Path(__file__).parent.parent
FILES = [("space", path) for path in sorted((ROOT / "search_spaces").glob("*.yaml"))]
FILES += [("study", path) for path in sorted((ROOT / "studies").glob("*.yaml"))]
LR = {"train.lr": {"type": "float", "low": 0.001, "high": 0.1}}
STUDY: dict[str, Any] = {
    "reference": "plain",
    "datasets": {"clean": {"data.name": "synthetic"}},
    "configurations": {"plain": {}},
}


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft7Validator]:
    schemas = {kind: make() for kind, make in SCHEMAS.items()}
    for schema in schemas.values():
        Draft7Validator.check_schema(schema)
    return {kind: Draft7Validator(schema) for kind, schema in schemas.items()}


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_every_file_that_comes_along_is_valid(
    validators: dict[str, Draft7Validator], kind: str, path: Path
) -> None:
    validators[kind].validate(yaml.safe_load(path.read_text()))


def test_an_exported_configuration_is_valid(
    validators: dict[str, Draft7Validator], tmp_path: Path
) -> None:
    config = TrialConfig.from_dict({"preset": "esasrec", "loss": {"num_positives": 3}})
    config.to_yaml(tmp_path / "config.yaml")
    validators["config"].validate(yaml.safe_load((tmp_path / "config.yaml").read_text()))


def test_every_setting_is_there_and_described() -> None:
    described = settings()
    assert list(described) == ["preset", *dotted_keys(TrialConfig)]
    assert [name for name, schema in described.items() if not schema.get("description")] == []


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("config", {"preset": "original", "train": {"max_epochs": 3}}),
    ("space", {"params": LR, "search": {"scheduler": "none", "sampler": "qmc"}}),
    ("space", {"params": LR, "search": {"metric": ["val/hr@5", "time/train_s"], "mode": "max"}}),
    ("space", {"params": LR, "fixed": {"preset": "esasrec"}, "first": [{"train.lr": 0.01}]}),
    ("space", {"params": {"train.clip_norm": {"type": "categorical", "choices": [None, 1.0]}}}),
    ("study", STUDY | {"fixed": {"preset": "original"}, "seeds": [3, 4]}),
    ("study", STUDY | {"tune": {"params": LR, "search": {"trials": 2, "scheduler": "none"}}}),
]  # fmt: skip
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown section": ("config", {"modle": {}}),
    "unknown key": ("config", {"train": {"max_epoch": 3}}),
    "unknown preset": ("config", {"preset": "orignal"}),
    "text for a number": ("config", {"train": {"lr": "fast"}}),
    "a boolean for a number": ("config", {"train": {"max_epochs": True}}),
    "out of range": ("config", {"model": {"dropout": 1.0}}),
    "nothing searched": ("space", {"params": {}}),
    "no params": ("space", {}),
    "unknown parameter": ("space", {"params": {"train.rl": LR["train.lr"]}}),
    "a setting that trials share": (
        "space",
        {"params": {"train.max_epochs": {"type": "int", "low": 1, "high": 3}}},
    ),
    "unknown distribution": ("space", {"params": {"train.lr": {"type": "flaot"}}}),
    "a key of another distribution": (
        "space",
        {"params": {"train.lr": LR["train.lr"] | {"choices": [1]}}},
    ),
    "choices out of range": (
        "space",
        {"params": {"model.dropout": {"type": "categorical", "choices": [0.1, 2.0]}}},
    ),
    "unknown choice": (
        "space",
        {"params": {"loss.relevance": {"type": "categorical", "choices": ["fixd"]}}},
    ),
    "a range of words": ("space", {"params": {"loss.type": {"type": "int", "low": 1, "high": 2}}}),
    "unknown parent": (
        "space",
        {"params": {"train.lr": LR["train.lr"] | {"when": {"loss.kind": ["bce"]}}}},
    ),
    "unknown fixed": ("space", {"params": LR, "fixed": {"train.epochs": 3}}),
    "unknown scheduler": ("space", {"params": LR, "search": {"scheduler": "ahsa"}}),
    "a scheduler without its type": (
        "space",
        {"params": LR, "search": {"scheduler": {"grace_period": 3}}},
    ),
    "a setting of another scheduler": (
        "space",
        {"params": LR, "search": {"scheduler": {"type": "median", "brackets": 3}}},
    ),
    "data in a configuration": (
        "study",
        STUDY | {"configurations": {"plain": {"fixed": {"data.name": "synthetic"}}}},
    ),
    "a model in a data set": ("study", STUDY | {"datasets": {"one": {"model.dropout": 0.1}}}),
    "a metric of a tuning": (
        "study",
        STUDY | {"tune": {"params": LR, "search": {"metric": "val/ndcg@10"}}},
    ),
    "no reference": ("study", {key: value for key, value in STUDY.items() if key != "reference"}),
}


def read(kind: str, values: dict[str, Any], folder: Path) -> None:
    """As a command does."""
    if kind == "study":
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(values))
        Study.from_yaml(path, folder)
    else:
        (Space if kind == "space" else TrialConfig).from_dict(values, kind)


@pytest.mark.parametrize(("kind", "values"), GOOD)
def test_good_values_are_accepted_by_both(
    validators: dict[str, Draft7Validator], kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    validators[kind].validate(values)
    read(kind, values, tmp_path)


@pytest.mark.parametrize(("kind", "values"), BAD.values(), ids=BAD.keys())
def test_bad_values_are_refused_by_both(
    validators: dict[str, Draft7Validator], kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    assert not validators[kind].is_valid(values)
    with pytest.raises(ConfigError):
        read(kind, values, tmp_path)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_command_prints_it(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tune-srs", "schema", kind])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out) == SCHEMAS[kind]()
