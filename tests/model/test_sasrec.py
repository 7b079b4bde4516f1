"""SASRec: causal, blind to padding, and what its generator decides."""

import cmath
import math
from typing import Any, cast

import pytest
import torch
from reference import plain_copy
from support.small_data import original_model
from torch import Tensor, nn

from tune_srs.model.attention import angles_of, turned
from tune_srs.model.dropout import Dropout
from tune_srs.model.packed import PackedRows
from tune_srs.model.padded import PaddedRows
from tune_srs.model.sasrec import Block, SASRec

ITEMS = 30


def model_of(seed: int = 0, **settings: object) -> SASRec:
    config = original_model(**{"max_length": 12, "hidden_units": 8, "dropout": 0} | settings)
    return SASRec(config, ITEMS, torch.Generator().manual_seed(seed))


def encode(model: SASRec, items: Tensor, lengths: list[int]) -> Tensor:
    """Features (B, L, D) of `items` (B, L)."""
    rows, items = PaddedRows.of(items, torch.tensor(lengths))
    return model.encode(model.items.weight, items, rows)


def through(block: Block, x: Tensor) -> Tensor:
    """What a block makes of `x` (B, L, D), rows without padding."""
    rows = PaddedRows(torch.arange(x.shape[1], 0, -1).expand(x.shape[:2]))
    normed = x if block.norm == "post" else block.attention_norm(x)
    result: Tensor = block(x, normed, rows, nn.Identity())[0]
    return result


def score(model: SASRec, items: Tensor, lengths: list[int]) -> Tensor:
    return model.scores(model.queries(items, torch.tensor(lengths)), slice(0, ITEMS + 1))


def random_items(*shape: int) -> Tensor:
    return torch.randint(1, ITEMS + 1, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_later_items_do_not_change_earlier_features(training: bool, num_heads: int) -> None:
    model = model_of(num_heads=num_heads).train(training)
    items = random_items(3, 10)
    changed = items.clone()
    changed[:, 6:] = 1 + (changed[:, 6:] % ITEMS)
    before, after = encode(model, items, [10, 10, 10]), encode(model, changed, [10, 10, 10])
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("training", [True, False])
def test_padding_and_neighbours_in_the_batch_do_not_matter(training: bool) -> None:
    model = model_of(num_heads=2).train(training)
    history = random_items(1, 5)
    alone = encode(model, history, [5])
    padded = torch.zeros(2, 9, dtype=torch.int64)
    padded[0, :5], padded[1] = history[0], random_items(9)
    together = encode(model, padded, [5, 9])
    torch.testing.assert_close(together[:1, :5], alone)


def test_training_without_dropout_equals_evaluation() -> None:
    model = model_of(num_heads=2)
    items = random_items(4, 7)
    torch.testing.assert_close(
        encode(model.train(), items, [7] * 4), encode(model.eval(), items, [7] * 4)
    )


def test_scores_are_products_of_the_last_feature_and_the_items() -> None:
    model = model_of().eval()
    items = random_items(2, 6)
    items[0, 4:] = 0
    features = encode(model, items, [4, 6])
    scores = score(model, items, [4, 6])
    assert scores.shape == (2, ITEMS + 1)
    for row, last in ((0, 3), (1, 5)):
        for item in (1, 7, ITEMS):
            expected = features[row, last] @ model.items.weight[item]
            torch.testing.assert_close(scores[row, item], expected)


def test_the_padding_row_is_zero_and_stays_so() -> None:
    model = model_of(dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    items = random_items(4, 8)
    items[:2, 5:] = 0
    for _ in range(3):
        optimizer.zero_grad()
        features = encode(model, items, [5, 5, 8, 8])[items > 0]
        features.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.equal(model.items.weight[0], torch.zeros(8))
    assert (model.items.weight[1:] != 0).any(dim=1).all()


def test_the_seed_decides_the_weights() -> None:
    same, other = model_of(seed=5), model_of(seed=6)
    for name, value in model_of(seed=5).state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(same.items.weight, other.items.weight)


def test_the_original_starts_with_weights_as_wide_as_those_of_the_papers_code() -> None:
    """One matrix (3 D, D) of query, key and value; biases of torch's convolutions."""
    units = 96
    model = SASRec(original_model(hidden_units=units, num_heads=1), 50, torch.Generator())
    block = cast(Block, model.blocks[0])
    xavier = math.sqrt(2 / (units + 3 * units))
    for layer in (block.attention.query, block.attention.key_value):
        assert layer.weight.std().item() == pytest.approx(xavier, rel=0.03)
        assert (layer.bias == 0).all()
    assert block.attention.output.weight.std().item() == pytest.approx(
        math.sqrt(1 / units), rel=0.03
    )
    bound = 1 / math.sqrt(units)
    for inner in block.feed_forward:
        if isinstance(inner, nn.Linear):
            assert inner.bias.abs().max() <= bound
            assert inner.bias.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_the_order_of_a_history_matters() -> None:
    model = model_of().eval()
    items = random_items(1, 6)
    forwards, backwards = (score(model, x, [6]) for x in (items, items.flip(1)))
    assert not torch.allclose(forwards, backwards)


def test_dropout_falls_on_embeddings_attention_and_feed_forward() -> None:
    model = model_of(num_heads=2, num_blocks=3, dropout=0.5).train()
    shapes: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, Dropout):
            module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    encode(model, random_items(4, 7), [7] * 4)
    features, weights = (4, 7, 8), (4, 2, 7, 7)
    assert shapes == [features, *[weights, features, features] * 3]


def test_all_dropout_is_drawn_from_the_generator_given() -> None:
    items = random_items(4, 7)

    def features_after(drawn_before: int) -> Tensor:
        model = model_of(dropout=0.5).train()
        encode(model, items[:drawn_before], [7] * drawn_before)  # moves the generator it came with
        model.draw_dropout_from(torch.Generator().manual_seed(1))
        return encode(model, items, [7] * 4)

    assert torch.equal(features_after(1), features_after(3))


@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_scores_equal_those_of_the_plain_model(num_blocks: int, num_heads: int) -> None:
    shape = original_model(
        max_length=12, hidden_units=8, num_blocks=num_blocks, num_heads=num_heads
    )
    model = SASRec(shape, ITEMS, torch.Generator().manual_seed(0)).eval()
    plain = plain_copy(model, shape).eval()
    items, lengths = random_items(3, 12), [1, 5, 12]
    aligned_right = torch.zeros_like(items)
    for row, length in enumerate(lengths):
        items[row, length:] = 0
        aligned_right[row, 12 - length :] = items[row, :length]
    expected = plain(aligned_right)[:, -1] @ plain.items.weight.T
    torch.testing.assert_close(score(model, items, lengths), expected)


def test_fused_attention_computes_the_same() -> None:
    features, gradients = [], []
    for fused in (False, True):
        model = model_of(num_heads=2).double().train()
        if fused:
            model.fuse_attention()
        features.append(encode(model, random_items(3, 10), [4, 10, 7]))
        features[-1].pow(3).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    torch.testing.assert_close(*features)
    torch.testing.assert_close(*gradients)


def test_fused_attention_has_dropout_in_training_only() -> None:
    model = model_of(dropout=0.5)
    model.fuse_attention()
    attention = cast(Block, model.blocks[0]).attention
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

    def run(training: bool, seed: int) -> Tensor:
        torch.manual_seed(seed)
        rows = PaddedRows(torch.arange(5, 0, -1).expand(2, 5))
        return rows.attend(attention.train(training), x, x)

    assert not torch.equal(run(True, 0), run(True, 1))
    assert torch.equal(run(True, 0), run(True, 0))
    assert torch.equal(run(False, 0), run(False, 1))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_pre_or_post_normed_block_is_torchs_encoder_layer(norm: str, activation: str) -> None:
    shape: dict[str, Any] = {
        "norm": norm,
        "activation": activation,
        "feed_forward_factor": 3,
        "num_heads": 2,
    }
    block = cast(Block, with_biases(model_of(**shape)).blocks[0]).eval()
    layer = nn.TransformerEncoderLayer(
        8, 2, 24, 0.0, activation, 1e-8, batch_first=True, norm_first=norm == "pre"
    )
    attention = block.attention
    names = {
        "self_attn.in_proj_weight": torch.cat([attention.query.weight, attention.key_value.weight]),
        "self_attn.in_proj_bias": torch.cat([attention.query.bias, attention.key_value.bias]),
        "self_attn.out_proj.weight": attention.output.weight,
        "self_attn.out_proj.bias": attention.output.bias,
    }
    for theirs, ours in (
        ("linear1", block.feed_forward[0]),
        ("linear2", block.feed_forward[3]),
        ("norm1", block.attention_norm),
        ("norm2", block.feed_forward_norm),
    ):
        names |= {f"{theirs}.{name}": value for name, value in ours.named_parameters()}
    layer.load_state_dict({name: value.detach() for name, value in names.items()})
    x = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(0))
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    expected = layer.train()(x, src_mask=mask, is_causal=True)
    torch.testing.assert_close(through(block, x), expected, rtol=1e-4, atol=1e-5)


def with_biases(model: SASRec) -> SASRec:
    """Biases and gains that are not 0 and 1."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, generator=generator)
    return model


def test_a_gated_block_of_swiglu_is_ligrs() -> None:
    """X + sigmoid(W x + b) f(norm x), of attention and of W3 (swish(W1 x) * W2 x)."""
    shape: dict[str, Any] = {
        "norm": "pre",
        "gates": True,
        "activation": "swiglu",
        "feed_forward_factor": 2,
    }
    block = cast(Block, with_biases(model_of(**shape)).blocks[0]).eval()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    normed = block.attention_norm(x)
    rows = PaddedRows(torch.arange(5, 0, -1).expand(2, 5))
    attended = block.attention.output(rows.attend(block.attention, normed, normed))
    first, second = (cast(nn.Linear, gate.linear) for gate in block.gates)
    middle = x + torch.sigmoid(x @ first.weight.T + first.bias) * attended
    inner, outer = cast(nn.Linear, block.feed_forward[0]), cast(nn.Linear, block.feed_forward[3])
    normed = block.feed_forward_norm(middle)
    one = normed @ inner.weight[:16].T + inner.bias[:16]
    other = normed @ inner.weight[16:].T + inner.bias[16:]
    added = (one * torch.sigmoid(one) * other) @ outer.weight.T + outer.bias
    expected = middle + torch.sigmoid(middle @ second.weight.T + second.bias) * added
    torch.testing.assert_close(through(block, x), expected, rtol=1e-5, atol=1e-5)


def test_rotary_positions_turn_pairs_as_complex_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, place = torch.randn(6, 2, 8, generator=generator), torch.tensor([0, 1, 5, 9, 100, 3])
    found_of = turned(x, *(part[:, None] for part in angles_of(place, 8)))
    for t, where in enumerate(place.tolist()):
        for head in range(2):
            for pair in range(4):
                number = complex(x[t, head, pair], x[t, head, pair + 4])
                number *= cmath.exp(1j * where / 10_000 ** (2 * pair / 8))
                found = complex(found_of[t, head, pair], found_of[t, head, pair + 4])
                assert abs(found - number) < 1e-5


def test_with_rotary_positions_only_the_distance_counts() -> None:
    """Of a long history that is cut, what is left has the same attention."""
    model = model_of(positions="rotary", num_blocks=1).eval()
    items = random_items(1, 12)
    here, shifted = (
        model.encode(model.items.weight, items, PaddedRows(torch.arange(12, 0, -1)[None] + shift))
        for shift in (0, 50)
    )
    torch.testing.assert_close(shifted, here, rtol=1e-4, atol=1e-4)


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    positions = model_of(positions="sinusoidal").positions
    assert positions is not None
    table = cast(Tensor, positions.weight)
    for place in range(12):
        for pair in range(4):
            angle = place / 10_000 ** (2 * pair / 8)
            assert table[place, pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, pair + 4].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_without_positions_the_order_before_the_last_does_not_matter() -> None:
    model = model_of(positions="none", num_blocks=1).eval()
    items = random_items(1, 6)
    other = items[:, [3, 1, 0, 4, 2, 5]]
    torch.testing.assert_close(score(model, items, [6]), score(model, other, [6]))


def test_the_bias_of_an_item_is_in_its_score() -> None:
    model = model_of(item_bias=True).eval()
    items = random_items(2, 6)
    before = score(model, items, [6, 6])
    with torch.no_grad():
        cast(nn.Parameter, model.item_bias)[7] = 3
    changed = score(model, items, [6, 6]) - before
    torch.testing.assert_close(changed[:, 7], torch.full((2,), 3.0))
    assert not changed[:, torch.arange(ITEMS + 1) != 7].any()


def test_the_dropouts_can_differ() -> None:
    model = model_of(dropout=0.5, embedding_dropout=0.25, attention_dropout=0.0)
    block = cast(Block, model.blocks[0])
    assert (model.dropout.p, block.attention.dropout.p) == (0.25, 0.0)
    assert cast(Dropout, block.feed_forward[2]).p == 0.5


def test_the_device_decides_once_how_rows_are_computed() -> None:
    config = original_model(max_length=12, hidden_units=8)
    generator = torch.Generator()
    assert SASRec(config, ITEMS, generator).rows is PackedRows
    assert SASRec(config, ITEMS, generator, torch.device("cuda")).rows is PaddedRows
