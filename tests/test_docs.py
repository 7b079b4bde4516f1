"""What the documentation says is so: commands, options, settings, files; the tutorial runs."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from support.searches import run
from typer.main import get_command

from tune_srs.cli import app
from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import dotted_keys
from tune_srs.space.space import Space
from tune_srs.studies.spec import Study

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
# of the pages that are followed: what waits for a user, needs a network or another search
NOT_RUN = (
    "tune-srs monitor",
    "tune-srs search search_spaces/demo.yaml",
)
SHORTER = {  # what would take long without
    "tune-srs search search_spaces/": "--num-trials 1 --max-epochs 1",
    "tune-srs train config.yaml": "--set train.last_epoch=1 --set data.name=synthetic",
    "tune-srs data prepare ml-100k": "--set data.name=synthetic",
}


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    title: str
    content: str


def blocks(page: Path, *languages: str) -> list[Block]:
    fences = r'^```(\w*)(?: title="(.+?)")?\n(.*?)^```'
    found = re.findall(fences, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*one) for one in found if one[0] in languages]


def inline(page: Path) -> list[str]:
    """Every `code` in the text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`]+)`", text)


def lines(page: Path, program: str) -> Iterator[list[str]]:
    """The arguments of each line of a block that calls `program`."""
    for block in blocks(page, "sh", "bash", ""):
        for line in block.content.splitlines():
            words = shlex.split(line, comments=True) if program in line else []
            if words and words[0].removeprefix(".venv/bin/") == program:
                yield words[1 : words.index(">") if ">" in words else None]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` call, and its arguments; a KeyError if there is none."""
    command: Any = get_command(app.app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    return command, words


def options(command: Any) -> set[str]:
    """All options of a command, or of a group's commands."""
    if hasattr(command, "commands"):
        return set().union(*map(options, command.commands.values()))
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


@each_page
def test_every_command_is_one(page: Path) -> None:
    calls = list(lines(page, "tune-srs"))
    calls += [shlex.split(code)[1:] for code in inline(page) if code.startswith("tune-srs ")]
    for words in calls:
        command, arguments = command_of(words)
        if arguments:  # otherwise it is only named
            command.make_context(command.name, arguments)  # raises what the command line would


@each_page
def test_every_option_is_one(page: Path) -> None:
    known = options(get_command(app.app)) | {"--help"}
    mentioned = {re.split("[ =]", code)[0] for code in inline(page) if code.startswith("--")}
    assert mentioned <= known
    for row in re.findall(r"^\| `tune-srs (.+?)` \|(.*)$", page.read_text(), re.MULTILINE):
        command, _ = command_of(shlex.split(row[0]))
        assert set(re.findall(r"`(--[a-z-]+)", row[1])) <= options(command), row[0]


@each_page
def test_every_target_of_make_is_one(page: Path) -> None:
    calls = [words[0] for words in lines(page, "make")]
    calls += [code.split()[1] for code in inline(page) if code.startswith("make ")]
    assert set(calls) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@each_page
def test_every_setting_is_one(page: Path) -> None:
    sections = ("data", "model", "loss", "train", "evaluation")
    names = [re.split("[=:]", code)[0] for code in inline(page)]
    named = {name for name in names if re.fullmatch(rf"({'|'.join(sections)})\.[a-z_.]+", name)}
    files = {"model.safetensors", "model.py"}
    assert named - files <= {
        prefix for key in dotted_keys(TrialConfig) for prefix in (key, key.rpartition(".")[0])
    }


@each_page
def test_every_file_is_there(page: Path) -> None:
    pattern = r"(?:benchmarks|deploy|docs|search_spaces|studies|tune_srs)/[\w/-]+\.\w+"
    for name in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize(
    ("folder", "page"), [("search_spaces", "space.md"), ("studies", "studies.md")]
)
def test_every_space_and_study_is_explained(folder: str, page: str) -> None:
    assert {path.name for path in (ROOT / folder).glob("*.yaml")} <= set(inline(DOCS / page))


@each_page
def test_every_file_in_yaml_is_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block.content)
        if "configurations" in values:
            (tmp_path / "study.yaml").write_text(block.content)
            Study.from_yaml(tmp_path / "study.yaml", tmp_path)
        elif "params" in values:
            Space.from_dict(values, page.name)
        else:
            TrialConfig.from_dict(values, page.name)


@pytest.mark.slow
def test_the_pages_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for page in ("tutorial.md", "results.md", "models.md", "editors.md"):
        if page == "results.md":  # which compares with a second search
            shutil.copytree("results/first", "results/second")
        for block in blocks(DOCS / page, "sh", "python", "yaml"):
            if block.title:
                Path(block.title).write_text(block.content, encoding="utf-8")
            elif block.language == "python":
                exec(compile(block.content, page, "exec"), {})
            elif block.language == "sh":
                for line in block.content.splitlines():
                    if not line.startswith(NOT_RUN):
                        follow(line, monkeypatch)
    printed = capsys.readouterr().out
    assert "best: trial" in printed
    assert "page-7" in printed  # one of the next three
    made = ("results/first/report.html", "recommendations.parquet", "space.schema.json")
    assert all(Path(name).stat().st_size > 1000 for name in made)


@pytest.mark.slow
def test_data_are_prepared_and_trained_on_as_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("search_spaces").symlink_to(ROOT / "search_spaces")
    rows = [(f"u{user}", item, item) for user in range(6) for item in range(1, 25)]
    pd.DataFrame(rows, columns=["who", "what", "when"]).to_parquet("mylog.parquet")
    (block,) = (block for block in blocks(DOCS / "configuration.md", "yaml"))
    Path("config.yaml").write_text(block.content, encoding="utf-8")
    for page in ("data.md", "configuration.md"):
        for block in blocks(DOCS / page, "sh"):
            for line in block.content.splitlines():
                shorter = [more for start, more in SHORTER.items() if line.startswith(start)]
                follow(" ".join([line, *shorter]), monkeypatch)
    assert Path("results/mine/best").is_dir()
    assert Path("metrics.json").is_file()


def follow(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line of a page in the current folder: in this process, unless it starts Ray."""
    call, _, to = line.partition(" > ")
    program, *arguments = shlex.split(call)
    if program == "python":
        runpy.run_path(arguments[0])
    elif arguments[0] == "search":
        done = run(Path.cwd(), *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        print(done.stdout)
    else:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with ExitStack() as held:
            if to:
                held.enter_context(redirect_stdout(held.enter_context(Path(to).open("w"))))
            with pytest.raises(SystemExit) as ended:
                app.main()
        assert not ended.value.code, line


@pytest.mark.slow
def test_the_site_is_whole_without_a_network(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*build, "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {f"{path.stem}.html" for path in DOCS.glob("*.md")} <= set(pages)
    for content in pages.values():
        assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?:', content)
        assert "<!-- settings" not in content
    assert pages["metrics.html"].count("<math") == len(blocks(DOCS / "metrics.md", "math"))
    assert all(
        f"<code>{name}</code>" in pages["configuration.html"] for name in dotted_keys(TrialConfig)
    )
    functions = ("prepare", "train", "search", "study", "export", "load")
    assert all(f'id="tune_srs.api.{name}"' in pages["api.html"] for name in functions)
    parts = ("trials", "epochs", "baselines", "test", "winner")
    assert all(f'id="tune_srs.runs.run.Run.{name}"' in pages["api.html"] for name in parts)
    assert 'data-md-color-media="(prefers-color-scheme)"' in pages["index.html"]
