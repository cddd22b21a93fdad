"""AdamW's groups of parameters, its learning rate as a function of the step, and averaged weights."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from uce.training.settings import OptimizerSettings


def build_optimizer(module: nn.Module, settings: "OptimizerSettings") -> torch.optim.AdamW:
    """AdamW over all parameters of `module`; only matrices are decayed, as biases and norms have no scale to lose."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, settings.beta2))


def learning_rate(step: int, *, steps: int, settings: "OptimizerSettings") -> float:
    """Learning rate of the update number `step` (from 0): a linear rise, then a half cosine down to `final` of it."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, steps - 1 - settings.warmup)
    falling = (1 + math.cos(math.pi * min(1.0, share))) / 2
    return settings.lr * (settings.final + (1 - settings.final) * falling)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """Exponential moving average of parameters: noise of the last steps is averaged out of the weights that embed.

    The memory is min(memory, (1 + step) / (10 + step)), so that the random start is forgotten at once.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], *, memory: float) -> None:
        self.memory = memory
        self.values = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]], *, step: int) -> None:
        """Take in the parameters after update number `step`."""
        memory = min(self.memory, (1 + step) / (10 + step))
        for name, parameter in parameters:
            self.values[name].lerp_(parameter.detach(), 1 - memory)
