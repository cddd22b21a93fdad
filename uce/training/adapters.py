"""Low-rank adapters: a few trained numbers beside frozen weights, added to them when the model is written.

Hu et al. 2021 (LoRA, arXiv 2106.09685): W becomes W + (alpha / rank) B A, with A (rank, in) drawn and B (out, rank)
zero at the start, so that the first forward pass is that of the model itself. Here on every linear map inside the
blocks of the encoder: those of attention and of the feed-forwards.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from uce.model.encoder import Encoder
    from uce.training.settings import AdapterSettings

_PART = ".parametrizations.weight."  # torch's, between the name of a linear map and that of its parts


class LowRank(nn.Module):
    """What is added to a weight (out, in)."""

    def __init__(self, weight: Tensor, settings: "AdapterSettings") -> None:
        super().__init__()
        self.scale = settings.alpha / settings.rank
        self.down = nn.Parameter(weight.new_empty(settings.rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], settings.rank))
        nn.init.normal_(self.down, std=1 / math.sqrt(weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used."""
        return _adapted(weight, self.down, self.up, self.scale)


def _adapted(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    return weight + scale * (up @ down)


def add_adapters(encoder: "Encoder", settings: "AdapterSettings") -> None:
    """Freeze the encoder, and give every linear map of its blocks an adapter, drawn from torch's global generator."""
    encoder.requires_grad_(requires_grad=False)
    # A list first: what is adapted changes its class. A map that several blocks share is among the modules once.
    for linear in [module for module in encoder.blocks.modules() if isinstance(module, nn.Linear)]:
        parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, settings))


@torch.no_grad()
def merged(state: Mapping[str, Tensor], settings: "AdapterSettings") -> dict[str, Tensor]:
    """The state of an encoder with adapters as that of a plain one; one without them as it is."""
    plain = {}
    for name, tensor in state.items():
        linear, adapted, part = name.partition(_PART)
        if not adapted:
            plain[name] = tensor
        elif part == "original":
            down, up = (state[f"{linear}{_PART}0.{side}"] for side in ("down", "up"))
            plain[f"{linear}.weight"] = _adapted(tensor, down, up, settings.alpha / settings.rank)
    return plain
