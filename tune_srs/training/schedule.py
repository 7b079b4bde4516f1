"""The learning rate of each step."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from tune_srs.config.settings import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the rate of `step`, from 0: linear warm-up, then constant, or a cosine down to 0.

    The cosine (Loshchilov and Hutter, arXiv 1608.03983, without restarts) ends with `max_epochs`.
    """
    done = (step + 1) / steps_per_epoch  # epochs, this step included
    rate = config.lr * min(1.0, done / config.warmup_epochs) if config.warmup_epochs else config.lr
    falling = config.max_epochs - config.warmup_epochs
    if config.schedule == "cosine" and done > config.warmup_epochs and falling > 0:
        share = (step / steps_per_epoch - config.warmup_epochs) / falling
        rate *= (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2
    return rate


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of all parameters; a rate on the device, for recorded steps, is filled."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
