"""What a study has kept: read without a rehearsal, and refused in one line if it is damaged."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small_study import TUNE, study_of

from tune_srs.errors import ConfigError
from tune_srs.runs.resources import Resources
from tune_srs.space.space import Space
from tune_srs.studies.plan import StudyPlan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a study that is to be tuned and has not begun."""
    folder = tmp_path / "kept"
    folder.mkdir()
    StudyPlan("kept", study_of(tmp_path, tune=TUNE), Resources()).write({}, folder)
    return folder


def test_reading_a_kept_study_rehearses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed: list[str] = []
    monkeypatch.setattr(Space, "rehearse", lambda self, source: rehearsed.append(source))
    study = StudyPlan.read(folder).study
    assert study.space("plain", "clean") is not None  # what its tuning searches
    assert rehearsed == []
    assert study_of(folder, tune=TUNE) == study
    assert [source.rpartition(": ")[2] for source in rehearsed] == [
        "tuning plain on clean",
        "tuning wide-linear on clean",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": None}, "study.yaml: study: "),
        ({"resources": {"at_once": "many"}}, "study.yaml: resources: at_once: "),
        ({"study": "nothing"}, "study.yaml: study: "),
    ],
)
def test_a_damaged_study_is_refused_in_one_line(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    path = folder / "study.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) | changes
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        StudyPlan.read(folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["name", "study", "resources", "data"])
def test_a_study_without_one_of_its_parts_is_refused(folder: Path, key: str) -> None:
    path = folder / "study.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    del values[key]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"damaged, {key} is missing"):
        StudyPlan.read(folder)
