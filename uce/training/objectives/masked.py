"""The published objective: is a gene expressed in a cell whose sentence does not show it? Rosen et al. 2023.

Letters in shapes: B cells, U genes asked for of any cell, Q questions to one cell, P width of a gene vector, D width of
a cell vector.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from uce.errors import UsageError
from uce.model.expression import ExpressionHead

if TYPE_CHECKING:
    from uce.model.encoder import ModelConfig


@dataclass(frozen=True)
class MaskedSettings:
    """What is hidden, what is asked, and who answers. The defaults are the published choices, small.

    Raises
    ------
    UsageError
        A value out of range, or two that contradict each other.
    """

    name: Literal["masked"] = "masked"
    mask_fraction: float = 0.2  # share of the genes hidden
    masking: Literal["cell", "panel"] = "cell"  # of each cell's expressed genes, or one set of genes for a whole batch
    queries: int = 256  # questions per cell; with "cell" half of them expressed
    negatives: Literal["uniform", "matched"] = "uniform"  # "matched": no gene can be guessed from its detection rate
    head: Literal["mlp", "dot", "tied"] = "mlp"  # layers over cell and gene (published), or a product of both
    hidden: tuple[int, ...] = (256, 64)  # widths of the "mlp" head; published 2048, 512, 128
    dropout: float = 0.05  # in the "mlp" head
    offset: Literal["none", "dataset"] = "none"  # add the logit of the dataset's detection rate and the log depth

    def __post_init__(self) -> None:
        if not 0 < self.mask_fraction < 1:
            msg = f"objective.mask_fraction = {self.mask_fraction!r}; a number between 0 and 1 is needed."
            raise UsageError(msg)
        if self.queries < 2 or self.queries % 2:
            msg = f"objective.queries = {self.queries!r}; an even whole number from 2 is needed."
            raise UsageError(msg)
        if not self.hidden or min(self.hidden) < 1:
            msg = f"objective.hidden = {list(self.hidden)!r}; at least one width from 1 is needed."
            raise UsageError(msg)
        if not 0 <= self.dropout < 1:
            msg = f"objective.dropout = {self.dropout!r}; a number from 0 up to, not including, 1 is needed."
            raise UsageError(msg)
        if self.negatives == "matched" and self.masking == "panel":
            msg = "objective.negatives = 'matched' needs objective.masking = 'cell': a panel asks for all its genes."
            raise UsageError(msg)


class DotHead(nn.Module):
    """logit = scale * c . d_g + b_g, with d_g and b_g linear in the gene vector: all questions are one product."""

    def __init__(self, *, protein_dim: int, out_dim: int) -> None:
        super().__init__()
        self.gene = nn.Linear(protein_dim, out_dim, bias=False)
        self.bias = nn.Linear(protein_dim, 1)
        # c has length 1 and d_g unit spread, so the logits start at about 1.
        self.log_scale = nn.Parameter(torch.zeros(()))
        nn.init.normal_(self.gene.weight, std=1 / math.sqrt(protein_dim))
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.bias.bias)

    def forward(self, cells: Tensor, genes: Tensor, asked: Tensor | None) -> Tensor:
        """Logits (B, Q) of cells (B, D) and genes (U, P); `asked` (B, Q) picks genes, None asks for all."""
        unit = F.normalize(genes, dim=1) * math.sqrt(genes.shape[1])
        logits: Tensor = self.log_scale.exp() * (cells @ self.gene(unit).T) + self.bias(unit).squeeze(1)
        return logits if asked is None else logits.gather(1, asked)


class TiedHead(nn.Module):
    """logit = scale * k_g c . (d_g - mean d) + b_g, where d_g is the place that the encoder itself gives the gene.

    A cell's linear part is the mean of the places of its genes (`Encoder.place`), so that from the first step on a gene
    is expected in the cells whose genes lie near it; k_g and b_g are functions of the gene vector.
    """

    def __init__(self, *, protein_dim: int) -> None:
        super().__init__()
        self.gain = nn.Linear(protein_dim, 1)
        self.bias = nn.Linear(protein_dim, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.5)))
        for linear in (self.gain, self.bias):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, cells: Tensor, genes: Tensor, asked: Tensor | None, places: Tensor) -> Tensor:
        """Logits (B, Q) of cells (B, D) and genes (U, P) at `places` (U, D); `asked` (B, Q) as in the other heads."""
        unit = F.normalize(genes, dim=1) * math.sqrt(genes.shape[1])
        scale = (self.log_scale + self.gain(unit).squeeze(1)).exp()
        logits: Tensor = scale * (cells @ (places - places.mean(dim=0)).T) + self.bias(unit).squeeze(1)
        return logits if asked is None else logits.gather(1, asked)


class MaskedObjective(nn.Module):
    """Head, and beside it the same head with a learned constant for every cell: what the genes alone give away.

    With balanced questions, a model that ignores the cell scores well (most genes are rare or common everywhere), so
    the number to watch is `excess` = loss of the gene-only head - loss of the model, in nats.
    """

    def __init__(self, settings: MaskedSettings, model: "ModelConfig") -> None:
        super().__init__()
        self.settings = settings
        self.head: nn.Module = TiedHead(protein_dim=model.protein_dim) if self.tied else _head(settings, model)
        self.gene_only = _head(settings, model)
        self.constant = nn.Parameter(F.normalize(torch.randn(1, model.out_dim), dim=1))

    @property
    def tied(self) -> bool:
        """Whether the head asks the encoder for the places of genes."""
        return self.settings.head == "tied"

    def forward(self, cells: Tensor, batch: dict[str, Tensor], places: Tensor | None = None) -> dict[str, Tensor]:
        """Sums over the questions to valid cells.

        Parameters
        ----------
        cells
            (B, D) cell vectors.
        batch
            `queries` (U, P), `asked` (B, Q) or absent, `labels` and `offsets` (B, Q), `valid` (B,).
        places
            (U, D) `Encoder.place` of the queries, for the head "tied".

        Returns
        -------
        loss, gene_only
            Sums of binary cross-entropies; divided by `questions` they are means in nats. No parameter is in both.
        questions
            Number of questions to valid cells.
        """
        genes, asked, labels = batch["queries"], batch.get("asked"), batch["labels"]
        everywhere = self.gene_only(self.constant, genes, None)  # (1, U): once, as all cells are the same to it
        gene_only = everywhere if asked is None else everywhere.squeeze(0)[asked]
        known = (cells, genes, asked, places) if self.tied else (cells, genes, asked)
        answers = {"loss": self.head(*known), "gene_only": gene_only.expand_as(labels)}
        asked_for = batch["valid"][:, None].expand_as(labels).to(torch.float32)
        sums = {"questions": asked_for.sum()}
        for name, logits in answers.items():
            shifted = logits.float()
            if self.settings.offset == "dataset":
                shifted = shifted + batch["offsets"]
            # Float32 whatever the precision of the rest: 1e5 terms are added.
            sums[name] = F.binary_cross_entropy_with_logits(shifted, labels, weight=asked_for, reduction="sum")
        return sums


def _head(settings: MaskedSettings, model: "ModelConfig") -> nn.Module:
    if settings.head in ("dot", "tied"):  # the gene-only twin of a tied head has a place of its own for every gene
        return DotHead(protein_dim=model.protein_dim, out_dim=model.out_dim)
    return ExpressionHead(
        protein_dim=model.protein_dim,
        cell_dim=model.out_dim,
        gene_dim=model.out_dim,
        hidden=settings.hidden,
        dropout=settings.dropout,
    )
