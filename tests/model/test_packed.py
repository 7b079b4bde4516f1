"""Kernels on packed rows against torch on padded ones: results, every gradient, masks and all."""

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

from tune_srs.kernels.arithmetic import Mask, draw
from tune_srs.kernels.attention import TILE
from tune_srs.kernels.sublayers import TOKENS
from tune_srs.model import packed as packed_module
from tune_srs.model.attention import CausalAttention
from tune_srs.model.dropout import Dropout
from tune_srs.model.packed import PackedRows, mask_of
from tune_srs.model.padded import PaddedRows, Rows
from tune_srs.model.sasrec import SASRec

ITEMS, MOST = 30, 80


def model_of(seed: int = 0, **changes: object) -> SASRec:
    """A model with biases and gains that are not 0 and 1."""
    values = {"max_length": MOST, "hidden_units": 6, "dropout": 0} | changes
    config = original_model(**values)
    model = SASRec(config, ITEMS, torch.Generator().manual_seed(seed)).train()
    shake(model, seed + 1)
    return model


def shake(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, generator=generator)


def packed_rows(lengths: list[int]) -> PackedRows:
    following = torch.cat([torch.arange(length, 0, -1) for length in lengths])
    return PackedRows(following, torch.tensor([0, *itertools.accumulate(lengths)]))


def padded_rows(lengths: list[int]) -> PaddedRows:
    columns = torch.arange(max(lengths))
    return PaddedRows((torch.tensor(lengths)[:, None] - columns).clamp(min=0))


def items_of(lengths: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, ITEMS + 1, (sum(lengths),), generator=generator)


def padded(flat: Tensor, lengths: list[int]) -> Tensor:
    """(T, …) → (B, L, …), 0 at padding."""
    return nn.utils.rnn.pad_sequence(list(torch.split(flat, lengths)), batch_first=True)


def flat(x: Tensor, lengths: list[int]) -> Tensor:
    """(B, L, …) → (T, …)"""
    return torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)])


def packed(model: SASRec, lengths: list[int]) -> Tensor:
    return model.encode(model.items.weight, items_of(lengths), packed_rows(lengths))


def in_torch(model: SASRec, lengths: list[int]) -> Tensor:
    items = padded(items_of(lengths), lengths)
    return flat(model.encode(model.items.weight, items, padded_rows(lengths)), lengths)


def queries(model: SASRec, lengths: list[int]) -> Tensor:
    return model.queries(padded(items_of(lengths), lengths), torch.tensor(lengths))


def gradients(model: nn.Module, results: Tensor) -> dict[str, Tensor]:
    into = torch.randn(results.shape, generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    results.backward(into)  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: nn.Module, results: Tensor, expected: Tensor) -> None:
    """The same numbers, and the same gradients of every parameter."""
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)
    exact = gradients(model, expected)
    largest = max(value.abs().max().item() for value in exact.values())
    found = gradients(model, results)
    assert found.keys() == exact.keys() == {name for name, _ in model.named_parameters()}
    for name, value in found.items():
        torch.testing.assert_close(value, exact[name], rtol=1e-4, atol=1e-5 * largest, msg=name)


class GivenMasks(nn.Module):
    """Dropout by masks that are given, one per call."""

    def __init__(self, masks: Iterator[Tensor]) -> None:
        super().__init__()
        self._masks = masks
        self.p = 0.0  # of torch's fused attention

    def forward(self, x: Tensor) -> Tensor:
        mask = next(self._masks)
        return x * (mask if mask.dim() == x.dim() else mask[None])


def factors_of(mask: Mask, first: int, count: int) -> Tensor:
    factors = np.ones(count + count % 2, np.float32)
    draw(mask, first, factors)
    return torch.from_numpy(factors[:count])


def of_tokens(mask: Mask, tokens: int, units: int) -> Tensor:
    """(T, D) as the kernels draw them, some tokens at a time."""
    size = TOKENS * units
    drawn = [factors_of(mask, t // 2 * units, size) for t in range(0, tokens, TOKENS)]
    return torch.cat(drawn).view(-1, units)[:tokens]


def of_attention(mask: Mask, length: int, heads: int) -> Tensor:
    """(H, L, L) of a single row, tile by tile."""
    found, at = torch.zeros(heads, length, length), 0
    for head in range(heads):
        for low in range(0, length, TILE):
            stop = min(low + TILE, length)
            size = (stop - low) * stop
            found[head, low:stop, :stop] = factors_of(mask, at, size).view(stop, -1).T
            at += size
    return found


class Drawn:
    """The masks that packed rows draw while it is in place of `mask_of`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.masks: list[Mask] = []
        monkeypatch.setattr(packed_module, "mask_of", self)

    def __call__(self, dropout: Dropout | None) -> Mask:
        mask = mask_of(dropout)
        if dropout is not None:
            self.masks.append(mask)
        return mask


lengths_of_rows = st.lists(st.integers(1, MOST), min_size=1, max_size=4)
ARCHITECTURES: list[dict[str, object]] = [
    {},
    {"norm": "pre"},
    {"norm": "post"},
    {"gates": True},
    {"norm": "post", "gates": True},
    {"activation": "gelu", "feed_forward_factor": 2},
    {"activation": "swiglu"},
    {"positions": "sinusoidal"},
    {"positions": "rotary"},
    {"positions": "none"},
    {"scale_embedding": False},
    {"norm": "pre", "gates": True, "activation": "swiglu", "feed_forward_factor": 4},
    {"norm": "post", "positions": "rotary", "num_blocks": 1, "scale_embedding": False},
]


@settings(max_examples=40)
@given(
    lengths=lengths_of_rows,
    architecture=st.sampled_from(ARCHITECTURES),
    num_heads=st.sampled_from([1, 3]),
    num_blocks=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_features_and_every_gradient_are_those_of_torch(
    lengths: list[int],
    architecture: dict[str, object],
    num_heads: int,
    num_blocks: int,
    seed: int,
) -> None:
    shape = {"num_heads": num_heads, "num_blocks": num_blocks, "hidden_units": 6 * num_heads}
    model = model_of(seed, **shape | architecture)
    assert_same(model, packed(model, lengths), in_torch(model, lengths))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_architecture_answers_for_the_last_item_alone(
    architecture: dict[str, object],
) -> None:
    lengths = [40, 3, MOST, 1, 33]
    model = model_of(1, **{"num_heads": 3, "hidden_units": 12, "dropout": 0.5} | architecture)
    model.eval()
    ends = torch.tensor(lengths).cumsum(0) - 1
    expected = in_torch(model, lengths)[ends]
    torch.testing.assert_close(packed(model, lengths)[ends], expected, rtol=1e-4, atol=1e-5)
    ways: list[type[Rows]] = [PackedRows, PaddedRows]
    for model.rows in ways:
        alone = queries(model, lengths)
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=15)
@given(lengths=lengths_of_rows, num_heads=st.sampled_from([1, 2]), num_blocks=st.integers(1, 3))
def test_without_gradients_the_numbers_are_the_same(
    lengths: list[int], num_heads: int, num_blocks: int
) -> None:
    model = model_of(num_heads=num_heads, num_blocks=num_blocks)
    with torch.no_grad():
        features = packed(model, lengths)
    assert torch.equal(features, packed(model, lengths))


def test_what_is_dropped_does_not_depend_on_whether_gradients_are_kept() -> None:
    model = model_of(num_heads=2, dropout=0.0, attention_dropout=0.5).train()
    lengths, found = [70, 3, 40], []
    for keeps, seed in ((True, 1), (False, 1), (False, 2)):
        model.draw_dropout_from(torch.Generator().manual_seed(seed))
        with torch.set_grad_enabled(keeps):
            found.append(packed(model, lengths).detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


DROPOUTS: list[dict[str, object]] = [
    {"dropout": 0.5},
    {"dropout": 0.2, "gates": True, "hidden_units": 5, "num_heads": 1},
    {"dropout": 0.0, "attention_dropout": 0.3, "norm": "pre"},
    {"dropout": 0.0, "embedding_dropout": 0.4, "norm": "post"},
    {"dropout": 0.3, "activation": "swiglu", "positions": "rotary", "hidden_units": 8},
    {"dropout": 0.3, "activation": "gelu", "feed_forward_factor": 3},
]


@pytest.mark.parametrize("changes", DROPOUTS, ids=str)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
def test_dropout_falls_where_it_does_in_torch(
    changes: dict[str, object], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape: dict[str, Any] = {"num_heads": 2, "num_blocks": 2} | changes
    model = model_of(**shape)
    drawn = Drawn(monkeypatch)
    features = packed(model, [length])
    grads = gradients(model, features)
    masks = masks_of(iter(drawn.masks), model, length)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, GivenMasks(masks))
    expected = in_torch(model, [length])
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    exact = gradients(model, expected)
    largest = max(value.abs().max().item() for value in exact.values())
    for name, value in exact.items():
        torch.testing.assert_close(grads[name], value, rtol=1e-4, atol=1e-5 * largest, msg=name)
    assert next(masks, None) is None


def masks_of(drawn: Iterator[Mask], model: SASRec, length: int) -> Iterator[Tensor]:
    """The masks of one row, in the order in which either way asks for them."""
    config = model.config
    inner = config.hidden_units * config.feed_forward_factor
    yield of_tokens(next(drawn), length, config.hidden_units)
    for _ in range(config.num_blocks):
        yield of_attention(next(drawn), length, config.num_heads)
        yield of_tokens(next(drawn), length, inner)
        yield of_tokens(next(drawn), length, config.hidden_units)
    assert next(drawn, None) is None


class Operation(nn.Module):
    """One operation of rows, with weights of its own and an input that takes gradients."""

    def __init__(self, units: int, inner: int, heads: int, tokens: int) -> None:
        super().__init__()
        positions = "rotary" if units // heads % 2 == 0 else "none"
        shape: dict[str, Any] = {"hidden_units": units, "num_heads": heads}
        config = original_model(positions=positions, dropout=0, **shape)
        self.attention = CausalAttention(config, torch.Generator())
        self.linear, self.gate = nn.Linear(inner, units), nn.Linear(units, units)
        self.norm = nn.LayerNorm(units, eps=1e-8)
        self.base, self.gated = (nn.Parameter(torch.randn(tokens, units)) for _ in range(2))
        self.inner = nn.Parameter(torch.randn(tokens, inner))
        shake(self, 1)


@settings(max_examples=25)
@given(
    units=st.sampled_from([4, 7, 8, 31, 50]),
    inner=st.sampled_from([1, 2, 7, 64]),
    lengths=lengths_of_rows,
    gated=st.booleans(),
    of_sum=st.booleans(),
)
def test_a_sublayer_joins_as_in_torch(
    units: int, inner: int, lengths: list[int], gated: bool, of_sum: bool
) -> None:
    """With a gate and without, with a gradient of the sum and without."""
    torch.manual_seed(0)
    op = Operation(units, inner, 1, sum(lengths))

    def joined(rows: Rows) -> Tensor:
        gate = (op.gate, op.gated) if gated else None
        total, normed = rows.join(op.base, op.inner, op.linear, None, gate, op.norm)
        return torch.cat([total, normed]) if of_sum else normed

    results, expected = joined(packed_rows(lengths)), joined(padded_rows(lengths))
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-4)
    exact = gradients(op, expected)
    for name, value in gradients(op, results).items():
        torch.testing.assert_close(value, exact[name], rtol=1e-3, atol=1e-3, msg=name)


@settings(max_examples=25)
@given(
    units=st.sampled_from([1, 2, 3, 9, 50]),
    inner=st.sampled_from([1, 2, 7, 64]),
    tokens=st.integers(1, 70),
    activation=st.sampled_from(["relu", "gelu", "swiglu"]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_activations_are_those_of_torch(
    units: int, inner: int, tokens: int, activation: str, scale: float
) -> None:
    """Near 0 and far from it, where exponentials are 0 or overflow."""
    torch.manual_seed(0)
    linear, dropout = nn.Linear(units, 2 * inner), Dropout(0.0, torch.Generator())
    x = scale * torch.randn(tokens, units)
    results, expected = (
        rows.activate(x, linear, activation, dropout)
        for rows in (packed_rows([tokens]), padded_rows([tokens]))
    )
    assert_same(linear, results, expected)


@settings(max_examples=20)
@given(lengths=lengths_of_rows, heads=st.sampled_from([1, 2, 4]), separate=st.booleans())
def test_attention_is_that_of_torch(lengths: list[int], heads: int, separate: bool) -> None:
    """With rotary positions, of queries from what is attended to or from something else."""
    torch.manual_seed(0)
    op = Operation(4 * heads, 4, heads, sum(lengths))
    query = op.gated if separate else op.base
    results = packed_rows(lengths).attend(op.attention, query, op.base)
    on_padded = (padded(query, lengths), padded(op.base, lengths))
    expected = flat(padded_rows(lengths).attend(op.attention, *on_padded), lengths)
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)
    exact = gradients(op, expected)
    for name, value in gradients(op, results).items():
        torch.testing.assert_close(value, exact[name], rtol=1e-4, atol=1e-4, msg=name)


def test_scores_far_apart_do_not_overflow() -> None:
    torch.manual_seed(0)
    op = Operation(4, 4, 1, 40)
    x = 100 * op.base
    results = packed_rows([40]).attend(op.attention, x, x)
    expected = padded_rows([40]).attend(op.attention, x[None], x[None])[0]
    torch.testing.assert_close(results, expected, rtol=1e-3, atol=1e-2)


def test_a_seed_repeats_the_masks_and_another_does_not() -> None:
    def features(seed: int) -> Tensor:
        model = model_of(dropout=0.5)
        model.draw_dropout_from(torch.Generator().manual_seed(seed))
        return packed(model, [40, 3])

    assert torch.equal(features(0), features(0))
    assert not torch.equal(features(0), features(1))


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_number_of_threads_changes_the_rounding_only(p: float) -> None:
    """Masks depend on the place of an element, whoever draws them."""
    threads, lengths, results = torch.get_num_threads(), [80] * 10 + [3, 17, 70, 1], []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            model = model_of(dropout=p, num_heads=2)
            features = packed(model, lengths)
            results.append([features.detach(), *gradients(model, features).values()])
            results[-1].append(queries(model.eval(), lengths))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_a_score_that_is_no_number_stays_one() -> None:
    model = model_of()
    with torch.no_grad():
        model.items.weight[7] = torch.nan
    features = model.encode(model.items.weight, torch.tensor([3, 7, 5]), packed_rows([3]))
    assert features.isnan().any(dim=1)[1:].all()


@pytest.mark.parametrize(("item", "length"), [(ITEMS + 1, 2), (-1, 2), (1, 0), (1, MOST + 1)])
def test_what_is_no_item_and_no_length_is_refused(item: int, length: int) -> None:
    with torch.no_grad(), pytest.raises(IndexError, match="must be"):
        model_of().eval().queries(torch.full((1, MOST + 1), item), torch.tensor([length]))


def test_a_batch_does_not_touch_what_an_earlier_one_needs() -> None:
    model = model_of()
    alone = gradients(model, packed(model, [30, 2]))
    first, _ = packed(model, [30, 2]), packed(model, [4, 70])
    after = gradients(model, first)
    for name, value in alone.items():
        assert torch.equal(after[name], value)


def test_going_back_twice_is_refused() -> None:
    """By then, the memory of the attention weights may serve another batch."""
    total = packed(model_of(), [30, 2]).sum()
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="once only"):
        total.backward()  # type: ignore[no-untyped-call]


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
