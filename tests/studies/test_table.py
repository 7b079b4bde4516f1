"""What a study's tables say of themselves: what they hold for, and what not."""

from pathlib import Path

import numpy as np
import pytest
from support.small_study import METRICS, TUNE, keep_run, study_of

from tune_srs.config.yaml import dump_yaml
from tune_srs.runs.resources import Resources
from tune_srs.studies import run, table
from tune_srs.studies.plan import TUNED, StudyPlan

CHOSEN = {"values": {"train.lr": 0.01}, "trial": 1, "epoch": 2, "validation": {"val/ndcg@10": 0.1}}


def written(folder: Path, tunings: int = 1, seeds: int = 3, **changes: object) -> str:
    """`table.md` of a study whose runs are made up."""
    changes["tune"] = TUNE | {"tunings": tunings}
    study = study_of(folder, seeds=seeds, **changes)
    StudyPlan("kept", study, Resources()).write({}, folder)
    random = np.random.default_rng(0)
    for task in run.tasks(study):
        keep_run(folder, study, task, random.random(20))
    chosen = [CHOSEN | {"tuning": 1 + number} for number in range(tunings)]
    (folder / TUNED).write_text(dump_yaml({"plain": {"clean": chosen}}))
    table.write(folder)
    return (folder / "table.md").read_text()


def test_one_tuning_is_said_to_be_no_sample_of_tunings(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "the luck of that is in no interval and no p value" in text
    assert "- plain on clean: train.lr=0.01 (trial 1" in text
    assert "tunings" not in text
    assert "fewer than" not in text


def test_of_several_tunings_each_is_named(tmp_path: Path) -> None:
    text = written(tmp_path, tunings=3, seeds=2)
    assert "was tuned 3 times. A tuning counts once" in text
    assert "other users and other tunings" in text
    assert "- plain on clean, tuning 3: train.lr=0.01 (trial 1" in text
    assert "24 of 24 runs" in text
    assert "fewer than" not in text


@pytest.mark.parametrize(("tunings", "seeds", "sample"), [(1, 2, "seeds"), (2, 3, "tunings")])
def test_too_few_are_said_to_tell_nothing(
    tmp_path: Path, tunings: int, seeds: int, sample: str
) -> None:
    text = written(tmp_path, tunings=tunings, seeds=seeds)
    assert f"from fewer than 3 {sample}. So few do not tell how far {sample} differ" in text
    assert f"| cannot tell from fewer than 3 {sample} |" in text


def test_the_verdict_stands_in_the_table_of_the_primary_metric(tmp_path: Path) -> None:
    text = written(tmp_path, primary=METRICS[1])
    assert f"The verdict rests on p Holm of {METRICS[1]} alone" in text
    secondary, primary = text.split("\n## ")[1:3]
    assert secondary.startswith(f"{METRICS[0]} (secondary), compared with plain")
    assert primary.startswith(f"{METRICS[1]} (primary), compared with plain")
    assert "verdict" in primary
    assert "verdict" not in secondary


def test_a_single_metric_needs_no_word_for_it(tmp_path: Path) -> None:
    text = written(tmp_path, metrics=METRICS[:1])
    assert "secondary" not in text
    assert f"## {METRICS[0]}, compared with plain" in text
    assert "verdict" in text
