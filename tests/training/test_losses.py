"""Every loss against plain loops, values and gradients, through the whole training step."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plain_losses import Position, loss_in_loops, positives_factor, weights_in_loops
from support.small_data import original_model, random_split
from torch import Tensor

from tune_srs.config.settings import LossConfig, TrialConfig
from tune_srs.datasets.histories import Histories
from tune_srs.errors import ConfigError
from tune_srs.model.padded import PaddedRows
from tune_srs.model.sasrec import SASRec
from tune_srs.relevance import LearnedRelevance
from tune_srs.training import losses
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batch_negatives import num_negatives
from tune_srs.training.batches import Batch, Batches

CPU = torch.device("cpu")
TYPES = ("bce", "gbce", "bpr", "softmax", "sampled_softmax")
RELEVANCES = ("fixed", "linear", "power", "exponential", "reciprocal", "gaussian", "time")
MOST = 6  # items of a history that are seen
CASES = [
    {"type": kind, "relevance": name, "normalization": normalization}
    for kind, name, normalization in itertools.product(TYPES, RELEVANCES, ("mean", "original"))
]
CASES += [{"type": kind, "relevance": "learned"} for kind in TYPES]
MORE = [
    {"type": "bce", "positive_weight": 1.7, "label_smoothing": 0.2},
    {"type": "bce", "share_negatives": True, "num_negatives": 9},
    {"type": "bce", "negative_popularity": 0.8},
    {"type": "gbce", "calibration": 0.0, "num_negatives": 5, "positive_weight": 0.4},
    {"type": "gbce", "calibration": 1.0, "num_negatives": 19},
    {"type": "bpr", "share_negatives": True, "num_negatives": 7},
    {"type": "softmax", "label_smoothing": 0.3, "relevance": "linear"},
    {"type": "bce", "negatives_from": "catalogue", "num_negatives": 4},
    {"type": "gbce", "negatives_from": "catalogue", "num_negatives": 4},
    {"type": "bce", "negatives_from": "catalogue", "share_negatives": True, "num_negatives": 6},
    {"type": "sampled_softmax", "num_negatives": 12, "in_batch_negatives": 0.5, "log_q": True},
    {"type": "sampled_softmax", "num_negatives": 12, "in_batch_negatives": 0.5},
    {"type": "sampled_softmax", "num_negatives": 8, "negative_popularity": 0.5, "log_q": True},
    {"type": "sampled_softmax", "label_smoothing": 0.3, "num_negatives": 4},
    {"type": "sampled_softmax", "share_negatives": True},
    {"type": "sampled_softmax", "share_negatives": True, "log_q": True, "in_batch_negatives": 0.4},
    {"type": "sampled_softmax", "negatives_from": "unseen", "num_negatives": 4},
]


def timed_histories(seed: int) -> Histories:
    """Random histories with repeats, and times of minutes to weeks between the items."""
    histories = random_split(seed, users=5, items=20).training
    random = np.random.default_rng(seed)
    gaps = (10 ** random.uniform(1, 6, len(histories.items))).astype(np.int64)
    times = np.cumsum(gaps)
    return replace(histories, times=times)


class Setup:
    """A batch of everyone, a model, and the loss as the trainer makes it."""

    def __init__(self, loss: dict[str, Any], seed: int = 0, **changes: Any) -> None:
        self.histories = timed_histories(seed)
        shape = {"max_length": MOST, "hidden_units": 8, "num_heads": 2, "dropout": 0.0}
        model = original_model(**shape | changes.pop("model", {}))
        sample = {"num_negatives": 10} if loss["type"] == "sampled_softmax" else {}
        config = LossConfig.model_validate({"num_positives": 3} | sample | loss)
        self.config = TrialConfig(model=model, loss=config)
        generator = torch.Generator().manual_seed(seed)
        self.model = SASRec(model, 20, generator).train()
        if self.model.item_bias is not None:
            torch.nn.init.normal_(self.model.item_bias, generator=generator)
        self.learned = None
        if config.relevance == "learned":
            self.learned = LearnedRelevance(config.num_positives, config.rate)
            torch.nn.init.normal_(self.learned.logits, generator=torch.Generator().manual_seed(2))
        batches = Batches(self.histories, 100, MOST, CPU, changes.pop("padded", False))
        (users,) = batches.epoch(generator)
        self.batch: Batch = batches.batch(users)
        self.loss_of = BatchLoss(
            self.config, self.histories, CPU, relevance=self.learned, **changes
        )
        self.drawn: Tensor | None = None
        self.counted: Tensor | None = None
        self.place_weights: Tensor | None = None  # of learned relevance
        self._remember()

    def _remember(self) -> None:
        """Keep what is drawn."""
        draw = self.loss_of.negatives

        def drawing(*given: Any) -> Any:
            result = draw(*given)
            self.drawn, self.counted = result[:2]
            return result

        self.loss_of.negatives = drawing  # type: ignore[assignment]

    def loss(self) -> Tensor:
        return self.loss_of(self.model, self.batch, torch.Generator().manual_seed(1))

    def parameters(self) -> dict[str, Tensor]:
        modules = [self.model] if self.learned is None else [self.model, self.learned]
        return {name: value for module in modules for name, value in module.named_parameters()}

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        for parameter in self.parameters().values():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.to_dense().clone()
            for name, p in self.parameters().items()
        }

    def in_loops(self) -> Tensor:
        """The same loss from the same features and draws, position by position."""
        features = self._features()
        config = self.config.loss
        if self.learned is not None:
            logits = self.learned.logits.detach().double()
            there = (self.batch.positives(config.num_positives)[1].sum(dim=0) > 0).double()
            shares = there * logits.exp() / (there * logits.exp()).sum()
            self.place_weights = (there.sum() * shares).requires_grad_()
        positions = list(self._positions(features))
        near = round(num_negatives(config) * config.in_batch_negatives)

        def expected(item: int, user: int) -> float:
            if not config.log_q:
                return 1.0
            counts = np.bincount(self.histories.items, minlength=21)[1:]
            users = range(self.histories.num_users)
            targets = [target for user in users for target in self._window(user)[1:]]
            a = config.negative_popularity
            chance = counts**a / (counts**a).sum() if a else np.full(20, 1 / 20)
            rest = num_negatives(config) - near
            others = near * targets.count(item) / len(targets) * (item not in self._known(user))
            return float(others + rest * chance[item - 1])

        loss = loss_in_loops(config, positions, 20, expected)
        return loss if self.learned is None else loss + self._criterion(positions, loss)

    def _criterion(self, positions: list[Position], loss: Tensor) -> Tensor:
        """What the logits minimise, as 0: mean_j w_j l_j - rate mean_j log w_j of the places j."""
        assert self.learned is not None
        assert self.place_weights is not None
        (slopes,) = torch.autograd.grad(loss, self.place_weights, retain_graph=True)
        config = self.config.loss
        factor = positives_factor(config, num_negatives(config), 20)
        numbers = [0] * config.num_positives
        for position in positions:
            for place in range(len(position.positives)):
                numbers[place] += 1
        places = [place for place, number in enumerate(numbers) if number]
        logits = self.learned.logits.double()
        total = sum(logits[place].exp() for place in places)
        terms = []
        assert self.place_weights is not None
        weights = self.place_weights.tolist()
        pairs = sum(n * w for n, w in zip(numbers, weights, strict=True))
        for place in places:
            weight = len(places) * logits[place].exp() / total
            # the loss is linear in it
            own = slopes[place].detach() * pairs / (factor * numbers[place])
            terms.append(weight * own - self.learned.rate * torch.log(weight))
        criterion = torch.stack(terms).mean()
        return criterion - criterion.detach()

    def _features(self) -> dict[tuple[int, int], Tensor]:
        """Of the user's t-th input, by the encoder row by row."""
        found: dict[tuple[int, int], Tensor] = {}
        for user in range(self.histories.num_users):
            window = self._window(user)
            count = len(window) - 1
            if count > 0:
                following = torch.arange(count, 0, -1)[None]
                items = torch.tensor([window[:-1]])
                rows = self.model.encode(self.model.items.weight, items, PaddedRows(following))[0]
                found |= {(user, t): rows[t] for t in range(count)}
        return found

    def _window(self, user: int) -> list[int]:
        start, stop = self.histories.offsets[user : user + 2]
        items: list[int] = self.histories.items[start:stop].tolist()
        return items[-MOST - 1 :]

    def _positions(self, features: dict[tuple[int, int], Tensor]) -> Iterator[Position]:
        config, table = self.config.loss, self.model.items.weight.double()
        bias = self.model.item_bias
        tokens = [i for i, ahead in enumerate(self.batch.following.tolist()) if ahead > 0]
        place: dict[int, int] = {}
        for token in tokens:
            user = int(self.batch.users[token])
            t = place.get(user, 0)
            place[user] = t + 1
            window = self._window(user)
            positives = window[t + 1 : t + 1 + config.num_positives]

            scores = table @ features[user, t].double() + (0 if bias is None else bias.double())
            score = scores.unbind().__getitem__
            stop = self.histories.offsets[user + 1]
            times = self.histories.times
            assert times is not None
            own = times[stop - len(window) : stop]
            days = [(own[t + 1 + j] - own[t]) / 86_400 for j in range(len(positives))]
            negatives = self._negatives(token, user)
            yield Position(score, positives, self._weights(days), negatives, user)

    def _weights(self, days: list[float]) -> list[Any]:
        config = self.config.loss
        if self.learned is not None:
            assert self.place_weights is not None
            return list(self.place_weights[: len(days)].unbind())
        given = (config.relevance, config.num_positives, config.rate, config.normalization)
        if config.relevance == "time":
            return weights_in_loops(*given, days)
        return weights_in_loops(*given)[: len(days)]

    def _negatives(self, token: int, user: int) -> list[int]:
        """Those that count, by rules of their own; the positives are left to the loss."""
        if self.drawn is None:
            return []
        config, known = self.config.loss, self._known(user)
        items: list[int] = (self.drawn if self.drawn.dim() == 1 else self.drawn[token]).tolist()
        near = round(num_negatives(config) * config.in_batch_negatives)
        far = items[: len(items) - near]
        if config.type == "sampled_softmax" or config.negatives_from == "catalogue":
            return far + [item for item in items[len(far) :] if item not in known]
        outside = [item for item in items if item not in known]
        assert config.share_negatives or len(outside) == len(items)
        return outside

    def _known(self, user: int) -> set[int]:
        start, stop = self.histories.offsets[user : user + 2]
        return set(self.histories.items[start:stop].tolist())


def assert_same(setup: Setup) -> None:
    loss = setup.loss()
    expected = setup.in_loops()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    ours, theirs = setup.gradients(loss), setup.gradients(expected)
    largest = max(value.abs().max().item() for value in theirs.values())
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("loss", CASES, ids=lambda loss: "-".join(loss.values()))
def test_every_loss_relevance_and_normalisation_equals_plain_loops(loss: dict[str, Any]) -> None:
    """To 1e-5, value and every gradient."""
    assert_same(Setup(loss))


@pytest.mark.parametrize("loss", MORE, ids=str)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("item_bias", [False, True])
def test_every_other_setting_equals_plain_loops(
    loss: dict[str, Any], padded: bool, item_bias: bool
) -> None:
    assert_same(Setup(loss, padded=padded, model={"item_bias": item_bias}))


@settings(max_examples=25)
@given(
    kind=st.sampled_from(TYPES),
    name=st.sampled_from([*RELEVANCES, "learned"]),
    num_positives=st.integers(1, 5),
    num_negatives=st.integers(1, 6),
    rate=st.floats(0.1, 3),
    seed=st.integers(0, 1000),
)
def test_random_cases_equal_plain_loops(
    kind: str, name: str, num_positives: int, num_negatives: int, rate: float, seed: int
) -> None:
    loss: dict[str, Any] = {"type": kind, "relevance": name, "num_positives": num_positives}
    if kind != "softmax":
        loss["num_negatives"] = num_negatives
    if name not in ("fixed", "linear", "learned"):
        loss["rate"] = rate
    assert_same(Setup(loss, seed))


@pytest.mark.parametrize(
    "loss", [{"type": "bce"}, {"type": "bpr", "share_negatives": True}, {"type": "sampled_softmax"}]
)
def test_touched_rows_have_the_same_gradients(loss: dict[str, Any]) -> None:
    assert_same(Setup(loss, touched=True))


@pytest.mark.parametrize("kind", TYPES)
def test_with_one_positive_the_relevance_does_not_matter(kind: str) -> None:
    values = {
        Setup({"type": kind, "num_positives": 1, "relevance": name}).loss().item()
        for name in (*RELEVANCES, "learned")
    }
    assert len(values) == 1


def test_a_softmax_in_chunks_equals_one_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    features, table, pairs = draw(50, 4), draw(30, 4), draw(50, 2).abs()
    items = torch.randint(30, (50, 2), generator=generator)
    results = []
    for size in (10**9, 200, 1):  # all at once, six positions, one
        monkeypatch.setitem(losses.MAX_SCORES, "cpu", size)
        f, w = features.clone().requires_grad_(), table.clone().requires_grad_()
        positives = torch.einsum("td,tpd->tp", f, w[items])
        loss = losses.softmax(f, w, positives, pairs, label_smoothing=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((loss.detach(), f.grad, w.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)
    scores = features @ table.T
    log_target = 0.9 * scores.gather(1, items) + 0.1 * scores.mean(dim=1, keepdim=True)
    whole = (pairs * (scores.logsumexp(dim=1, keepdim=True) - log_target)).sum()
    torch.testing.assert_close(results[0][0], whole, rtol=1e-12, atol=1e-12)


def test_a_softmax_of_large_scores_stays_finite() -> None:
    features = torch.full((3, 2), 300.0, requires_grad=True)
    table = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.5, 1.0]])
    pairs = torch.full((3, 1), 1 / 3)
    loss = losses.softmax(features, table, (features @ table.T)[:, :1], pairs)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_the_full_softmax_is_what_the_sampled_one_estimates() -> None:
    """With every other item drawn once, as expected, they are the same."""
    generator = torch.Generator().manual_seed(0)
    features, table = (torch.randn(n, 4, generator=generator) for n in (6, 10))
    items = torch.tensor([[0, 1], [1, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
    scores = features @ table.T
    positives = scores.gather(1, items)
    different = torch.tensor([[True, items[t, 0] != items[t, 1]] for t in range(6)])
    hits = (items[:, :, None] == torch.arange(10)).any(dim=1)
    negatives = scores.masked_fill(hits, -math.inf)
    pairs = torch.rand(6, 2, generator=generator)
    sampled = losses.sampled_softmax(features, table, positives, different, negatives, pairs)
    torch.testing.assert_close(sampled, losses.softmax(features, table, positives, pairs))


def test_gbce_without_calibration_is_bce_with_summed_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    near, far = (torch.randn(5, n, generator=generator) for n in (2, 3))
    pairs, draws = torch.full((5, 2), 0.1), torch.full((5, 3), 1 / 15)
    ours = losses.gbce(near, far, pairs, draws, num_items=100, calibration=0.0)
    attracted = losses.bce(near, far, pairs, torch.zeros(5, 3))
    repelled = losses.bce(near, far, torch.zeros(5, 2), draws)
    torch.testing.assert_close(ours, (attracted + 3 * repelled) / 4)


def test_time_asked_of_data_without_times_is_refused() -> None:
    config = TrialConfig(loss=LossConfig(num_positives=2, relevance="time"))
    with pytest.raises(ConfigError, match="needs the times"):
        BatchLoss(config, random_split(0).training, CPU)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"loss.type": "softmax", "loss.num_negatives": 3}, "num_negatives belongs to"),
        ({"loss.share_negatives": True, "loss.type": "softmax"}, "share_negatives"),
        ({"loss.log_q": True}, "log_q belongs to sampled_softmax"),
        (
            {
                "loss.type": "sampled_softmax",
                "loss.log_q": True,
                "loss.negatives_from": "unseen",
            },
            "log_q estimates the sum over the catalogue",
        ),
        ({"loss.in_batch_negatives": 0.5}, "in_batch_negatives belongs to sampled_softmax"),
        ({"loss.calibration": 0.5}, "calibration belongs to gbce"),
        ({"loss.type": "bpr", "loss.positive_weight": 2.0}, "positive_weight belongs to"),
        ({"loss.type": "gbce", "loss.label_smoothing": 0.1}, "label_smoothing belongs to"),
        (
            {"loss.relevance": "learned", "loss.normalization": "original"},
            "needs normalization",
        ),
        ({"loss.rate": 1.0}, "rate has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        TrialConfig().with_overrides(changes)
