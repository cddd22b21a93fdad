"""The weights that an encoder begins with."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uce.model.blocks import Block

if TYPE_CHECKING:
    from uce.model.encoder import Encoder


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """The published table (length, dim): sine and cosine by turns of pos * exp(-2i ln(10000) / dim), in float32."""
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def initialise(encoder: "Encoder") -> None:
    """Draw all weights anew from torch's global generator (normal, so that each layer keeps its input's scale).

    ======================================  =============================================================
    weights                                 standard deviation, or value
    ======================================  =============================================================
    any Linear but those below              1 / sqrt(width in)
    first Linear of a feed-forward          sqrt(2 / D): half of its units are off
    last Linear of attention, feed-forward  1 / sqrt(width in) / sqrt(2 layers): depth does not add up
    query, key of a first "post" block      1 / D: its input is sqrt(D) large, attention would be one-hot
    LayerNorm                               1
    LayerNorm of the projection, "pre"      1 / sqrt(D): nothing shrinks the sum of the branches later
    every bias                              0
    table of positions                      as published, see `sinusoidal_positions`
    ======================================  =============================================================

    The two that answer to the size of the input do so with `input_scale` in place of sqrt(D), where it is set.
    """
    config = encoder.config
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            _draw(module)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if config.positions == "sinusoidal":
        encoder.positions.copy_(sinusoidal_positions(config.max_tokens, config.dim))
    depth = 1 / math.sqrt(2 * config.layers)
    blocks = [block for block in encoder.blocks if isinstance(block, Block)]
    for block in blocks:
        _draw(block.attention.out, gain=depth)
        _draw(block.expand, gain=math.sqrt(2))
        _draw(block.contract, gain=depth)
    # `project` ends in a factor of sqrt(D), which a "post" block takes away again and a "pre" block never does.
    shrink = 1 / config.scale
    with torch.no_grad():
        if config.norm == "pre":
            encoder.projection_norm.weight.fill_(shrink)
        else:
            blocks[0].attention.query.weight.mul_(min(shrink, 1.0))
            blocks[0].attention.key_value.weight[: config.dim].mul_(min(shrink, 1.0))


def _draw(linear: nn.Linear, *, gain: float = 1.0) -> None:
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
