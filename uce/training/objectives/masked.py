"""The published objective: is a gene expressed in a cell whose sentence does not show it? Rosen et al. 2023.

Letters in shapes: B cells, U genes asked for of any cell, Q questions to one cell, P width of a gene vector, D width of
a cell vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from uce.errors import UsageError
from uce.model.expression import ExpressionHead
from uce.training.objectives.base import Objective, ObjectiveSettings, cell_vectors
from uce.training.objectives.questions import MaskedBatch, make_batch

if TYPE_CHECKING:
    from uce.model.encoder import Encoder, ModelConfig
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells


@dataclass(frozen=True)
class MaskedSettings(ObjectiveSettings):
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
    head: Literal["mlp", "tied"] = "mlp"  # layers over cell and gene (published), or the encoder's own map of both
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
        if self.head == "tied" and self.masking != "panel":
            msg = "objective.head = 'tied' needs objective.masking = 'panel': places count from the mean of a panel's."
            raise UsageError(msg)
        if self.negatives == "matched" and self.masking == "panel":
            msg = "objective.negatives = 'matched' needs objective.masking = 'cell': a panel asks for all its genes."
            raise UsageError(msg)

    def check(self, config: "PretrainConfig") -> None:
        """The head "tied" needs an encoder that can say where genes lie."""
        if self.head == "tied" and config.model.readout != "cls+mean":
            msg = "objective.head = 'tied' needs model.readout = 'cls+mean': it asks the linear part where genes lie."
            raise UsageError(msg)

    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> MaskedBatch:
        """Sentences without hidden genes, and questions about them."""
        return make_batch(self, cells, config, part, rank=rank, world=world)

    def build(self, model: "ModelConfig") -> "MaskedObjective":
        """The heads for this shape of encoder."""
        return MaskedObjective(self, model)


class GeneBias(nn.Module):
    """What a gene vector says of a gene in any cell: one number, linear in the vector of unit length."""

    def __init__(self, *, protein_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(protein_dim, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, genes: Tensor) -> Tensor:
        """(U,) of genes (U, P)."""
        numbers: Tensor = self.linear(F.normalize(genes, dim=1) * math.sqrt(genes.shape[1]))
        return numbers.squeeze(1)


class TiedHead(nn.Module):
    """logit = k_g c . (d_g - mean d) + b_g, where d_g is the place that the encoder itself gives the gene.

    A cell's linear part is the mean of the places of its genes (`Encoder.place`), so that from the first step on a gene
    is expected in the cells whose genes lie near it; log k_g and b_g are linear in the gene vector.
    """

    def __init__(self, *, protein_dim: int) -> None:
        super().__init__()
        self.gain, self.bias = GeneBias(protein_dim=protein_dim), GeneBias(protein_dim=protein_dim)
        nn.init.constant_(self.gain.linear.bias, math.log(0.5))

    def forward(self, cells: Tensor, genes: Tensor, places: Tensor) -> Tensor:
        """Logits (B, U) of cells (B, D) and genes (U, P) at `places` (U, D)."""
        logits: Tensor = self.gain(genes).exp() * (cells @ (places - places.mean(dim=0)).T) + self.bias(genes)
        return logits


class MaskedObjective(Objective):
    """Head, and beside it two that do not see the cell's vector, on the same questions.

    One is the same head with a learned constant for every cell: what the genes alone give away. The other knows how
    often the dataset sees each gene and how deep the cell is: a logistic regression on `offsets`. With balanced
    questions a model that ignores the cell scores well (most genes are rare or common everywhere), so the number to
    watch is `excess` = loss of the gene-only head - loss of the model, in nats.
    """

    def __init__(self, settings: MaskedSettings, model: "ModelConfig") -> None:
        super().__init__()
        self.settings = settings
        if self.tied:
            self.head: nn.Module = TiedHead(protein_dim=model.protein_dim)
            self.gene_only: nn.Module = GeneBias(protein_dim=model.protein_dim)
        else:
            self.head, self.gene_only = _mlp_head(settings, model), _mlp_head(settings, model)
            self.constant = nn.Parameter(F.normalize(torch.randn(1, model.out_dim), dim=1))
        self.rates = nn.Parameter(torch.tensor([1.0, 0.0]))  # slope and intercept

    @property
    def tied(self) -> bool:
        """Whether the head asks the encoder for the places of genes."""
        return self.settings.head == "tied"

    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the questions of a `MaskedBatch`, see `answer`."""
        cells = cell_vectors(encoder, batch)
        return self.answer(cells, batch, encoder.place(batch["queries"]) if self.tied else None)

    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """The cross-entropies of all heads per question.

        Over the questions of the batch, not of the valid cells: a constant, so that processes add up to one batch.
        """
        return (sums["loss"] + sums["gene_only"] + sums["rates"]) / batch["labels"].numel()

    def baselines(self) -> list[nn.Parameter]:
        """Of the two heads that do not see the cell's vector."""
        return [*self.gene_only.parameters(), self.rates, *([] if self.tied else [self.constant])]

    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:  # noqa: ARG002
        """`excess`, and the losses of the model and of the two that do not see the cell's vector, in nats."""
        questions = max(float(totals["questions"]), 1.0)
        loss, gene_only, rates = (float(totals[name]) / questions for name in ("loss", "gene_only", "rates"))
        return {"excess": gene_only - loss, "loss": loss, "loss_gene_only": gene_only, "loss_rates": rates}

    def answer(self, cells: Tensor, batch: Mapping[str, Tensor], places: Tensor | None = None) -> dict[str, Tensor]:
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
        loss, gene_only, rates
            Sums of binary cross-entropies; divided by `questions` they are means in nats. No parameter is in two.
        questions
            Number of questions to valid cells.
        """
        genes, asked, labels = batch["queries"], batch.get("asked"), batch["labels"]
        if self.tied:
            everywhere, answered = self.gene_only(genes), self.head(cells, genes, places)
        else:
            everywhere = self.gene_only(self.constant, genes, None).squeeze(0)  # once, as all cells are the same to it
            answered = self.head(cells, genes, asked)
        gene_only = everywhere if asked is None else everywhere[asked]
        offsets = batch["offsets"]
        shift: Tensor | float = offsets if self.settings.offset == "dataset" else 0.0
        answers = {
            "loss": answered.float() + shift,
            "gene_only": gene_only.expand_as(labels).float() + shift,
            "rates": self.rates[0] * offsets + self.rates[1],
        }
        asked_for = batch["valid"][:, None].expand_as(labels).to(torch.float32)
        sums = {"questions": asked_for.sum()}
        for name, logits in answers.items():
            # Float32 whatever the precision of the rest: 1e5 terms are added.
            sums[name] = F.binary_cross_entropy_with_logits(logits, labels, weight=asked_for, reduction="sum")
        return sums


def _mlp_head(settings: MaskedSettings, model: "ModelConfig") -> ExpressionHead:
    return ExpressionHead(
        protein_dim=model.protein_dim,
        cell_dim=model.out_dim,
        gene_dim=model.out_dim,
        hidden=settings.hidden,
        dropout=settings.dropout,
    )
