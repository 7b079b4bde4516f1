"""The loss against plain loops, by itself and through the whole training step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import plain_batch, plain_copy, plain_loss, plain_names
from small_data import random_sequences
from torch import Tensor

from tune_srs.batches import Batches, NegativeSampler
from tune_srs.config import LossConfig, ModelConfig, TrainConfig, TrialConfig
from tune_srs.losses import multi_positive_bce
from tune_srs.model import SASRec
from tune_srs.relevance import loss_weights
from tune_srs.training import BatchLoss

CPU = torch.device("cpu")


def looped_loss(
    positives: list[list[float]],
    negatives: list[list[float]],
    exists: list[list[bool]],
    weights: list[float],
    positive_weight: float,
) -> float:
    attracted, pairs, repelled, draws = 0.0, 0, 0.0, 0
    for row, there in zip(positives, exists, strict=True):
        for score, weight, real in zip(row, weights, there, strict=True):
            if real:
                attracted += weight * math.log1p(math.exp(-score))
                pairs += 1
    for row, there in zip(negatives, exists, strict=True):
        for score in row:
            if there[0]:  # an input: something follows it
                repelled += math.log1p(math.exp(score))
                draws += 1
    return positive_weight * attracted / pairs + repelled / draws


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 6),
    num_positives=st.integers(1, 5),
    num_negatives=st.integers(1, 5),
    positive_weight=st.floats(0.1, 10),
)
def test_value_and_gradient_equal_plain_loops(
    seed: int, tokens: int, num_positives: int, num_negatives: int, positive_weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * 3

    positives = draw(tokens, num_positives).requires_grad_()
    negatives = draw(tokens, num_negatives).requires_grad_()
    exists = draw(tokens, num_positives) > 0
    exists[0] = True
    weights = draw(num_positives).exp()
    loss = multi_positive_bce(positives, negatives, exists, weights, positive_weight)
    plain = looped_loss(
        positives.tolist(), negatives.tolist(), exists.tolist(), weights.tolist(), positive_weight
    )
    assert loss.item() == pytest.approx(plain, rel=1e-9)

    loss.backward()  # type: ignore[no-untyped-call]
    assert positives.grad is not None
    assert negatives.grad is not None
    pairs, draws = int(exists.sum()), int(exists[:, 0].sum()) * num_negatives
    for t in range(tokens):
        for j in range(num_positives):
            slope = -1 / (1 + math.exp(positives[t, j].item()))  # d log(1 + e^-s) / ds
            expected = positive_weight * weights[j].item() * slope / pairs if exists[t, j] else 0
            assert positives.grad[t, j].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        for n in range(num_negatives):
            slope = 1 / (1 + math.exp(-negatives[t, n].item()))
            expected = slope / draws if exists[t, 0] else 0
            assert negatives.grad[t, n].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


class Remembering(NegativeSampler):
    """Remembers what it drew."""

    drawn: Tensor

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        self.drawn = super().sample(users, count, generator)
        return self.drawn


@pytest.mark.parametrize("normalization", ["mean", "original"])
@pytest.mark.parametrize("relevance_name", ["fixed", "linear", "power", "exponential"])
@pytest.mark.parametrize(
    ("num_positives", "num_negatives", "padded", "embedding_update"),
    [(1, 1, False, "all"), (3, 2, True, "all"), (4, None, False, "touched")],
)
def test_a_batch_equals_plain_loops_with_every_gradient(
    normalization: str,
    relevance_name: str,
    num_positives: int,
    num_negatives: int | None,
    padded: bool,
    embedding_update: str,
) -> None:
    sequences = random_sequences(seed=num_positives)
    loss_config = LossConfig(
        num_positives=num_positives,
        num_negatives=num_negatives,
        relevance=relevance_name,
        normalization=normalization,
        positive_weight=1.7,
    )
    shape = ModelConfig(max_length=6, hidden_units=8, num_heads=2, dropout=0)
    generator = torch.Generator().manual_seed(3)
    model = SASRec(shape, sequences.num_items, generator).train()
    sampler = Remembering(sequences, CPU)
    batches = Batches(sequences, 100, 6, CPU, padded)
    (users,) = batches.epoch(generator)
    batch = batches.batch(users)
    config = TrialConfig(
        model=shape, loss=loss_config, train=TrainConfig(embedding_update=embedding_update)
    )
    loss = BatchLoss(config, sampler, CPU)(model, batch, generator)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {
        name: value.grad.to_dense()
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    negatives: dict[int, list[list[int]]] = {}
    for user, row in zip(
        batch.users[batch.following > 0].tolist(),
        sampler.drawn[batch.following > 0].tolist(),
        strict=True,
    ):
        negatives.setdefault(user, []).append(row)
    plain = plain_copy(model, shape).train()
    plain_inputs = plain_batch(sequences, list(negatives), 6, num_positives, negatives)
    expected = plain_loss(plain, plain_inputs, loss_config)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    renamed = plain_names(gradients, shape.num_blocks)
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(renamed.pop(name), parameter.grad, rtol=1e-4, atol=1e-5)
    assert not renamed


def test_with_one_positive_the_relevance_does_not_matter() -> None:
    losses = set()
    for name in ("fixed", "linear", "power", "exponential"):
        weights = loss_weights(name, 1, None, "mean")
        scores, exists = torch.tensor([[0.3], [-1.0]]), torch.ones(2, 1, dtype=torch.bool)
        losses.add(multi_positive_bce(scores, scores, exists, weights).item())
    assert len(losses) == 1
