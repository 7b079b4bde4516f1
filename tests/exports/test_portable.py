"""The ONNX model and torch's program score as the model does."""

import importlib.util
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from tune_srs.config.settings import ModelConfig
from tune_srs.errors import ConfigError, SearchError
from tune_srs.exports import portable
from tune_srs.model.sasrec import SASRec

ITEMS = 30
PARTS: dict[str, dict[str, Any]] = {
    "original": {},
    "modern": {
        "norm": "pre",
        "gates": True,
        "activation": "swiglu",
        "feed_forward_factor": 3,
        "positions": "rotary",
        "item_bias": True,
    },
}


def model_of(max_length: int, parts: str = "original") -> SASRec:
    config = ModelConfig(max_length=max_length, hidden_units=8, num_heads=2, **PARTS[parts])
    return SASRec(config, ITEMS, torch.Generator().manual_seed(1)).eval()


def one_by_one(model: SASRec, histories: list[list[int]]) -> Tensor:
    """Scores (B, I) of each history alone, without padding, by the path that trains on GPUs."""
    rows = []
    for history in histories:
        queries = model.queries(torch.tensor([history]), torch.tensor([len(history)]))
        rows.append(model.scores(queries, slice(1, ITEMS + 1)).detach())
    return torch.cat(rows)


def padded(histories: list[list[int]], columns: int) -> Tensor:
    return torch.tensor([history + [0] * (columns - len(history)) for history in histories])


HISTORIES = [[3], [30, 1, 30, 7], [5, 6], [9, 8, 7, 6, 5, 4, 3]]


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS)
def test_onnx_scores_any_number_of_histories_of_any_length(tmp_path: Path, parts: str) -> None:
    model = model_of(9, parts)
    portable.write_onnx(model, tmp_path)
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    expected = one_by_one(model, HISTORIES)
    for columns in (7, 8, 9):
        items = padded(HISTORIES, columns).numpy()
        (scores,) = session.run(None, {"items": items})
        torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-5, rtol=1e-5)
    (scores,) = session.run(["scores"], {"items": padded([[4]], 1).numpy()})
    torch.testing.assert_close(
        torch.from_numpy(scores), one_by_one(model, [[4]]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("max_length", "parts"), [(1, "original"), (9, "modern")])
def test_so_does_the_program_of_torch(tmp_path: Path, max_length: int, parts: str) -> None:
    model = model_of(max_length, parts)
    portable.write_torch(model, tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    histories = [history[:max_length] for history in HISTORIES]
    longest = max(map(len, histories))
    scores = program(padded(histories, longest))
    torch.testing.assert_close(scores, one_by_one(model, histories), atol=1e-5, rtol=1e-5)


def test_what_scores_otherwise_is_not_written() -> None:
    model = model_of(5)
    right = portable.NextItems(model)
    portable.check(right, model, "model.onnx")
    for wrong in (
        lambda items: right(items) + 1e-2,
        lambda items: right(items.flip(1)),
        lambda items: right(items) * torch.nan,
    ):
        with pytest.raises(SearchError, match=r"model\.onnx: its scores differ .* not written"):
            portable.check(wrong, model, "model.onnx")


def test_a_format_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    portable.check_formats({"onnx", "torch"})
    with pytest.raises(ConfigError, match="unknown format onx, did you mean onnx"):
        portable.check_formats({"onx"})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        portable, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"onnxscript; pip install 'tune-srs\[onnx"):
        portable.check_formats({"onnx"})
    portable.check_formats({"torch"})
