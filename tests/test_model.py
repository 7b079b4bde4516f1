"""SASRec: causal, blind to padding, and what its generator decides."""

from typing import cast

import pytest
import torch
from reference import plain_copy
from torch import Tensor

from tune_srs.config import ModelConfig
from tune_srs.dropout import Dropout
from tune_srs.model import Block, SASRec

ITEMS = 30


def model_of(seed: int = 0, **settings: object) -> SASRec:
    config = ModelConfig.model_validate(
        {"max_length": 12, "hidden_units": 8, "dropout": 0} | settings
    )
    return SASRec(config, ITEMS, torch.Generator().manual_seed(seed))


def encode(model: SASRec, items: Tensor, lengths: list[int]) -> Tensor:
    """Features (B, L, D) of `items` (B, L)."""
    following = torch.tensor(lengths)[:, None] - torch.arange(items.shape[1])
    return model.encode(model.items(items), following.clamp(min=0))


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
        encode(model, items, [5, 5, 8, 8]).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.equal(model.items.weight[0], torch.zeros(8))
    assert (model.items.weight[1:] != 0).any(dim=1).all()


def test_the_seed_decides_the_weights() -> None:
    same, other = model_of(seed=5), model_of(seed=6)
    for name, value in model_of(seed=5).state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(same.items.weight, other.items.weight)


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
    shape = ModelConfig(max_length=12, hidden_units=8, num_blocks=num_blocks, num_heads=num_heads)
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
    inputs = torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(0))

    def run(training: bool, seed: int) -> Tensor:
        torch.manual_seed(seed)
        output: Tensor = attention.train(training)(*inputs)
        return output

    assert not torch.equal(run(True, 0), run(True, 1))
    assert torch.equal(run(True, 0), run(True, 0))
    assert torch.equal(run(False, 0), run(False, 1))
