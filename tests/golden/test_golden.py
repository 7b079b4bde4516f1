"""The numbers of `record.json` come out again: to the last bit on the machine that wrote them."""

import json
from pathlib import Path
from typing import Any

import pytest
from record import RECORD, cases, machine, searched, table, trained
from support import driver

from tune_srs.space.space import Space

KEPT: dict[str, Any] = json.loads(RECORD.read_text())
EXACT = KEPT["machine"] == machine()


def assert_same(found: Any, kept: Any) -> None:
    if EXACT:
        assert json.loads(json.dumps(found)) == kept
        return
    # other rounding may turn a rank, or what a search does next; the losses stay close
    for one, other in zip(found["epochs"], kept["epochs"], strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-3)
        assert set(one) == set(other)


@pytest.mark.parametrize("name", cases())
def test_a_training_gives_the_numbers_it_gave(name: str, tmp_path: Path) -> None:
    assert_same(trained(cases()[name], tmp_path), KEPT[name])


@pytest.mark.slow
def test_a_search_a_study_and_an_export_give_the_numbers_they_gave(tmp_path: Path) -> None:
    found = searched(tmp_path)
    assert all(len(found[name]) == len(KEPT[name]) for name in found)
    # the driver that other tests use does what Ray does with one worker
    space = Space.from_yaml(tmp_path / "space.yaml")
    run, _ = driver.search(tmp_path / "driven" / "tiny", space)
    assert table(run.paths.trials) == found["trials"]
    if EXACT:
        assert found == {name: KEPT[name] for name in found}
