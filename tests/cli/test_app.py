"""The commands as a user runs them: exit status, what is printed where, and how fast."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from support.exports import write_run

import tune_srs
from tune_srs.cli import app
from tune_srs.runs.journal import Journal
from tune_srs.space.objective import Objective

Run = Callable[..., "Outcome"]
METRIC = "val/ndcg_rel@10"
SPACES = Path(__file__).parents[2] / "search_spaces"

CONFIG = """
data: {name: synthetic, num_futures: 2, synthetic: {users: 40, items: 50, mean_length: 12}}
model: {hidden_units: 8, max_length: 10}
train: {max_epochs: 2, batch_size: 16}
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tune-srs", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return call


def test_the_installed_command_runs(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "tune-srs"
    good = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.strip()) == (0, tune_srs.__version__)
    bad = subprocess.run([command, "results", "no"], cwd=tmp_path, capture_output=True, check=False)
    assert bad.returncode == 2
    assert b"Traceback" not in bad.stderr


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "optuna", "pandas", "numpy", "matplotlib", "pydantic"}
    code = f"import sys, tune_srs.cli.app; print(*{heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("data", "--help"), ("search", "--help"), ("study", "--help")]
)
def test_help_exits_with_0(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.status == 0, done.stderr
    assert "Usage: tune-srs" in done.stdout


def test_data_list_names_every_data_set(run: Run) -> None:
    done = run("data", "list")
    assert done.status == 0
    header, *lines = done.stdout.splitlines()
    assert header.split()[:3] == ["name", "here", "users"]
    assert lines[0].split()[:5] == ["ml-100k", "no", "943", "1682", "100000"]
    assert "no redistribution" in lines[0]
    assert "https://grouplens.org/" in lines[0]
    assert len(lines) == 15
    assert lines[-1].split()[0] == "synthetic"


def test_data_prepare_prints_what_came_of_it(run: Run) -> None:
    options = ["--num-futures", "3", "--set", "data.synthetic.users=20"]
    done = run("data", "prepare", "synthetic", *options)
    assert done.status == 0, done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    assert facts["users"] == "20"
    assert len(facts["fingerprint"]) == 64


LOG = "who,what,when\n" + "".join(
    f"u{user},i{(user + step) % 7},2024-01-{1 + step:02}\n"
    for user in range(9)
    for step in range(6)
)


def test_any_log_is_prepared_and_trained_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(LOG)
    columns = ["--user-col", "who", "--item-col", "what", "--time-col", "when"]
    options = ["--num-futures", "1", "--noise", "accidental=0.2", "--noise", "shared=0.5"]
    done = run("data", "prepare", "mine.csv", *columns, *options)
    assert done.status == 0, done.stderr
    assert "mine.csv: fields separated by ',', user from who, item from what, timestamp" in (
        done.stdout
    )
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    assert (facts["users"], facts["items"], facts["interactions"]) == ("9", "7", "54")
    assert int(facts["training_interactions"]) > 4 * 9  # with noise

    log = "{user_column: who, item_column: what, time_column: when}"
    data = f"{{name: mine.csv, num_futures: 1, log: {log}}}"
    (tmp_path / "config.yaml").write_text(
        f"data: {data}\nmodel: {{hidden_units: 8, max_length: 10}}\ntrain: {{max_epochs: 1}}\n"
    )
    done = run("train", "config.yaml")
    assert done.status == 0, done.stderr
    assert "best epoch 1" in done.stdout


def test_train_prints_and_writes_the_best_epoch(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    done = run("train", "config.yaml", "--metrics-to", "metrics.json")
    assert done.status == 0, done.stderr
    best = json.loads((tmp_path / "metrics.json").read_text())
    assert f"best epoch {best['epoch']}:" in done.stdout
    assert f"{best['metrics']['val/ndcg@10']:.8f}" in done.stdout


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and the run `results/tiny`, which has ended."""
    folder = tmp_path_factory.mktemp("ended")
    write_run(folder)
    return folder


@pytest.fixture
def used(ended: Path, tmp_path: Path) -> None:
    """The same in the folder where commands run."""
    for name in ("data", "results"):
        (tmp_path / name).symlink_to(ended / name)


@pytest.mark.usefixtures("used")
def test_a_run_is_exported_evaluated_and_recommends(run: Run, tmp_path: Path) -> None:
    done = run("export", "tiny", "--to", "model")
    assert (done.status, done.stderr) == (0, "")
    assert "exported to model" in done.stdout

    done = run("evaluate", "model", "--per-user", "users.parquet", "--set",
               "evaluation.num_candidates=5")  # fmt: skip
    assert (done.status, done.stderr) == (0, "")
    told = json.loads((tmp_path / "model" / "metrics.json").read_text())
    value, (low, high) = (
        told["test"]["best"]["test/ndcg@10"], told["intervals"]["best"]["test/ndcg@10"]
    )  # fmt: skip
    (first, _) = [line for line in done.stdout.splitlines() if line.startswith("ndcg@10")]
    assert first.endswith(f"{value:.4f} [{low:.4f}, {high:.4f}]")
    users = pd.read_parquet(tmp_path / "users.parquet")
    assert set(users["split"]) == {"validation", "test"}
    assert len(users) == 4 * 60

    done = run("recommend", "model", "--history", '3, 5,"no, body"', "--top-k", "4")
    assert done.status == 0
    assert done.stderr == (
        "tune-srs: 1 of 3 ids are unknown to the model and are skipped, such as 'no, body'\n"
    )
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["rank", "item", "score", "by"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert {line.split()[-1] for line in lines} == {"model"}

    pd.DataFrame({"user": ["ann", "bob"], "history": [[3, 5], []]}).to_parquet(
        tmp_path / "asked.parquet"
    )
    done = run("recommend", "model", "--input", "asked.parquet", "--output", "told.parquet",
               "--top-k", "4", "--no-exclude-history")  # fmt: skip
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    found = pd.read_parquet(tmp_path / "told.parquet")
    assert found["user"].to_list() == ["ann"] * 4 + ["bob"] * 4
    assert found["by"].to_list() == ["model"] * 4 + ["popularity"] * 4


BAD_USES = {
    "export into an existing folder": (["export", "tiny", "--to", "data"], "never overwritten"),
    "export into nowhere": (["export", "tiny", "--to", "no/model"], "there is no folder no"),
    "export of no run": (["export", "tyni", "--to", "m"], "no results named tyni, did you mean"),
    "export of no trial": (["export", "tiny", "--to", "m", "--trial", "9"], "it has 0 to 2"),
    "export in no format": (["export", "tiny", "--to", "m", "--format", "tf"], "'onnx', 'torch'"),
    "refit of a part": (["export", "tiny", "--to", "m", "--refit", "half"], "'all'"),
    "evaluation of nothing": (["evaluate", "nowhere"], "nowhere: no such folder"),
    "evaluation of a run": (
        ["evaluate", "results/tiny"],
        "a search, not a model; give results/tiny/best",
    ),
    "evaluation on no data": (
        ["evaluate", "results/tiny/best", "--dataset", "ml-100"],
        "did you mean ml-100k?",
    ),
    "evaluation with a model's setting": (
        ["evaluate", "results/tiny/best", "--set", "model.dropout=0"],
        "model.dropout has no effect",
    ),
    "scores into nowhere": (
        ["evaluate", "results/tiny/best", "--per-user", "no/u.parquet"],
        "--per-user: there is no folder no",
    ),
    "no history": (["recommend", "results/tiny/best"], "give either --history or --input"),
    "two histories": (
        ["recommend", "results/tiny/best", "--history", "1", "--input", "h.parquet"],
        "give either --history or --input",
    ),
    "no file of histories": (
        ["recommend", "results/tiny/best", "--input", "h.parquet"],
        "h.parquet: no such file",
    ),
    "recommendations into a folder": (
        ["recommend", "results/tiny/best", "--history", "1", "--output", "data"],
        "--output: data is a folder; name a file",
    ),
    "no recommendations": (
        ["recommend", "results/tiny/best", "--history", "1", "--top-k", "0"],
        "top-k: must be a whole number >= 1",
    ),
}


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(("arguments", "message"), BAD_USES.values(), ids=BAD_USES.keys())
def test_a_bad_use_of_a_run_exits_with_2_and_one_line(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(*arguments)
    assert done.status == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results"}


DEMO = str(SPACES / "demo.yaml")
SYNTHETIC = ("--dataset", "synthetic")
STUDY = str(SPACES.parent / "studies" / "tiny.yaml")
BAD_REQUESTS = {
    "unknown command": (["serch"], "serch"),
    "unknown option": (["search", DEMO, "--nmae", "x"], "--name"),
    "unknown data set": (["data", "prepare", "ml-100"], "did you mean ml-100k?"),
    "no such log": (["data", "prepare", "logs/mine.csv"], "logs/mine.csv: no such file"),
    "a log without times": (
        ["data", "prepare", "config.yaml", "--user-col", "data"],
        "config.yaml: there is no column data",
    ),
    "unknown noise": (
        ["data", "prepare", "synthetic", "--noise", "random=0.1"],
        "unknown key data.noise.random",
    ),
    "noise without a share": (["data", "prepare", "synthetic", "--noise", "shared"], "KEY=VALUE"),
    "unknown time format": (
        ["data", "prepare", "synthetic", "--time-format", "minutes"],
        "must be one of auto, s, ms",
    ),
    "a share of the last futures": (
        ["data", "prepare", "synthetic", "--set", "data.split.share=0.1"],
        "data.split: kind last takes no share",
    ),
    "unknown data set of a search": (["search", DEMO, "--dataset", "ml100k"], "ml-100k"),
    "missing space file": (["search", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "no space file": (["search"], "SPACE.yaml is missing"),
    "misspelt setting": (
        ["search", DEMO, "--set", "train.bach_size=3"],
        "did you mean train.batch_size?",
    ),
    "a setting without a value": (["search", DEMO, "--set", "train.seed"], "KEY=VALUE"),
    "a searched parameter set": (["search", DEMO, "--set", "train.lr=1"], "fixed and searched"),
    "too few interactions": (
        ["data", "prepare", "synthetic", "--num-futures", "400"],
        "lower data.num_futures",
    ),
    "hostile name": (["search", DEMO, "--name", "../x"], "plain folder name"),
    "unknown results": (["results", "nothing"], "no results named nothing"),
    "nothing to resume": (["search", "--resume", "--name", "no"], "no results named no"),
    "no epochs": (["search", DEMO, "--max-epochs", "0"], "max_epochs"),
    "no trials": (["search", DEMO, "--num-trials", "0"], "trials"),
    "negative seed": (["search", DEMO, "--seed", "-1"], "--seed"),
    "results folder that is a file": (
        ["search", DEMO, *SYNTHETIC, "--results-folder", "config.yaml"],
        "config.yaml",
    ),
    "data folder that is a file": (
        ["data", "prepare", "synthetic", "--data-folder", "config.yaml"],
        "config.yaml/prepared: Not a directory",
    ),
    "metrics into nowhere": (
        ["train", "config.yaml", "--metrics-to", "no/m.json"],
        "there is no folder no",
    ),
    "too many CPUs": (["search", DEMO, *SYNTHETIC, "--cpus-per-trial", "9999"], "9999 asked"),
    "no CPUs": (["search", DEMO, *SYNTHETIC, "--cpus-per-trial", "0"], "cpus_per_trial"),
    "too many GPUs": (["search", DEMO, *SYNTHETIC, "--gpus-per-trial", "999"], "999 asked"),
    "no study file": (["study"], "STUDY.yaml is missing"),
    "missing study file": (["study", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "hostile name of a study": (["study", STUDY, "--name", "../x"], "plain folder name"),
    "no study to resume": (["study", "--resume", "--name", "no"], "no study called no"),
    "misspelt setting of a study": (
        ["study", STUDY, "--set", "train.bach_size=3"],
        "did you mean train.batch_size?",
    ),
    "a tuned parameter set": (["study", STUDY, "--set", "train.lr=1"], "fixed and searched"),
    "no seeds": (["study", STUDY, "--seeds", "0"], "--seeds"),
    "too many CPUs for a run": (["study", STUDY, "--cpus-per-trial", "9999"], "9999 asked"),
    "a search space as a study": (["study", DEMO], "unknown key search"),
    "missing config": (["train", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "unknown metric": (["train", "config.yaml", "--metric", "val/ndgc@10"], "val/ndcg@10"),
    "misspelt key of a config": (["train", "wrong.yaml"], "did you mean train.max_epochs?"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_exits_with_2_and_one_line(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace("max_epochs", "maxepochs"))
    done = run(*arguments)
    assert done.status == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("options", [["--set", "train.device=cuda"], ["--gpus-per-trial", "0.5"]])
def test_a_gpu_that_is_not_there_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    done = run("search", DEMO, *SYNTHETIC, *options)
    assert done.status == 2
    assert done.stderr.count("\n") == 1
    assert "GPU" in done.stderr or "gpus" in done.stderr


def test_relevance_by_time_needs_a_log_with_times(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ordered.txt").write_text(
        "".join(f"{user} {item}\n" for user in range(1, 6) for item in range(1, 41))
    )
    choices = {"type": "categorical", "choices": ["linear", "time"]}
    space = {"fixed": {"loss.num_positives": 2}, "params": {"loss.relevance": choices}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    done = run("search", "space.yaml", "--dataset", "ordered.txt")
    assert done.status == 2
    assert "ordered.txt: has no times, which loss.relevance: time needs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_an_existing_name_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "results" / "mine" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    done = run("search", DEMO, *SYNTHETIC, "--name", "mine")
    assert done.status == 2
    assert "never overwritten" in done.stderr
    assert "--resume --name mine" in done.stderr
    assert kept.read_text() == "kept"


@pytest.mark.parametrize(
    "name", ["trials.csv", "baselines.json", "best/metrics.json", "search.yaml"]
)
@pytest.mark.parametrize("command", ["results", "report"])
def test_a_damaged_run_is_named(run: Run, tmp_path: Path, name: str, command: str) -> None:
    folder = tmp_path / "results" / "mine"
    (folder / "best").mkdir(parents=True)
    space = {
        "description": "",
        "search": {"metric": METRIC, "mode": "max"},
        "params": {"train.lr": {"type": "float", "low": 0.1, "high": 1.0}},
    }
    plan = {
        "name": "mine",
        "seed": 0,
        "resources": {},
        "space": space,
        "data": {"fingerprint": "f", "settings": {}}
        | dict.fromkeys(("users", "items", "interactions", "test_futures_in_history"), 1),
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(plan))
    (folder / "trials.csv").write_text(
        f"trial,status,epochs,best_epoch,seconds,reason,train.lr,{METRIC}\n"
        "0,complete,3,2,1.5,,0.1,0.2\n"
    )
    (folder / "baselines.json").write_text(json.dumps({"popularity": {METRIC: 0.1}}))
    (folder / "best" / "metrics.json").write_text(json.dumps({"test": {"best": {METRIC: 0.1}}}))
    record = Journal(folder, [Objective(METRIC)])
    record.begin(0, {"train.lr": 0.1})
    record.report(0, 1, {METRIC: 0.2, "time/train_s": 1.0, "time/evaluate_s": 1.0})
    assert run(command, "mine").status == 0

    content = (folder / name).read_text()
    (folder / name).write_text(content[: len(content) // 4])
    done = run(command, "mine")
    assert done.status == 2
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
