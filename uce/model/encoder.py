"""The encoder; published and new models, stacked and recursive ones, differ by their settings only.

Letters in shapes: B cells, L tokens of a sentence, D width (`dim`), H heads, P width of a gene vector (`protein_dim`).
Architecture: Rosen et al. 2023, bioRxiv 2023.11.28.568918, and its code; token 0 of every sentence is CLS.
With `kind = "recursive"` the blocks are applied again and again to one state, after UCell (arXiv 2604.00243).
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uce.errors import ModelError
from uce.model.blocks import Block, dense
from uce.model.initial import initialise

Norm = Literal["post", "pre"]
Activation = Literal["relu", "gelu"]
Positions = Literal["sinusoidal", "none"]
Readout = Literal["cls", "cls+mean"]
Kind = Literal["stacked", "recursive"]
Inject = Literal["every", "first"]

_CHOICES: dict[str, Any] = {
    "norm": Norm,
    "activation": Activation,
    "positions": Positions,
    "readout": Readout,
    "kind": Kind,
    "inject": Inject,
}
LATER = ("kind", "cycles", "inject", "input_scale")  # settings that models had not at first: named only if changed
# Far above anything sensible: a damaged or hostile config.json must not make us build for hours.
_LIMIT = 1 << 17
_MOST_LAYERS = 1000  # and cycles


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
    kind: Kind = "stacked"  # blocks run once, or in cycles over one state ("post" only, which keeps it bounded)
    cycles: int = 1  # times that the blocks run, each time on the state and the input ("recursive")
    inject: Inject = "every"  # the input is added to the state in every cycle, or is the first state and no more
    input_scale: float = 0.0  # size of a token's numbers when the blocks first see it; 0: sqrt(dim), as published

    def __post_init__(self) -> None:
        for name in (
            "layers",
            "dim",
            "heads",
            "hidden",
            "protein_dim",
            "out_dim",
            "decoder_dim",
            "max_tokens",
            "cycles",
        ):
            value, most = getattr(self, name), _MOST_LAYERS if name in ("layers", "cycles") else _LIMIT
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                msg = f"{name} = {value!r}: a whole number from 1 to {most} is needed."
                raise ModelError(msg)
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                msg = f"{name} = {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                raise ModelError(msg)
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            msg = f"dropout = {self.dropout!r}: a number from 0 up to, not including, 1 is needed."
            raise ModelError(msg)
        scale = self.input_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not (scale == 0 or 1e-3 <= scale <= 1e3):
            msg = f"input_scale = {scale!r}: a number from 0.001 to 1,000 is needed, or 0 for the square root of dim."
            raise ModelError(msg)
        if self.dim % self.heads:
            msg = f"dim = {self.dim} is not a multiple of heads = {self.heads}; every head needs the same width."
            raise ModelError(msg)
        if self.positions == "sinusoidal" and self.dim % 2:
            msg = (
                f"dim = {self.dim} is odd, but sinusoidal positions come in pairs; use an even dim or positions = none."
            )
            raise ModelError(msg)
        if self.kind == "stacked" and (self.cycles, self.inject) != (1, "every"):
            asked = f"cycles = {self.cycles}, inject = {self.inject}"
            msg = f"{asked}: kind = stacked runs its blocks once; use kind = recursive."
            raise ModelError(msg)
        if self.kind == "recursive" and self.norm == "pre":
            msg = "kind = recursive needs norm = post: nothing else bounds a state that goes through its blocks again."
            raise ModelError(msg)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The settings in the order of their definition."""
        return tuple(field.name for field in fields(cls))

    @property
    def scale(self) -> float:
        """What the projected tokens are multiplied with."""
        return self.input_scale or math.sqrt(self.dim)

    def facts(self) -> dict[str, Any]:
        """All settings as a mapping, but those of `LATER` only where they are changed."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in LATER or getattr(self, item.name) != item.default
        }


class Encoder(nn.Module):
    """Sentences of gene vectors to cell vectors.

    `forward` is `encode(project(vectors), keep)`. The two halves are separate because `project` looks at one token
    at a time: whoever embeds many cells projects each token of a vocabulary once and gathers the results.

    The read-out is a decoder on ``[CLS]``, the last block's output at token 0 (`readout = "cls"`, as published). With
    ``"cls+mean"`` a linear map of the mean token is added: the average of the projected inputs over the kept tokens
    behind CLS, which is what a linear model of the expression profile would see and attention need not learn first.

    A recursive encoder has one state (B, L, D) that goes through all blocks F again and again: z = F(x), then
    z <- F(z + x) in each further cycle, where x is what the blocks of a stacked encoder would read once. Its weights
    are as many whatever the number of cycles, so that an encoder can be read at another number than it was trained at.

    Parameters
    ----------
    config
        The shape. Weights are drawn from torch's global generator, see `initialise`.
    """

    positions: Tensor
    recompute = False  # in training, compute each block's inner values again in the backward pass, to save memory
    recursion: "Recursion | None" = None  # in training, how the cycles are supervised; None: all at once, by the end

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.cycles = config.cycles  # how often the blocks run; may be set to another number to embed
        dim = config.dim
        self.projection = nn.Linear(config.protein_dim, dim)
        self.projection_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last_again: Block | None = None  # how the last block runs where all tokens are computed, if otherwise
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
        """Gene vectors to the width of the encoder: unit length, Linear, GELU, LayerNorm, times `config.scale`.

        Parameters
        ----------
        vectors
            (..., P) float; a row of zeros (padding) stays a row of zeros before the Linear.

        Returns
        -------
        (..., D), a function of each token alone.
        """
        projected: Tensor = self.projection_norm(F.gelu(self.projection(F.normalize(vectors, dim=-1))))
        return projected * self.config.scale

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
        return self._read_out(
            self.hidden_states(projected, keep, key_bias=key_bias, queries=1, qkv=qkv), projected, keep
        )

    def supervised(
        self, projected: Tensor, keep: Tensor | None = None, *, carried: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step of deep supervision: some more cycles from the state `carried`, and the cell vectors they lead to.

        In training, with `recursion` set. Only the last cycles of a step have a gradient, and none reaches the steps
        before it.

        Parameters
        ----------
        projected, keep
            As for `encode`.
        carried
            (B, L, D) state after the step before. None: the first step.

        Returns
        -------
        vectors, state
            (B, out_dim) of length 1; (B, L, D) to carry on, without a gradient.
        """
        assert self.recursion is not None
        x, mask = self._input(projected, keep, None)
        state = self._cycles(x, mask, self.recursion.cycles, state=carried, free=self.recursion.without_gradient)
        return self._read_out(state, projected, keep), state.detach()

    def _read_out(self, states: Tensor, projected: Tensor, keep: Tensor | None) -> Tensor:
        """The cell vectors, (B, out_dim), of the last states, of which CLS is the first."""
        cls = states[:, 0]
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
        x, mask = self._input(projected, keep, key_bias)
        free = self.recursion.without_gradient if self.training and self.recursion else 0
        states: Tensor = self.final_norm(self._cycles(x, mask, self.cycles, free=free, queries=queries, qkv=qkv))
        return states

    def _input(self, projected: Tensor, keep: Tensor | None, key_bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the blocks read, (B, L, D), and the mask of their attention."""
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
        return x, _attention_mask(keep, key_bias, x.dtype)

    def _cycles(
        self,
        x: Tensor,
        mask: Tensor | None,
        cycles: int,
        *,
        state: Tensor | None = None,
        free: int = 0,
        queries: int | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        """All blocks, `cycles` times from `state` on; the first `free` of these times without a gradient.

        Of the last time only the first `queries` tokens are computed. `qkv` is of the very first block of all.
        """
        changes = []
        for cycle in range(cycles):
            before, last = state, cycle + 1 == cycles
            entering = x if state is None else state + x if self.config.inject == "every" else state
            with torch.set_grad_enabled(torch.is_grad_enabled() and cycle >= free):
                known = qkv if state is None else None
                state = self._blocks(entering, mask, queries=queries if last else None, qkv=known)
            if cycle < free:
                state = state.detach()
            if self.training and before is not None:
                changes.append(_change(state, before))
        assert state is not None
        if self.recursion and changes:
            self.recursion.changes = torch.stack(changes)
        return state

    def _blocks(self, x: Tensor, mask: Tensor | None, *, queries: int | None, qkv: Tensor | None) -> Tensor:
        again = self.recompute and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks[:-1]):
            known = None if number else qkv
            x = checkpoint(block, x, mask, use_reentrant=False) if again else block(x, mask, qkv=known)
        last = self.blocks[-1] if queries is not None or self.last_again is None else self.last_again
        # For CLS alone there is next to nothing to compute again.
        whole = again and queries is None
        states: Tensor = checkpoint(last, x, mask, use_reentrant=False) if whole else last(x, mask, queries=queries)
        return states

    def mean_token(self, projected: Tensor, keep: Tensor | None = None) -> Tensor:
        """Mean of the kept tokens behind CLS, without the factor of `project`: (B, L, D) and (B, L) to (B, D)."""
        tokens = projected[:, 1:] / self.config.scale
        if keep is None:
            return tokens.mean(dim=1)
        kept = keep[:, 1:, None].to(tokens.dtype)
        return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)

    def place(self, vectors: Tensor) -> Tensor:
        """Where each gene pulls a cell vector: the linear part of the read-out of a single token, (G, P) to (G, out).

        Only for the read-out "cls+mean". A cell's linear part is the mean of its genes' places, plus a constant.
        """
        return F.linear(self.project(vectors) / self.config.scale, self.mean_map.weight)

    def forward(self, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        """Sentences of gene vectors (B, L, P) and their kept tokens (B, L) to cell vectors (B, out_dim)."""
        return self.encode(self.project(vectors), keep)


@dataclass
class Recursion:
    """How the cycles of a recursive encoder are supervised in training, and what was seen of them.

    A batch is read in `steps` steps of `cycles` cycles each; every step ends in a loss and an update of the weights,
    and the next goes on from its state (deep supervision; UCell's code, there after HRM and TRM).

    Attributes
    ----------
    steps
        Of supervision in a batch.
    cycles
        Of each step.
    without_gradient
        How many of these, the first ones, have no gradient.
    step
        Number of the step at hand, from 0.
    carried
        State that it begins from; None at the first.
    changes
        (cycles but the first of all,) mean over the cells of |z_t - z_(t-1)| / |z_t| at CLS in the last forward pass.
    """

    steps: int
    cycles: int
    without_gradient: int
    step: int = 0
    carried: Tensor | None = None
    changes: Tensor | None = None


@torch.no_grad()
def _change(state: Tensor, before: Tensor) -> Tensor:
    now, then = state[:, 0].float(), before[:, 0].float()
    # An empty sentence has a state of zero as long as all biases are.
    change: Tensor = ((now - then).norm(dim=1) / now.norm(dim=1).clamp(min=1e-12)).mean()
    return change


def _attention_mask(keep: Tensor | None, key_bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if key_bias is None:
        return None if keep is None else keep[:, None, None, :]
    bias = key_bias.to(dtype)
    if keep is not None:
        bias = bias.masked_fill(~keep, -math.inf)
    return bias[:, None, None, :]
