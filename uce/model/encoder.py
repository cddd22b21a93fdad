"""The whole encoder in one file; published and new models differ by their settings only.

Letters in shapes: B cells, L tokens of a sentence, D width (`dim`), H heads, P width of a gene vector (`protein_dim`).
Architecture: Rosen et al. 2023, bioRxiv 2023.11.28.568918, and its code; token 0 of every sentence is CLS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uce.errors import ModelError

Norm = Literal["post", "pre"]
Activation = Literal["relu", "gelu"]
Positions = Literal["sinusoidal", "none"]
Readout = Literal["cls", "cls+mean"]

# Far above anything sensible: a damaged or hostile config.json must not make us build for hours.
_LIMIT = 1 << 17
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class ModelConfig:
    """The shape of an encoder. The defaults are the published four-layer model.

    Raises
    ------
    ModelError
        A value out of range, or two values that contradict each other.
    """

    layers: int = 4  # encoder blocks
    dim: int = 1280  # width of a token inside the encoder
    heads: int = 20  # attention heads; `dim` is a multiple of it
    hidden: int = 5120  # width inside a feed-forward
    protein_dim: int = 5120  # width of a gene vector
    out_dim: int = 1280  # width of a cell vector
    decoder_dim: int = 1024  # width of the decoder's first block
    norm: Norm = "post"  # normalise after each branch (published), or before it
    activation: Activation = "relu"  # of the feed-forwards (published: relu)
    dropout: float = 0.05  # share of units dropped, in training only
    positions: Positions = "sinusoidal"  # added to the tokens of a sentence
    readout: Readout = "cls"  # what the decoder reads, see `Encoder`
    max_tokens: int = 1536  # longest sentence the table of positions holds

    def __post_init__(self) -> None:
        for name in ("layers", "dim", "heads", "hidden", "protein_dim", "out_dim", "decoder_dim", "max_tokens"):
            value, most = getattr(self, name), _MOST_LAYERS if name == "layers" else _LIMIT
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                msg = f"{name} = {value!r}: a whole number from 1 to {most} is needed."
                raise ModelError(msg)
        for name, kind in (("norm", Norm), ("activation", Activation), ("positions", Positions), ("readout", Readout)):
            if getattr(self, name) not in get_args(kind):
                msg = f"{name} = {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                raise ModelError(msg)
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            msg = f"dropout = {self.dropout!r}: a number from 0 up to, not including, 1 is needed."
            raise ModelError(msg)
        if self.dim % self.heads:
            msg = f"dim = {self.dim} is not a multiple of heads = {self.heads}; every head needs the same width."
            raise ModelError(msg)
        if self.positions == "sinusoidal" and self.dim % 2:
            msg = (
                f"dim = {self.dim} is odd, but sinusoidal positions come in pairs; use an even dim or positions = none."
            )
            raise ModelError(msg)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The settings in the order of their definition."""
        return tuple(field.name for field in fields(cls))


class Encoder(nn.Module):
    """Sentences of gene vectors to cell vectors.

    `forward` is `encode(project(vectors), keep)`. The two halves are separate because `project` looks at one token
    at a time: whoever embeds many cells projects each token of a vocabulary once and gathers the results.

    The read-out is a decoder on ``[CLS]``, the last block's output at token 0 (`readout = "cls"`, as published). With
    ``"cls+mean"`` a linear map of the mean token is added: the average of the projected inputs over the kept tokens
    behind CLS, which is what a linear model of the expression profile would see and attention need not learn first.

    Parameters
    ----------
    config
        The shape. Weights are drawn from torch's global generator, see `initialise`.
    """

    positions: Tensor
    recompute = False  # in training, compute each block's inner values again in the backward pass, to save memory

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.projection = nn.Linear(config.protein_dim, dim)
        self.projection_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(dim) if config.norm == "pre" else nn.Identity()
        self.decoder = nn.Sequential(
            dense(dim, config.decoder_dim, dropout=config.dropout),
            dense(config.decoder_dim, config.out_dim, dropout=config.dropout),
            dense(config.out_dim, config.out_dim, dropout=config.dropout),
            nn.Linear(config.out_dim, config.out_dim),
        )
        if config.readout == "cls+mean":
            self.mean_map = nn.Linear(dim, config.out_dim)
        if config.positions == "sinusoidal":
            # A saved buffer: published models bring their own table, which float32 rounding makes theirs alone.
            self.register_buffer("positions", torch.empty(config.max_tokens, dim))
        # A loader builds on the meta device, where nothing can be drawn, and brings the weights.
        if not self.projection.weight.is_meta:
            initialise(self)

    def project(self, vectors: Tensor) -> Tensor:
        """Gene vectors to the width of the encoder: unit length, Linear, GELU, LayerNorm, times sqrt(D).

        Parameters
        ----------
        vectors
            (..., P) float; a row of zeros (padding) stays a row of zeros before the Linear.

        Returns
        -------
        (..., D), a function of each token alone.
        """
        projected: Tensor = self.projection_norm(F.gelu(self.projection(F.normalize(vectors, dim=-1))))
        return projected * math.sqrt(self.config.dim)

    def encode(
        self,
        projected: Tensor,
        keep: Tensor | None = None,
        *,
        key_bias: Tensor | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        """Projected sentences to cell vectors.

        Parameters
        ----------
        projected
            (B, L, D), from `project`; token 0 is CLS.
        keep
            (B, L) bool, true for tokens and false for padding, which nothing then looks at. Token 0 is always kept.
            None: no padding, and no mask is built.
        key_bias
            (B, L) float added to the attention scores of each key. Not needed to embed: the published code adds 1 to
            the scores of padding instead of excluding it, and this is how to get its numbers.
        qkv
            (B, L, 3 D) queries, keys and values of the first block, where they are at hand, see `FirstBlock`.

        Returns
        -------
        (B, out_dim) of length 1, in float32 or better whatever the precision of the rest.

        Raises
        ------
        ModelError
            The sentences are longer than the table of positions.
        """
        # Only CLS is read, so the last block computes nothing for the other tokens but their keys and values.
        cls = self.hidden_states(projected, keep, key_bias=key_bias, queries=1, qkv=qkv).squeeze(1)  # (B, D)
        with torch.autocast(projected.device.type, enabled=False):
            # The decoder and the last division stay out of mixed precision: there it costs 0.2 % of the length.
            weight = next(self.decoder.parameters())
            decoded: Tensor = self.decoder(cls.to(weight.dtype))
            if self.config.readout == "cls+mean":
                decoded = decoded + self.mean_map(self.mean_token(projected, keep).to(weight.dtype))
            return F.normalize(decoded.to(torch.promote_types(decoded.dtype, torch.float32)), dim=1)

    def hidden_states(
        self,
        projected: Tensor,
        keep: Tensor | None = None,
        *,
        key_bias: Tensor | None = None,
        queries: int | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        """The last block's outputs, (B, L, D), or (B, queries, D) for the first `queries` tokens only.

        These are the tokens in the context of their sentence. Arguments and errors are those of `encode`, which reads
        the first of them alone.
        """
        length = projected.shape[1]
        if length > self.config.max_tokens:
            msg = (
                f"a sentence has {length:,} tokens, this model takes {self.config.max_tokens:,}; use its sentence rule."
            )
            raise ModelError(msg)
        x = projected
        if self.config.positions == "sinusoidal":
            x = x + self.positions[:length]
        x = self.dropout(x)
        mask = _attention_mask(keep, key_bias, x.dtype)
        again = self.recompute and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks[:-1]):
            known = None if number else qkv
            x = checkpoint(block, x, mask, use_reentrant=False) if again else block(x, mask, qkv=known)
        states: Tensor = self.final_norm(self.blocks[-1](x, mask, queries=queries))
        return states

    def mean_token(self, projected: Tensor, keep: Tensor | None = None) -> Tensor:
        """Mean of the kept tokens behind CLS, without the factor sqrt(D): (B, L, D) and (B, L) to (B, D)."""
        tokens = projected[:, 1:] / math.sqrt(self.config.dim)
        if keep is None:
            return tokens.mean(dim=1)
        kept = keep[:, 1:, None].to(tokens.dtype)
        return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)

    def place(self, vectors: Tensor) -> Tensor:
        """Where each gene pulls a cell vector: the linear part of the read-out of a single token, (G, P) to (G, out).

        Only for the read-out "cls+mean". A cell's linear part is the mean of its genes' places, plus a constant.
        """
        return F.linear(self.project(vectors) / math.sqrt(self.config.dim), self.mean_map.weight)

    def forward(self, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        """Sentences of gene vectors (B, L, P) and their kept tokens (B, L) to cell vectors (B, out_dim)."""
        return self.encode(self.project(vectors), keep)


class Block(nn.Module):
    """Attention and feed-forward, each added to its input; normalised after the addition ("post") or before ("pre")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.expand = nn.Linear(config.dim, config.hidden)
        self.activation = nn.ReLU() if config.activation == "relu" else nn.GELU()
        self.contract = nn.Linear(config.hidden, config.dim)
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, queries: int | None = None, qkv: Tensor | None = None
    ) -> Tensor:
        """(B, L, D) -> (B, L, D), or (B, queries, D) for the first `queries` tokens only; `qkv` as in `Attention`."""
        top: Tensor = x[:, :queries]
        if self.pre:
            normed = self.attention_norm(x)
            top = top + self.dropout(self.attention(normed[:, :queries], normed, mask))
            return top + self._feed_forward(self.feed_forward_norm(top))
        top = self.attention_norm(top + self.dropout(self.attention(top, x, mask, qkv=qkv)))
        out: Tensor = self.feed_forward_norm(top + self._feed_forward(top))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.activation(self.expand(x)))
        out: Tensor = self.dropout(self.contract(inner))
        return out


class Attention(nn.Module):
    """Multi-head attention of `top` (B, M, D) over `source` (B, L, D)."""

    # How heads attend, see `attend`; `uce.model.inference` may set another way that gives the same.
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.attend = attend
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, top: Tensor, source: Tensor, mask: Tensor | None = None, *, qkv: Tensor | None = None) -> Tensor:
        """Return (B, M, D).

        Parameters
        ----------
        mask
            (B, 1, 1, L), bool (true: look) or float (added to the scores).
        qkv
            (B, L, 3 D) queries, keys and values, where they are at hand and M is L.
        """
        few = top.shape[1] < source.shape[1] and self.heads * top.shape[1] < source.shape[2]
        if few and not self.training:
            return self._of_few(top, source, mask)
        parts = (self.query(top), *self.key_value(source).chunk(2, dim=-1)) if qkv is None else qkv.chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = self.attend(q, k, v, mask, self.dropout if self.training else 0.0)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _of_few(self, top: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """The same for few queries, without the keys and values of all tokens: 4 M H D operations a token, not 4 D D.

        Exact: q.(W_k x + b_k) is (W_k' q).x and a constant, which the softmax takes away; and as the weights a of a
        query sum to 1, sum of a (W_v x + b_v) is W_v (sum of a x) + b_v.
        """
        heads, shape = self.heads, (*top.shape[:2], self.heads, -1)
        key_map, value_map = self.key_value.weight.view(2, heads, -1, top.shape[2])  # each (H, D / H, D)
        value_bias = self.key_value.bias.view(2, heads, -1)[1]  # (H, D / H)
        q = self.query(top).view(shape) / math.sqrt(key_map.shape[1])  # (B, M, H, D / H)
        asked = torch.einsum("bmhd,hdw->bmhw", q, key_map)
        scores = (asked.flatten(1, 2) @ source.transpose(1, 2)).view(shape)  # (B, M, H, L)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        seen = (scores.softmax(dim=-1).flatten(1, 2) @ source).view(shape)  # (B, M, H, D)
        mixed = torch.einsum("bmhw,hdw->bmhd", seen, value_map) + value_bias
        out: Tensor = self.out(mixed.flatten(2))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Queries (B, H, M, D / H), keys and values (B, H, L, D / H) to mixed values (B, H, M, D / H)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def dense(width_in: int, width_out: int, *, dropout: float) -> nn.Sequential:
    """Linear, LayerNorm, GELU, dropout: the published block of decoder and expression head."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.LayerNorm(width_out), nn.GELU(), nn.Dropout(dropout))


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """The published table (length, dim): sine and cosine by turns of pos * exp(-2i ln(10000) / dim), in float32."""
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def initialise(encoder: Encoder) -> None:
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
    # `project` ends in a factor sqrt(D), which a "post" block takes away again and a "pre" block never does.
    shrink = 1 / math.sqrt(config.dim)
    with torch.no_grad():
        if config.norm == "pre":
            encoder.projection_norm.weight.fill_(shrink)
        else:
            blocks[0].attention.query.weight.mul_(shrink)
            blocks[0].attention.key_value.weight[: config.dim].mul_(shrink)


def _draw(linear: nn.Linear, *, gain: float = 1.0) -> None:
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)


def _attention_mask(keep: Tensor | None, key_bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if key_bias is None:
        return None if keep is None else keep[:, None, None, :]
    bias = key_bias.to(dtype)
    if keep is not None:
        bias = bias.masked_fill(~keep, -math.inf)
    return bias[:, None, None, :]
