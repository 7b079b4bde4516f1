"""Formats that other programs run: ONNX, and torch's exported program.

Both take `items` (B, L), int64: rows of item numbers, the oldest first, padded with 0 on the right.
B is at least 1, and L at most the model's `max_length`. The number of an item is its row in
`items.parquet`, counted from 1. Both return `scores` (B, I), float32: column i is row i of
`items.parquet`.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tune_srs.config.validation import nearest
from tune_srs.errors import ConfigError, SearchError
from tune_srs.model.padded import PaddedRows
from tune_srs.model.sasrec import SASRec

LARGEST_DIFFERENCE = 1e-4  # in a score, relative to the largest one; float32 rounds to 1e-7
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
Scores = Callable[[Tensor], Tensor]  # (B, L) → (B, I)


class NextItems(nn.Module):
    """The model in plain torch: padded histories → scores of every item, see above."""

    def __init__(self, model: SASRec) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        lengths = (items > 0).sum(dim=1)
        queries = self.model.last(self.model.items.weight, items, PaddedRows.of(items, lengths)[0])
        return self.model.scores(queries, slice(1, self.model.num_items + 1))


def write_torch(model: SASRec, folder: Path) -> None:
    """Write `model.pt2`, for `torch.export.load`; that unpickles, so it is never called here."""
    program = _program(model)
    check(program.module(), model, "model.pt2")
    torch.export.save(program, folder / "model.pt2")


def write_onnx(model: SASRec, folder: Path) -> None:
    """Write `model.onnx`; this needs the extra `onnx`."""
    import onnxruntime

    with _quietly():
        exported = torch.onnx.export(
            _program(model),
            input_names=["items"],
            output_names=["scores"],
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # it is None without dynamo
    content = exported.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def scores(items: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["scores"], {"items": items.numpy()})[0])

    check(scores, model, "model.onnx")
    (folder / "model.onnx").write_bytes(content)


WRITERS: dict[str, Callable[[SASRec, Path], None]] = {"onnx": write_onnx, "torch": write_torch}


def check_formats(formats: Collection[str]) -> None:
    """Raise a `ConfigError` for an unknown format, or one whose packages are not installed."""
    for name in formats:
        if name not in WRITERS:
            raise ConfigError(f"--format: unknown format {name}{nearest(name, WRITERS)}")
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ConfigError(f"--onnx: needs {', '.join(missing)}; pip install 'tune-srs[onnx]'")


@torch.no_grad()
def check(scores: Scores, model: SASRec, name: str) -> None:
    """Compare `scores` with those of `model` on random histories of many lengths.

    Raises `SearchError` if they differ by more than rounding can explain.
    """
    generator = torch.Generator().manual_seed(0)
    longest = model.max_length
    for columns in sorted({1, 2, longest // 3 + 1, longest // 2 + 1, longest} - {longest + 1}):
        for rows in (1, 5):
            lengths = torch.randint(1, columns + 1, (rows,), generator=generator)
            lengths[0] = columns
            drawn = torch.randint(1, model.num_items + 1, (rows, columns), generator=generator)
            items = drawn * (torch.arange(columns) < lengths[:, None])
            expected = model.scores(model.queries(items, lengths), slice(1, model.num_items + 1))
            difference = (scores(items) - expected).abs().max() / expected.abs().max()
            if not difference <= LARGEST_DIFFERENCE:
                raise SearchError(
                    f"{name}: its scores differ from the model's by {difference:.1e} of the "
                    f"largest; not written, export without it"
                )


def _program(model: SASRec) -> ExportedProgram:
    example = torch.ones(2, model.max_length, dtype=torch.int64)
    length = Dim("length", max=model.max_length) if model.max_length > 1 else Dim.STATIC
    with _quietly(), torch.no_grad():
        return torch.export.export(
            NextItems(model).eval(),
            (example,),
            dynamic_shapes=({0: Dim("histories"), 1: length},),
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what torch's exporter says about its own code and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(before)
