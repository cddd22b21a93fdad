"""What an encoder is built of: attention and feed-forward of a block, and the dense layers of its heads.

Letters in shapes as in `uce.model.encoder`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

if TYPE_CHECKING:
    from uce.model.encoder import ModelConfig


class Block(nn.Module):
    """Attention and feed-forward, each added to its input; normalised after the addition ("post") or before ("pre")."""

    def __init__(self, config: "ModelConfig") -> None:
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

    def __init__(self, config: "ModelConfig") -> None:
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
        if few and not (self.training and self.dropout):
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
