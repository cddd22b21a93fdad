"""The encoder as an embedding runs it: in which numbers and by which routines linear layers and attention compute.

This is the one place that picks them. The result is an `Encoder` like any other, with some of its parts exchanged for
ones that give the same: nothing here knows what an encoder computes.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from uce.devices import Precision, can_compile
from uce.model.blocks import Block
from uce.model.encoder import Encoder

_Module = TypeVar("_Module", bound=nn.Module)

_ROWS = 1024  # of a usual input: how many tokens the weights are laid out for
_SCORES = 3 << 20  # of the heads that attend at one time: so many stay in the processor's cache
_LONG = 384  # tokens of a sentence from which on float32 is faster head by head


def prepare(encoder: Encoder, device: torch.device, precision: Precision, *, compiled: bool = False) -> Encoder:
    """A copy of `encoder` that computes fast on `device`; weights that are not exchanged are shared with it.

    In `bf16` the products of matrices and attention are computed in bfloat16 and summed in float32. The residual
    stream, the norms, the last block (most of it is for CLS alone) and the decoder stay in float32. So does attention
    in a first block that reads tokens as they are (see `FirstBlock`): they are sqrt(D) long there, scores may be in
    the hundreds, and bfloat16 would round them by whole units. At four layers with torch's initial weights that makes
    1 - cosine of a cell vector 5e-3; this way it is 2e-6.

    Parameters
    ----------
    encoder
        In evaluation mode; it is moved to `device`.
    compiled
        Blocks through torch.compile, one graph for all of them and for every length; not on a processor, where it
        gains nothing.

    Returns
    -------
    Its vectors are those of `encoder` up to rounding. It cannot be trained.
    """
    encoder.to(device)
    fast = _copy(encoder)
    if _packs(device):
        _set(fast, projection=PackedLinear(encoder.projection, torch.float32))
    recursive = encoder.config.kind == "recursive"
    for number, block in enumerate(fast.blocks[:-1]):
        # In every cycle of a recursion the first block reads tokens as long as those of the first one.
        own: Precision = "fp32" if recursive and number == 0 else precision
        fast.blocks[number] = exchanged(cast("Block", block), device, own)
    if recursive:
        only = len(fast.blocks) == 1
        fast.last_again = exchanged(cast("Block", encoder.blocks[-1]), device, "fp32" if only else precision)
    if compiled and device.type != "cpu" and can_compile(device, asked="--compile"):
        for block in (*fast.blocks, *([fast.last_again] if fast.last_again else [])):
            block.compile(dynamic=True)
    return fast


def exchanged(block: Block, device: torch.device, precision: Precision) -> Block:
    """A copy of `block`, which is on `device`, with the fastest linear layers and attention there."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    packed = _packs(device)
    if precision == "fp32" and not packed:
        return block
    linear = PackedLinear if packed else CastLinear
    fast = _copy(block)
    attention = fast.attention
    parts = {name: linear(getattr(attention, name), dtype) for name in ("query", "key_value", "out")}
    _set(attention, **parts)
    _set(fast, expand=linear(fast.expand, dtype), contract=linear(fast.contract, dtype))
    if packed and isinstance(fast.activation, nn.ReLU):
        _set(fast, expand=PackedLinear(block.expand, dtype, relu=True), activation=nn.Identity())
    if packed and not torch.cpu._is_amx_tile_supported():
        attention.attend = partial(attend_by_heads, dtype=dtype)
    return fast


def _set(module: nn.Module, **parts: nn.Module) -> None:
    for name, part in parts.items():
        setattr(module, name, part)


def _copy(module: _Module) -> _Module:
    """A copy whose parts can be exchanged; it shares all weights."""
    weights: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return deepcopy(module, weights)  # what is in its memo is not copied


def _packs(device: torch.device) -> bool:
    """Whether oneDNN's own layout of weights is to be had: on processors with AVX-512, in builds of torch with oneDNN.

    There it multiplies float32 faster than torch's default, by far on AMD's; and results of a row are the same
    whatever rows stand beside it, and for any number of threads.
    """
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and there and torch.cpu._is_avx512_supported()


class PackedLinear(nn.Module):
    """A linear layer, and a ReLU, of oneDNN, its weights in bfloat16 or float32 and in the layout oneDNN reads best."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, relu: bool = False) -> None:
        super().__init__()
        self.dtype, self.after = dtype, "relu" if relu else "none"
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), _ROWS)
        self.bias = linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D in) of any type to (..., D out) of the layer's type."""
        rows = x.to(self.dtype).contiguous()  # oneDNN is hundreds of times slower on rows that are not
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, self.after, [], "")
        return out


class CastLinear(nn.Module):
    """A linear layer that computes in another type than its input has."""

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(dtype))
        self.register_buffer("bias", linear.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D in) of any type to (..., D out) of the layer's type."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def attend_by_heads(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, *, dtype: torch.dtype
) -> Tensor:
    """Attention as two products with the scores between them, a few heads at a time, by routines of oneDNN.

    On AMD's processors, which have no AMX, this is about twice as fast as torch's fused routine, which multiplies
    bfloat16 as float32, and float32 by slower routines.

    Parameters
    ----------
    dtype
        Of the result. The scores are of the type of `q`: float32 for a result in bfloat16 where rounding would harm.
    """
    length, exact = q.shape[2], q.dtype == torch.float32
    if mask is not None or dropout or (exact and length < _LONG):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).to(dtype)
    several = 1 if exact else max(1, _SCORES // length**2)
    scaled, k, v = (q * q.shape[-1] ** -0.5).contiguous(), k.contiguous(), v.to(dtype)
    out = torch.empty(q.shape, dtype=dtype)
    # Cell by cell, so that the shapes of the products, and with them the bits, are the same in every batch.
    for cell in zip(scaled, k, v, out, strict=True):
        for queries, keys, values, mixed in zip(*(part.split(several) for part in cell), strict=True):
            _mix(_weigh(queries, keys, dtype), values, mixed)
    return out


def _weigh(q: Tensor, k: Tensor, dtype: torch.dtype) -> Tensor:
    """Scaled queries and keys (heads, L, D / H) to weights (heads, L, L) in `dtype`; in float32 a single head.

    The softmax is oneDNN's: torch's takes twice as long, and longer where scores are far apart.
    """
    if q.dtype == torch.float32:  # torch's own product takes twice as long
        scores: Tensor = torch.ops.aten.mkldnn_linear(q[0].to_mkldnn(), k[0])
        return scores.softmax(dim=-1).to_dense(dtype)[None]
    return torch.bmm(q, k.transpose(1, 2)).to_mkldnn().softmax(dim=-1).to_dense()


def _mix(weights: Tensor, v: Tensor, out: Tensor) -> None:
    """Weights (heads, L, L) and values (heads, L, D / H) to `out`, like the values; in float32 a single head."""
    if v.dtype == torch.float32:
        out[0] = torch.ops.mkldnn._linear_pointwise(weights[0], v[0].t().contiguous(), None, "none", [], "")
    else:
        torch.bmm(weights, v, out=out)


@dataclass(frozen=True)
class FirstBlock:
    """Queries, keys and values of the first block in float32, looked up instead of computed.

    They are linear in the token and its position, W (t + p) + b = W t + (W p + b), so each token of a species and each
    position is multiplied once, however many cells there are.

    Attributes
    ----------
    tokens
        (V, 3 D) without the bias.
    positions
        (longest sentence, 3 D), or (1, 3 D) of an encoder without positions.
    """

    tokens: Tensor
    positions: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, L) tokens to (B, L, 3 D), for `Encoder.encode`."""
        return F.embedding(ids, self.tokens).add_(self.positions[: ids.shape[1]])


def first_block(encoder: Encoder, projected: Tensor) -> FirstBlock | None:
    """The table for `encoder` (not one from `prepare`), and the `projected` tokens (V, D) of a species.

    None where the first block is not linear in its input (it normalises first), or is the last and reads CLS alone.
    """
    config = encoder.config
    if config.norm == "pre" or config.layers == 1:
        return None
    attention = cast("Block", encoder.blocks[0]).attention
    stacked = nn.Linear(config.dim, 3 * config.dim, device="meta")
    for name in ("weight", "bias"):
        both = torch.cat([getattr(attention.query, name), getattr(attention.key_value, name)])
        setattr(stacked, name, nn.Parameter(both, requires_grad=False))
    linear = PackedLinear(stacked, torch.float32) if _packs(projected.device) else stacked
    positions = encoder.positions if config.positions == "sinusoidal" else projected.new_zeros(1, config.dim)
    return FirstBlock(linear(projected).sub_(stacked.bias), linear(positions))
