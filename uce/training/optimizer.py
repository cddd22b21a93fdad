"""AdamW's groups of parameters, its learning rate as a function of the step, averaged weights, and anchored ones."""

import math
from collections.abc import Iterable
from operator import attrgetter
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


class Anchor:
    """Weights that an encoder began from, and is held to: L2-SP of Li et al. 2018 (arXiv 1802.01483), decoupled.

    After an update w <- w - rate * strength * (w - w_start). As a term of the loss it would be divided by the running
    scale of the gradient, as weight decay was before AdamW.

    Parameters
    ----------
    encoder
        With its first weights. They are copied, buffers are not.
    names
        Of the weights as a plain encoder has them; with adapters, those that are used.
    strength
        0: the encoder is not held, and only `drift` says how far it went.
    """

    def __init__(self, encoder: nn.Module, names: Iterable[str], *, strength: float) -> None:
        self._encoder, self._strength = encoder, strength
        self._start = {name: attrgetter(name)(encoder).detach().clone() for name in names}

    @torch.no_grad()
    def pull(self, rate: float) -> None:
        """Draw the weights nearer, after an update with this learning rate."""
        if self._strength:
            for name, start in self._start.items():
                attrgetter(name)(self._encoder).lerp_(start, rate * self._strength)

    @torch.no_grad()
    def drift(self) -> float:
        """|w - w_start| / |w_start|. Every process must call this."""
        pairs = [(attrgetter(name)(self._encoder), start) for name, start in self._start.items()]
        moved = sum(_square(weight - start) for weight, start in pairs)
        return math.sqrt(moved / max(sum(_square(start) for _, start in pairs), 1e-30))


def _square(tensor: Tensor) -> float:
    total = tensor.square().sum()
    return float(total.full_tensor() if hasattr(total, "full_tensor") else total)
