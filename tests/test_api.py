"""`import tune_srs`: light, typed, and of use without Ray and Optuna."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.exports import write_run
from support.searches import FIXED, SPACE

import tune_srs as ts
from tune_srs import api
from tune_srs.runs.plan import Plan

WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "optuna"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Blocked())
import tune_srs as ts

model = ts.load(sys.argv[1])
found = model.recommend([[1, 2], []], k=3)
scores = model.evaluate({"evaluation.num_candidates": 5}, sys.argv[2]).summary
print(len(found), len(scores), *sorted({"ray", "optuna"} & set(sys.modules)))
"""


def test_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "optuna", "pandas", "numpy", "pydantic", "yaml"}
    code = f"import sys, tune_srs; print(*{heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_export_is_used_where_neither_ray_nor_optuna_is(tmp_path: Path) -> None:
    write_run(tmp_path)
    arguments = [str(tmp_path / "results" / "tiny" / "best"), str(tmp_path / "data")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["6", "192"]


def test_what_it_offers_is_there_and_nothing_else() -> None:
    for name in ts.__all__:
        assert getattr(ts, name) is getattr(api, name)
    assert set(dir(ts)) == {*ts.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = ts.serach  # type: ignore[attr-defined]


def test_a_space_and_data_may_be_given_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tune_srs.tuning import search as tuning  # here: it imports Ray, which is not started

    started: list[tuple[Plan, Any]] = []

    def run(plan: Plan, data: Any, *_: Any) -> bool:
        started.append((plan, data))
        return False

    monkeypatch.setattr(tuning, "search", run)
    data = ts.prepare(
        ts.TrialConfig().with_overrides(FIXED | {"data.num_futures": 4}).data, tmp_path
    )
    found = ts.search(
        SPACE, data, name="mine", fixed={"train.max_epochs": 2}, settings={"trials": 3},
        results_folder=tmp_path / "results",
    )  # fmt: skip
    assert found is None  # interrupted
    ((plan, given),) = started
    assert given is data
    assert plan.space.base.data.model_dump(mode="json") == data.manifest["settings"]
    assert (plan.space.base.data.num_futures, plan.space.base.train.max_epochs) == (4, 2)
    assert plan.space.trials == 3
    assert data.fingerprint[:12] in capsys.readouterr().out

    with pytest.raises(ts.TuneSRSError, match=r"data\.num_futures is fixed, but data is given too"):
        ts.search(SPACE, data, fixed={"data.num_futures": 2})


def test_what_is_easily_confused_is_told(tmp_path: Path) -> None:
    data = ts.prepare(ts.TrialConfig().with_overrides(FIXED).data, tmp_path)
    with pytest.raises(ts.TuneSRSError, match=r"such as prepare\(\.\.\.\)\.validation"):
        ts.train(ts.TrialConfig(), data)  # type: ignore[arg-type]
    with pytest.raises(ts.TuneSRSError, match=r"log\.csv: no such file"):
        ts.prepare(tmp_path / "log.csv", tmp_path)


def test_without_ray_a_search_says_so(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["ray"] = None  # as if it were not installed
import tune_srs as ts
try:
    ts.search({SPACE!r}, data_folder="data")
except ts.TuneSRSError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["search: ray is not installed; pip install it"], done
