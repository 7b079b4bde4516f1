"""The kernels against the model in torch: features and every gradient, masks and all."""

import copy
import gc
import itertools
import weakref
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_data import original_model
from torch import Tensor, nn

from tune_srs.config.settings import ModelConfig
from tune_srs.model.dropout import Dropout
from tune_srs.model.sasrec import Block, SASRec

ITEMS, MOST = 30, 80


def model_of(seed: int = 0, **changes: object) -> SASRec:
    """A model with biases and gains that are not 0 and 1."""
    values = {"max_length": MOST, "hidden_units": 6, "dropout": 0} | changes
    config = original_model(**values)
    model = SASRec(config, ITEMS, torch.Generator().manual_seed(seed)).train()
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, generator=generator)
    return model


def tokens_of(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Items, following and offsets of rows of these lengths."""
    generator = torch.Generator().manual_seed(2)
    items = torch.randint(1, ITEMS + 1, (sum(lengths),), generator=generator)
    following = torch.cat([torch.arange(length, 0, -1) for length in lengths])
    return items, following, torch.tensor([0, *itertools.accumulate(lengths)])


def packed(model: SASRec, lengths: list[int]) -> Tensor:
    return model.encode_packed(model.items.weight, *tokens_of(lengths))


def in_torch(model: SASRec, lengths: list[int]) -> Tensor:
    """The same features, row by row."""
    items, following, offsets = tokens_of(lengths)
    rows = []
    for start, stop in itertools.pairwise(offsets.tolist()):
        embedded = model.items(items[None, start:stop])
        rows.append(model.encode(embedded, following[None, start:stop])[0])
    return torch.cat(rows)


def gradients(model: SASRec, features: Tensor) -> dict[str, Tensor]:
    into = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    features.backward(into.to(features.dtype))  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: SASRec, other: SASRec, features: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    exact = gradients(other, expected)
    largest = max(value.abs().max().item() for value in exact.values())
    for name, value in gradients(model, features).items():
        torch.testing.assert_close(value, exact[name], rtol=1e-4, atol=1e-5 * largest, msg=name)
    assert len(exact) == len(list(model.parameters()))


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, MOST), min_size=1, max_size=4),
    num_heads=st.sampled_from([1, 2, 3]),
    num_blocks=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_features_and_every_gradient_are_those_of_torch(
    lengths: list[int], num_heads: int, num_blocks: int, seed: int
) -> None:
    model = model_of(seed, num_heads=num_heads, num_blocks=num_blocks)
    assert_same(model, model, packed(model, lengths), in_torch(model, lengths))


ARCHITECTURES: list[dict[str, object]] = [
    {"norm": "pre"},
    {"norm": "post"},
    {"gates": True},
    {"activation": "gelu", "feed_forward_factor": 2},
    {"activation": "swiglu"},
    {"positions": "sinusoidal"},
    {"positions": "rotary"},
    {"positions": "none"},
    {"scale_embedding": False},
    {"embedding_dropout": 0.0, "attention_dropout": 0.0, "dropout": 0.0, "norm": "pre"},
    {"norm": "pre", "gates": True, "activation": "swiglu", "feed_forward_factor": 4},
]


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_architecture_is_the_same_on_packed_and_on_padded_rows(
    architecture: dict[str, object], num_heads: int
) -> None:
    lengths = [40, 3, MOST, 1, 33]
    model = model_of(1, **{"num_heads": num_heads, "hidden_units": 12} | architecture)
    expected = in_torch(model, lengths)
    assert_same(model, model, packed(model, lengths), expected)
    model.eval()
    items = torch.zeros(len(lengths), MOST, dtype=torch.int64)
    flat, _, offsets = tokens_of(lengths)
    for row, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        items[row, : stop - start] = flat[start:stop]
    with torch.no_grad():
        alone = model.queries(items, torch.tensor(lengths))
    torch.testing.assert_close(alone, expected[offsets[1:] - 1], rtol=1e-4, atol=1e-5)


def test_dropout_of_attention_alone_falls_where_it_does_in_torch() -> None:
    """On packed rows, of an architecture without kernels of its own."""
    dropouts = {"dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.3}
    shape: dict[str, Any] = {"norm": "pre", "num_heads": 2, "num_blocks": 1} | dropouts
    model, other = (model_of(**shape) for _ in range(2))
    attention = cast(Block, model.blocks[0]).attention
    drawn: list[tuple[Any, Any]] = []
    words_of = attention.dropout.words

    def remembered(count: int) -> tuple[Any, Any]:
        drawn.append(words_of(count))
        return drawn[-1]

    attention.dropout.words = remembered  # type: ignore[method-assign]
    features = packed(model, [70])
    masks = attention_masks(*drawn[0], 70, 2)
    cast(Block, other.blocks[0]).attention.dropout = GivenMasks(masks)  # type: ignore[assignment]
    assert_same(model, other, features, in_torch(other, [70]))
    assert next(masks, None) is None


def attention_masks(words: np.ndarray, scale: float, length: int, heads: int) -> Iterator[Tensor]:
    """The mask of a row's attention, all heads."""
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1  # (words, 32)
    factors = torch.from_numpy(bits.astype(np.float32)) * scale
    mask, at = torch.zeros(heads, length, length), 0
    for head in range(heads):
        for start in range(0, length, 32):
            stop = min(start + 32, length)
            mask[head, start:stop, :stop] = factors[at : at + stop, : stop - start].T
            at += stop
    yield mask


class GivenMasks(nn.Module):
    """Dropout by masks that are given, one a call."""

    def __init__(self, masks: Iterator[Tensor]) -> None:
        super().__init__()
        self._masks = masks

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self._masks).view(x.shape)


def masks_of(words: np.ndarray, scale: float, length: int, shape: ModelConfig) -> Iterator[Tensor]:
    """The masks of a row in the order in which the model in torch asks for them."""
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1  # (words, 32)
    factors = torch.from_numpy(bits.astype(np.float32)) * scale
    at = 0

    def tokens() -> Tensor:
        nonlocal at
        size = length * shape.hidden_units
        mask = factors[at : at + -(-size // 32)].reshape(-1)[:size]
        at += -(-size // 32)
        return mask

    yield tokens()
    for _ in range(shape.num_blocks):
        attention = torch.zeros(shape.num_heads, length, length)
        for head in range(shape.num_heads):
            for start in range(0, length, 32):
                stop = min(start + 32, length)
                attention[head, start:stop, :stop] = factors[at : at + stop, : stop - start].T
                at += stop
        yield attention
        yield tokens()
        yield tokens()
    assert at == len(words)


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_dropout_falls_where_it_does_in_torch(num_heads: int, length: int, p: float) -> None:
    model, other = (model_of(num_heads=num_heads, dropout=p) for _ in range(2))
    config = original_model(hidden_units=6, num_heads=num_heads)
    drawn: list[tuple[Any, Any]] = []
    words_of = model.dropout.words

    def remembered(count: int) -> tuple[Any, Any]:
        drawn.append(words_of(count))
        return drawn[-1]

    model.dropout.words = remembered  # type: ignore[method-assign]
    features = packed(model, [length])
    masks = masks_of(*drawn[0], length, config)
    given_masks = GivenMasks(masks)
    other.dropout = given_masks  # type: ignore[assignment]
    for module in other.modules():
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, given_masks)
    assert_same(model, other, features, in_torch(other, [length]))
    assert next(masks, None) is None


def test_a_seed_repeats_the_masks_and_another_does_not() -> None:
    def features(seed: int) -> Tensor:
        model = model_of(dropout=0.5)
        model.draw_dropout_from(torch.Generator().manual_seed(seed))
        return packed(model, [40, 3])

    assert torch.equal(features(0), features(0))
    assert not torch.equal(features(0), features(1))


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, MOST), min_size=1, max_size=5),
    num_heads=st.sampled_from([1, 2]),
    num_blocks=st.integers(1, 3),
)
def test_the_last_features_alone_are_those_of_torch(
    lengths: list[int], num_heads: int, num_blocks: int
) -> None:
    model = model_of(num_heads=num_heads, num_blocks=num_blocks, dropout=0.5).eval()
    items = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    flat, _, offsets = tokens_of(lengths)
    for row, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        items[row, : stop - start] = flat[start:stop]
    with torch.no_grad():
        alone = model.queries(items, torch.tensor(lengths))
        expected = in_torch(model, lengths)[offsets[1:] - 1]
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    with torch.enable_grad():  # torch's own way to the same
        torch.testing.assert_close(
            model.queries(items, torch.tensor(lengths)), expected, rtol=1e-4, atol=1e-5
        )


def test_the_number_of_threads_changes_the_rounding_only() -> None:
    threads = torch.get_num_threads()
    model, lengths, results = model_of(), [40, 3, 17, 70, 1], []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            features = packed(model, lengths)
            results.append([features.detach(), *gradients(model, features).values()])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_score_that_is_no_number_stays_one() -> None:
    model = model_of()
    with torch.no_grad():
        model.items.weight[7] = torch.nan
    features = model.encode_packed(
        model.items.weight,
        torch.tensor([3, 7, 5]),
        torch.tensor([3, 2, 1]),
        torch.tensor([0, 3]),
    )
    assert features.isnan().any(dim=1)[1:].all()


@pytest.mark.parametrize(("item", "length"), [(ITEMS + 1, 2), (-1, 2), (1, 0), (1, MOST + 1)])
def test_what_is_no_item_and_no_length_is_refused(item: int, length: int) -> None:
    with torch.no_grad(), pytest.raises(IndexError, match="must be"):
        model_of().eval().queries(torch.full((1, MOST + 1), item), torch.tensor([length]))


def test_a_batch_before_the_last_is_refused() -> None:
    model = model_of()
    first, _ = packed(model, [3]), packed(model, [4])
    with pytest.raises(RuntimeError, match="only the last batch"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_a_model_that_is_no_longer_used_is_gone_at_once() -> None:
    model = model_of()
    packed(model, [5]).sum().backward()  # type: ignore[no-untyped-call]
    gone = weakref.ref(model)
    gc.disable()  # which would free cycles, some time later
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_copied_model_encodes_with_its_own_weights() -> None:
    model = model_of()
    before = packed(model, [5])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        cast(nn.LayerNorm, twin.norm).bias.add_(1)
    torch.testing.assert_close(packed(twin, [5]), before + 1)
