"""The report: its numbers, its pictures, and the page in a browser."""

import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy.stats import norm
from selenium import webdriver
from support.runs import Trial, make_run, random_ranks
from support.searches import METRIC, SPACE

from tune_srs.errors import ConfigError
from tune_srs.report import (
    effort,
    futures,
    importance,
    parameters,
    progress,
    scores,
    write_report,
)
from tune_srs.report.axes import ParameterAxis, spread
from tune_srs.report.style import COLOURS, MUTED, styled
from tune_srs.runs import ranks
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.run import Run
from tune_srs.space.parameters import Categorical, Float

PLANTED = "<script>alert('planted')</script>"
PARAMS = {
    **SPACE["params"],  # type: ignore[dict-item]
    "train.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.9},
}


def values_of(number: int) -> dict[str, object]:
    random = np.random.default_rng(number)
    values: dict[str, object] = {
        "train.lr": float(10 ** random.uniform(-4, -1)),
        "model.dropout": float(random.uniform(0, 0.9)),
        "loss.num_positives": 1 + number % 2,
    }
    return values | ({"loss.relevance": "linear"} if number % 2 else {})


def trial_of(number: int) -> Trial:
    """The nearer its learning rate is to 0.01, the better; all but the fifths are stopped."""
    values = values_of(number)
    height = 0.4 - 0.1 * abs(math.log10(values["train.lr"]) + 2)  # type: ignore[arg-type]
    if number % 5 == 4:
        return Trial(values, [height * 0.8, height * 0.9, height, height * 0.95], "complete")
    return Trial(values, [height * 0.8, height], "stopped", "early stopping", [9.0, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 trials and a failure, of which the test has been scored."""
    trials = [*map(trial_of, range(30)), Trial(values_of(30), [0.9], "failed", PLANTED)]
    place = tmp_path_factory.mktemp("reported") / "run"
    folder = make_run(place, trials, params=PARAMS, description=PLANTED)
    random_ranks(folder, ["best", "popularity", PLANTED])
    write_report(Run(folder))
    return folder


class Page(HTMLParser):
    """What a page holds: its elements, and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        names = ("src", "href", "srcset", "action", "data", "poster")
        self.references += [str(value) for name, value in attributes if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(folder: Path) -> None:
    content = (folder / "report.html").read_text()
    page = Page(content)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.elements)
    assert page.references
    assert all(reference.startswith("data:image/svg+xml;") for reference in page.references)
    assert "@import" not in content
    assert "url(" not in content
    assert page.text.count(PLANTED) >= 4  # description, reason, scorer, settings: as text


def test_the_page_tells_what_was_run(folder: Path) -> None:
    text = Page((folder / "report.html").read_text()).text
    run = Run(folder)
    best = max(map(trial_of, range(30)), key=lambda trial: max(trial.curve))
    assert run.winner is not None
    assert run.winner.values == best.values
    assert f"Trial {run.winner.number} at epoch {np.argmax(best.curve) + 1}" in text
    for expected in ("seed 7", "31 of 5", "1 failed", run.settings["data"]["fingerprint"]):
        assert expected in text
    assert "loss.num_positives in 2" in text
    assert "of 30 trials" not in text
    assert "fewer than 50 trials" in text


def test_every_picture_is_a_png_and_an_svg_for_light_and_dark(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == {
        "history", "learning-curves", "importance", "slices", "interactions",
        "parallel-coordinates", "hit-rate-by-position", "effort",
    }  # fmt: skip
    for name in names:
        png = (folder / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = (folder / "figures" / f"{name}.svg").read_text()
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
        assert "prefers-color-scheme:dark" in svg


def test_a_report_is_the_same_when_it_is_written_again(folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    write_report(Run(folder))
    assert (folder / "report.html").read_bytes() == before


def test_hit_rates_by_position_agree_with_a_count(folder: Path) -> None:
    table = ranks.read(RunPaths(folder).test_ranks)
    assert table is not None
    own = table[table["scorer"] == "best"]
    rates = futures.hit_rate(own, 10)
    for position in (1, 2, 3):
        found = [rank for rank in own[str(position)].tolist() if rank is not pd.NA]
        assert len(found) == (40 if position < 3 else 34)
        share = sum(rank < 10 for rank in found) / len(found)
        rate, *bounds = rates.to_numpy()[position - 1]
        assert rate == share
        # Wilson 1927: the shares whose own normal interval holds the one observed
        for bound in bounds:
            distance = abs(share - bound) / math.sqrt(bound * (1 - bound) / len(found))
            assert distance == pytest.approx(norm.ppf(0.975))


def test_a_position_that_few_users_have_is_left_out() -> None:
    """Four users: all have a first future, two a second, one a third."""
    found = {"1": [0, 0, 90, 90], "2": [0, 90, None, None], "3": [0, None, None, None]}
    rates = futures.hit_rate(pd.DataFrame(found, dtype="Int32"), 10)
    assert rates["rate"].to_dict() == {1: 0.5, 2: 0.5}


@pytest.mark.parametrize("users", [300, 10_000])
def test_intervals_are_those_of_the_metrics_of_the_run(tmp_path: Path, users: int) -> None:
    folder = make_run(tmp_path / "run", [trial_of(0)], params=PARAMS)
    random_ranks(folder, ["best", "markov"], users)
    run, told = Run(folder), ranks.read(RunPaths(folder).test_ranks)
    table = scores.test_table(run)
    assert table is not None
    assert told is not None
    rows = table.set_index("scorer")
    for scorer in ("best", "markov"):
        evaluation = scores.evaluation_of(told, scorer, run.space.base.evaluation)
        means, intervals = evaluation.means(), evaluation.intervals()  # of best/metrics.json
        for name in ("ndcg@10", "next/ndcg@10"):
            low, high = intervals[name]
            assert rows.at[scorer, f"test/{name}"] == f"{means[name]:.4f} [{low:.4f}, {high:.4f}]"


def test_differences_are_of_the_same_users(folder: Path) -> None:
    table = scores.test_table(Run(folder))
    assert table is not None
    rows = zip(table["scorer"], table["test/ndcg@10"], strict=True)
    mean = {name: float(text.split()[0]) for name, text in rows}
    assert mean["best − popularity"] == pytest.approx(mean["best"] - mean["popularity"], abs=2e-4)


def test_the_parameter_that_decides_is_the_most_important(folder: Path) -> None:
    found = importance.shares(Run(folder))
    assert next(iter(found)) == "train.lr"
    assert sum(found.values()) == pytest.approx(1)


def test_few_trials_of_a_parameter_say_nothing_of_it(tmp_path: Path) -> None:
    """Active in 4 of 12 trials, though the best ones, and never varied: neither has a share."""
    trials = []
    for number in range(12):
        values = values_of(number) | {"loss.num_positives": 2, "loss.relevance": "linear"}
        if number < 8:
            values |= {"loss.num_positives": 1}
            del values["loss.relevance"]
        values["train.weight_decay"] = 0.0
        trials.append(Trial(values, [0.1 + number / 100]))
    params = {**PARAMS, "train.weight_decay": {"type": "categorical", "choices": [0.0, 0.1]}}
    run = Run(make_run(tmp_path / "run", trials, params=params))
    found = importance.shares(run)
    assert set(found) == {"train.lr", "model.dropout", "loss.num_positives"}
    picture = importance.bars(run, found)
    assert picture is not None
    assert "always the same: loss.relevance, train.weight_decay." in picture.caption
    slices = parameters.slices(run, found)
    assert slices is not None
    assert [axes.get_xlabel() for axes in slices.figure.axes[:5]] == [
        *found, "loss.relevance", "train.weight_decay"
    ]  # fmt: skip
    few = Run(make_run(tmp_path / "few", trials[:9], params=params))
    assert importance.shares(few) == {}


def test_trials_that_share_a_point_stand_apart_on_either_axis() -> None:
    lr = ParameterAxis("train.lr", Float(type="float", low=0.0, high=1.0))
    norm = ParameterAxis("model.norm", Categorical(type="categorical", choices=["pre", "post"]))
    records = [TrialRecord(n, {"train.lr": 0.5, "model.norm": "post"}, 0.0) for n in range(3)]
    for axes in ([lr, norm], [norm, lr]):
        found = dict(zip([axis.name for axis in axes], spread(records, axes), strict=True))
        assert found["train.lr"] == [0.5, 0.5, 0.5]
        assert len(set(found["model.norm"])) == 3
    assert spread(records, [lr]) == [[0.5, 0.5, 0.5]]


LABELS: dict[str, list[Any]] = {
    "train.weight_decay": [1e-05, 1e-06, 1e-09],
    "loss.type": ["bce", "gbce", "bpr", "softmax", "sampled_softmax"],
    "train.seed": list(range(25)),
    "model.dropout": [number / 20 for number in range(13)],
    "train.clip_norm": [None, 1.0],
}


def test_no_label_of_a_picture_crosses_another(tmp_path: Path) -> None:
    trials = [
        Trial({name: of[number % len(of)] for name, of in LABELS.items()}, [0.1 + number / 100])
        for number in range(30)
    ]
    params = {name: {"type": "categorical", "choices": of} for name, of in LABELS.items()}
    run = Run(make_run(tmp_path / "run", trials, params=params))
    with styled():
        for draw in (parameters.slices, parameters.interactions):
            picture = draw(run, dict.fromkeys(LABELS, 0.2))
            assert picture is not None
            picture.figure.draw_without_rendering()
            for axes in picture.figure.axes:
                check_apart(axes.get_xticklabels())
                check_apart(axes.get_yticklabels())
        picture = parameters.parallel(run)
    assert picture is not None
    picture.figure.draw_without_rendering()
    axes = picture.figure.axes[0]
    heights = [ParameterAxis(*item).marks() for item in run.space.params.items()]
    assert max(map(len, heights)) <= 12
    assert {"null", "sampled_softmax"} <= {text.get_text() for text in axes.texts}
    for text in axes.texts:
        end = axes.transData.inverted().transform(text.get_window_extent().max)[0]
        assert end < math.floor(text.get_position()[0]) + 1  # before the next axis


def check_apart(labels: Sequence[Text]) -> None:
    """Labels side by side, or one upon the other, all turned by the same angle."""
    for one, other in pairwise(labels):
        turned, boxes = one.get_rotation(), (one.get_window_extent(), other.get_window_extent())
        if turned in (0, 90):
            assert not boxes[0].overlaps(boxes[1])
        else:  # their lines are as far apart as their ends let them
            height = float(one.get_fontsize()) * one.figure.dpi / 72
            assert (boxes[1].x1 - boxes[0].x1) * math.sin(math.radians(turned)) > height


def test_texts_have_colours_and_then_styles_and_numbers_a_scale() -> None:
    texts = progress._looks([*"abcdefgh", progress.NOT_THERE], ordered=False)
    assert len(set(texts)) == 9
    assert {style for _, style in texts} == {"-", "--"}
    assert texts[-1] == (MUTED, "-")
    numbers = progress._looks(list("12345678"), ordered=True)
    assert {style for _, style in numbers} == {"-"}
    assert len(set(numbers)) == 8
    assert numbers[0][0] not in COLOURS


@pytest.mark.parametrize("metric", [METRIC, "train/loss"])
def test_a_caption_says_of_what_the_curves_are(tmp_path: Path, metric: str) -> None:
    search = SPACE["search"] | {"metric": metric}  # type: ignore[operator]
    folder = make_run(tmp_path / "run", [trial_of(0)], params=PARAMS, search=search)
    picture = progress.curves(Run(folder))
    assert picture is not None
    assert ("validation futures" in picture.caption) == (metric == METRIC)


def test_saved_is_what_stopped_trials_had_left(folder: Path) -> None:
    table = effort.spent(Run(folder))
    stopped = table.loc[[number for number in range(30) if number % 5 != 4]]
    assert set(stopped["epochs_saved"]) == {2}  # of 4
    assert set(stopped["seconds"]) == {10.0}
    assert set(stopped["seconds_saved"]) == {10.0}  # 2 epochs at a median of 5 s
    assert (table["epochs"][30], table["epochs_saved"][30]) == (1, 0)  # a failure saves nothing
    assert table["epochs_saved"][4] == 0


def test_of_failures_alone_there_is_a_page_without_pictures(tmp_path: Path) -> None:
    trials = [Trial({"train.lr": 0.01, "loss.num_positives": 1}, [], "failed", "it burst")]
    page, *pictures = write_report(Run(make_run(tmp_path / "run", trials)))
    assert pictures == []
    assert "it burst" in page.read_text()
    assert f"No trial has given a value of {METRIC}" in page.read_text()


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(tmp_path: Path) -> None:
    values = {"train.lr": 0.01, "loss.num_positives": 1}
    going = [Trial(values, [0.1, 0.3]), Trial(values, [0.2], None)]
    page, *pictures = write_report(Run(make_run(tmp_path / "run", going)))
    assert "Not scored" in page.read_text()
    assert "history.png" in {path.name for path in pictures}
    assert "importance.png" not in {path.name for path in pictures}  # of two trials
    with pytest.raises(ConfigError, match="no trial has reported an epoch"):
        write_report(Run(make_run(tmp_path / "none", [])))


@pytest.mark.slow
def test_the_test_scores_need_no_scrolling(tmp_path: Path, browser: webdriver.Chrome) -> None:
    folder = make_run(tmp_path / "run", [trial_of(0)], params=PARAMS)
    random_ranks(folder, ["best", "popularity", "markov"])
    page, *_ = write_report(Run(folder))
    screen = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    wide, room = browser.execute_script(
        "const box = document.querySelector('.scroll'); return [box.scrollWidth, box.clientWidth]"
    )
    assert wide <= room


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_every_screen(
    folder: Path, browser: webdriver.Chrome, width: int, theme: str
) -> None:
    scheme = {"name": "prefers-color-scheme", "value": theme}
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get((folder / "report.html").as_uri())
    seen = json.loads(browser.execute_script(SEEN))
    assert seen["widest"] <= width  # nothing makes the page itself scroll sideways
    assert len(seen["pictures"]) == 8
    assert min(seen["pictures"]) > 300  # each is loaded, and large enough to read
    dark = sum(map(int, seen["background"].strip("rgb()").split(","))) < 3 * 64
    assert dark == (theme == "dark")


SEEN = """
const pictures = [...document.images].map(i => i.complete && i.naturalWidth && i.clientWidth);
const background = getComputedStyle(document.body).backgroundColor;
return JSON.stringify({pictures, background, widest: document.documentElement.scrollWidth});
"""
