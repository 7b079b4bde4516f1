"""What is written is read again; what is damaged, mismatched or hostile is refused in one line."""

import csv
import json
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.exports import untrained, with_titles
from support.small_data import random_split

from tune_srs.errors import ConfigError, DataError, TuneSRSError
from tune_srs.exports import card, exported
from tune_srs.exports.exported import Exported, check_free, items_of, read, seal, write
from tune_srs.files import described

ITEMS = 12
LETTERS = [f"i{number}" for number in range(1, ITEMS + 1)]
SPLIT = random_split(0, users=9, items=ITEMS)
FACTS: dict[str, Any] = {
    "run": "tiny",
    "trial": 4,
    "won": True,
    "metric": "val/ndcg@10",
    "epoch": 7,
    "refit": None,
    "data": {
        "name": "mine",
        "fingerprint": "f",
        "users": 9,
        "items": ITEMS,
        "interactions": 50,
        "test_futures_in_history": 0.25,
        "inputs": [],
    },
    "versions": {"tune-srs": "0.1.0"},
}


def complete(ids: list[int] | list[str] = LETTERS) -> Exported:
    """An export with all that a card tells, invented."""
    of = untrained(SPLIT.training, ids)
    names = [f"{row}@{k}" for row in card.ROWS for k in (5, 10, 20)]
    metrics = {
        split: {
            scorer: {f"{prefix}/{name}": 0.125 for name in names}
            for scorer in ("best", "popularity")
        }
        for split, prefix in (("validation", "val"), ("test", "test"))
    }
    intervals = {"best": dict.fromkeys(metrics["test"]["best"], (0.1, 0.15))}
    return Exported(of.config, of.model, of.items, metrics | {"intervals": intervals}, FACTS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "model"
    write(with_titles(complete(), [f"<b>Film</b> {n}" for n in range(ITEMS)]), folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of an export, to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def test_the_folder_holds_what_the_design_says(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        "config.yaml", "model.safetensors", "items.parquet", "metrics.json", "manifest.json",
        "README.md",
    }  # fmt: skip
    assert not list(written.parent.glob(".aside-*"))


@pytest.mark.parametrize("ids", [LETTERS, list(range(-3, ITEMS - 3))], ids=["text", "numbers"])
def test_what_is_written_is_read_again(tmp_path: Path, ids: list[int] | list[str]) -> None:
    of = complete(ids)
    write(of, tmp_path / "model")
    back = read(tmp_path / "model")
    assert back.config == of.config
    assert back.metrics == json.loads(json.dumps(of.metrics))
    assert back.facts == of.facts
    pd.testing.assert_frame_equal(back.items, of.items)
    for name, weight in of.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], weight)
    assert not back.model.training


def test_items_are_counted_where_the_model_has_learned_them() -> None:
    items = items_of(pd.Series(LETTERS), None, SPLIT.training)
    assert items["count"].to_list() == [
        int((SPLIT.histories.items == number).sum()) for number in range(1, ITEMS + 1)
    ]


def test_the_card_tells_where_the_model_comes_from(written: Path) -> None:
    text = (written / "README.md").read_text()
    assert max(map(len, text.splitlines())) <= 100
    text = text.replace("\n", " ")
    for told in (
        "trial 4 of the search `tiny`", "epoch 7", "`mine`: 9 users", "Fingerprint: `f`",
        "| ndcg@10 | 0.1250 | 0.1250 [0.1000, 0.1500] |", "popularity 0.1250",
        "25.0% of the test futures stand in the user's history. They count as missed",
        "won the search", "tune-srs 0.1.0", "tune-srs train model/config.yaml", "ts.load('model')",
    ):  # fmt: skip
        assert told in text


def test_the_card_asks_for_ids_with_commas(tmp_path: Path) -> None:
    ids = ["a, b", 'say "x"', *LETTERS[2:]]
    write(complete(ids), tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    (command,) = re.findall("tune-srs recommend (.*)", text)
    (asked,) = csv.reader([shlex.split(command)[2]])
    assert set(asked) <= set(ids)
    assert len(asked) == 3


def test_the_card_of_another_trial_and_of_a_refit_say_so(tmp_path: Path) -> None:
    of = complete()
    facts = FACTS | {"won": False, "refit": "all"}
    write(Exported(of.config, of.model, of.items, of.metrics, facts), tmp_path / "model")
    text = " ".join((tmp_path / "model" / "README.md").read_text().split())
    assert "do not use them to choose among trials" in text
    assert "trained on all interactions, futures included, for 7 epochs" in text
    assert "figures belong to the model before it was trained on everything" in text
    assert "tune-srs export tiny --trial 4 --refit all" in text


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        check_free(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        check_free(tmp_path / "no" / "model")


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def overwritten(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def one_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [one_bit, cut("config.yaml"), cut("items.parquet")])
def test_what_is_not_what_was_written_is_refused(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    with pytest.raises(DataError, match="is not what was exported: its size or checksum differs"):
        read(folder)


@pytest.mark.parametrize("name", [*exported.FILES, "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing; export it again"):
        read(folder)


def manifest(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | changes))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (manifest(format_version=2), "format version 2, but this tune_srs reads up to 1; upgrade"),
        (manifest(format_version="x"), "format_version: .*valid integer"),
        (manifest(format_version=True), "format_version: expected a number or text, not a boolean"),
        (manifest(format_version=0), "format_version: .*greater than or equal to 1"),
        (manifest(files=[]), "files: "),
        (manifest(files={}), "config.yaml is not in manifest.json"),
        (manifest(data=3), "data: "),
        (manifest(data=FACTS["data"] | {"name": ["mine"]}), "data.name: .*valid string"),
        (manifest(refit=True), "refit: expected a number or text"),
        (manifest(run=None), "run: .*valid string"),
        (manifest(more=1), "unknown key more"),
        (cut("manifest.json"), "manifest.json is not JSON"),
        (overwritten("manifest.json", b"[]"), "manifest.json is not a JSON object"),
        (overwritten("manifest.json", b"\xff\xfe{}"), "manifest.json is not JSON"),
        (overwritten("manifest.json", b"[" * 100_000), "manifest.json is not JSON"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    folder: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=reason):
        read(folder)


def test_a_manifest_that_points_elsewhere_is_refused(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    content = json.loads((folder / "manifest.json").read_text())
    content["files"]["../secret"] = described(folder.parent / "secret")
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"\.\./secret is not one of its files"):
        read(folder)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def items(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "items.parquet"
        change(pd.read_parquet(path)).to_parquet(path)

    return damage


def units(number: int) -> Callable[[Path], None]:
    return configured("hidden_units: 8", f"hidden_units: {number}")


def blocks(number: int) -> Callable[[Path], None]:
    return configured("num_blocks: 1", f"num_blocks: {number}")


def configured(old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


MISMATCHES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another vocabulary": (items(lambda t: t[:-1]), "has 12 items, but items.parquet has 11"),
    "weights of another shape": (units(16), "does not fit config.yaml.*size mismatch"),
    "more units than there is room for": (units(10**6), "does not fit config.yaml.*size mismatch"),
    "blocks without end": (blocks(10**6), "num_blocks: .*less than or equal to 1000"),
    "weights of another type": (
        weights(lambda w: w.update({name: weight.double() for name, weight in w.items()})),
        "weights that are not float32",
    ),
    "a weight less": (
        weights(lambda w: w.pop("blocks.0.attention_norm.weight")),
        "Missing key.*attention_norm",
    ),
    "a weight more": (weights(lambda w: w.update(x=torch.ones(1))), "Unexpected key.*x"),
    "no embedding": (weights(lambda w: w.pop("items.weight")), "does not fit config.yaml"),
    "weights that are no numbers": (
        weights(lambda w: w["blocks.0.attention_norm.bias"].fill_(np.nan)),
        "weights that are not finite",
    ),
    "a scalar embedding": (
        weights(lambda w: w.update({"items.weight": torch.tensor(1.0)})),
        "does not fit config.yaml",
    ),
    "no weights": (overwritten("model.safetensors", b"junk"), "does not fit config.yaml"),
    "no YAML": (overwritten("config.yaml", b"{: :"), "config.yaml: not valid YAML"),
    "an unknown setting": (overwritten("config.yaml", b"modle: {}"), "did you mean model"),
    "metrics that are no numbers": (
        overwritten("metrics.json", b'{"validation": NaN}'),
        "metrics.json is not JSON",
    ),
    "no test": (overwritten("metrics.json", b'{"validation": {}}'), "metrics.json has no "),
    "counts below nothing": (items(lambda t: t.assign(count=-1)), "has a negative count"),
    "no metrics": (overwritten("metrics.json", b"{"), "metrics.json is not JSON"),
    "no Parquet": (overwritten("items.parquet", b"PAR1junkPAR1"), "items.parquet is not a Parquet"),
    "no ids": (items(lambda t: t.drop(columns="item")), "no column item of the right type"),
    "ids that are neither": (items(lambda t: t.assign(item=0.5)), "no column item of the right"),
    "counts that are text": (items(lambda t: t.assign(count="1")), "no column count of the right"),
    "an id twice": (items(lambda t: t.assign(item="i1")), "holds an item twice"),
    "an id missing": (
        items(lambda t: t.assign(item=t["item"].where(t["item"] != "i3"))),
        "without an id",
    ),
    "no items": (items(lambda t: t[:0]), "has no items"),
}


@pytest.mark.parametrize(("damage", "reason"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_folder_sealed_anew_is_looked_into(
    folder: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(folder)
    seal(folder, FACTS)
    with pytest.raises(TuneSRSError, match=reason) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


class Trap:
    """What touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "name", [*exported.FILES, "manifest.json", "model.pt", "extra.PKL", "x.npz", "model.bin"]
)
@pytest.mark.parametrize("by_torch", [True, False])
def test_a_planted_pickle_is_refused_and_not_run(folder: Path, name: str, by_torch: bool) -> None:
    sprung = folder.parent / "sprung"
    content = pickle.dumps(Trap(sprung))
    pickle.loads(content)  # it works
    sprung.unlink()
    if by_torch:
        torch.save(Trap(sprung), folder / name)
    else:
        (folder / name).write_bytes(content)
    if name != "manifest.json":
        seal(folder, FACTS)
    with pytest.raises(TuneSRSError) as caught:
        read(folder)
    assert name in str(caught.value)
    assert not sprung.exists()


def test_what_nobody_exported_is_refused(folder: Path) -> None:
    (folder / "__init__.py").write_text("")
    with pytest.raises(DataError, match=r"__init__\.py is not one of its files; move it elsewhere"):
        read(folder)
    (folder / "__init__.py").unlink()
    (folder / "model.pt2").write_bytes(b"of no manifest")
    with pytest.raises(DataError, match=r"model\.pt2 is not in manifest\.json"):
        read(folder)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        read(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "nowhere")
