"""TensorBoard on a real run: over HTTP, and as a person sees it."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.searches import METRIC, SPACE, listening_beyond_loopback, run, started

from tune_srs.runs.run import Run

pytestmark = pytest.mark.slow
PARAMS: Any = SPACE["params"]
PATIENCE = 60  # seconds for a program to be ready


class Board:
    """A running TensorBoard."""

    def __init__(self, address: str, pid: int) -> None:
        self.address = address
        self.pid = pid

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}data/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def hparams(self, path: str, **request: Any) -> Any:
        told = json.dumps({"experimentName": "", **request})
        return self.get(f"plugin/hparams/{path}?" + urlencode({"request": told}))

    def groups(self, *columns: dict[str, Any]) -> list[dict[str, Any]]:
        """The trials in HPARAMS, selected and ordered by `columns`."""
        statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        answer = self.hparams(
            "session_groups",
            allowedStatuses=statuses,
            colParams=list(columns),
            startIndex=0,
            sliceSize=100,
        )
        groups: list[dict[str, Any]] = answer["sessionGroups"]
        return groups


@pytest.fixture(scope="module")
def board(searched: tuple[Path, str]) -> Iterator[Board]:
    # as from a script that runs it with `&`: a shell lets such commands ignore SIGINT
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with started(searched[0], "monitor", "tiny") as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), (line, process.poll())
        board = Board(line.split()[0], process.pid)
        until = time.monotonic() + PATIENCE
        while len(board.get("runs")) < 5:  # it reads the events while it answers
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
        yield board
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, "")


def test_nothing_listens_beyond_this_machine(board: Board) -> None:
    assert listening_beyond_loopback(board.pid) == []


def test_scalars_have_our_names(board: Board, searched: tuple[Path, str]) -> None:
    tags = board.get("plugin/scalars/tags")
    assert sorted(tags) == [f"trial_{number:05d}" for number in range(5)]
    told = Run(searched[0] / "results" / "tiny").epochs
    for own in tags.values():
        assert {METRIC, "train/loss", "time/train_s"} <= set(own)
        assert {name.partition("/")[0] for name in own} == {"val", "train", "time"}
    curve = board.get("plugin/scalars/scalars?" + urlencode({"run": "trial_00000", "tag": METRIC}))
    first = told[told["trial"] == 0]
    assert [step for _, step, _ in curve] == first["epoch"].tolist()
    assert [value for _, _, value in curve] == pytest.approx(first[METRIC].tolist())


def test_hparams_has_every_parameter_and_status(board: Board, searched: tuple[Path, str]) -> None:
    table = Run(searched[0] / "results" / "tiny").trials.set_index("trial")
    groups = {int(group["name"][-5:]): group for group in board.groups()}
    assert sorted(groups) == table.index.tolist()
    for number, group in groups.items():
        row, told = table.loc[number], group["hparams"]
        assert set(told) == set(PARAMS)
        assert told["train.lr"] == row["train.lr"]
        inactive = row["loss.num_positives"] == 1
        assert told["loss.relevance"] == ("-" if inactive else row["loss.relevance"])
        assert group["sessions"][0]["status"] == "STATUS_SUCCESS"  # complete or stopped


def test_hparams_can_be_sorted_and_limited_to_a_range(
    board: Board, searched: tuple[Path, str]
) -> None:
    for name in PARAMS:
        assert len(board.groups({"hparam": name, "order": "ORDER_ASC"})) == 5
    last = Run(searched[0] / "results" / "tiny").epochs.groupby("trial")[METRIC].last()
    middle = float(last.sort_values().iloc[2])
    metric = {"group": "", "tag": METRIC}
    above = {"minValue": middle - 1e-6, "maxValue": 1}
    found = board.groups({"metric": metric, "filterInterval": above, "order": "ORDER_DESC"})
    assert {int(group["name"][-5:]) for group in found} == set(last.index[last >= middle])


def test_a_person_sees_the_curves_and_the_table(board: Board, browser: webdriver.Chrome) -> None:
    browser.get(f"{board.address}?{urlencode({'tagFilter': METRIC})}#timeseries")
    wait_until_shown(browser, f"Tagsmatchingfilter{METRIC}", "trial_00000", "trial_00004")
    browser.get(f"{board.address}#hparams")
    wait_until_shown(browser, "TABLEVIEW", *PARAMS, f"{METRIC}MinMax", "trial_00004")


def wait_until_shown(browser: webdriver.Chrome, *texts: str) -> None:
    """Until a person can read all of them; spaces aside, which come and go with the layout."""

    def shown(page: webdriver.Chrome) -> bool:
        visible = "".join(page.find_element(By.TAG_NAME, "body").text.split())
        return all(text in visible for text in texts)

    WebDriverWait(browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(
        shown
    )


def test_a_port_that_is_taken_is_told(board: Board, searched: tuple[Path, str]) -> None:
    port = board.address.rstrip("/").rpartition(":")[2]
    done = run(searched[0], "monitor", "tiny", "--port", port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert port in done.stderr
