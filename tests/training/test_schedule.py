"""The learning rate, step by step."""

import math

import pytest
import torch

from tune_srs.config.settings import TrainConfig
from tune_srs.training.schedule import learning_rate, set_learning_rate


def rates(**settings: object) -> list[float]:
    plain = {"lr": 1.0, "max_epochs": 4, "schedule": "constant"}
    config = TrainConfig.model_validate(plain | settings)
    return [learning_rate(config, step, 5) for step in range(20)]


def test_a_constant_one_stays() -> None:
    assert rates() == [1.0] * 20


def test_a_warm_up_rises_step_by_step_and_then_stays() -> None:
    assert rates(warmup_epochs=2) == pytest.approx([(n + 1) / 10 for n in range(10)] + [1.0] * 10)


def test_a_cosine_falls_towards_0_with_the_last_epoch() -> None:
    expected = [(1 + math.cos(math.pi * n / 20)) / 2 for n in range(20)]
    assert rates(schedule="cosine") == pytest.approx(expected)


def test_a_cosine_begins_after_the_warm_up() -> None:
    found = rates(schedule="cosine", warmup_epochs=1)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    expected = [(1 + math.cos(math.pi * n / 15)) / 2 for n in range(15)]
    assert found[5:] == pytest.approx(expected)


def test_every_group_of_every_optimizer_gets_it() -> None:
    one, other = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    plain = torch.optim.AdamW([{"params": [one]}, {"params": [other]}], lr=1.0)
    on_device = torch.optim.AdamW([one], lr=torch.tensor(1.0), capturable=False, foreach=False)
    set_learning_rate([plain, on_device], 0.25)
    assert [group["lr"] for group in plain.param_groups] == [0.25, 0.25]
    assert on_device.param_groups[0]["lr"].item() == 0.25
