"""The published objective's head: from a cell vector and a gene vector to whether the gene is expressed there.

Restates the `predict` of the published program (Rosen et al. 2023). Training uses it; embedding does not need it.
"""

from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from uce.errors import ModelError
from uce.model.blocks import dense

Order = Literal["cell-gene", "gene-cell"]


class ExpressionHead(nn.Module):
    """Logits of expression for pairs of cells and genes.

    The published head joins both vectors and applies Linear blocks of 2048, 512 and 128 units and a last Linear. Its
    first Linear is a sum, ``W [c ; e] = W_c c + W_e e``, so it is applied once per cell and once per gene, not once per
    pair.

    Parameters
    ----------
    protein_dim
        Width of a gene vector as it stands in the table; here it is *not* brought to length 1.
    cell_dim
        Width of a cell vector.
    gene_dim
        Width of a projected gene; 1280 as published.
    hidden
        Units of the blocks.
    dropout
        In training only.
    order
        Which of the two comes first in the joined vector. The published program joins (cell, gene), every known
        training script (gene, cell); it matters only to weights trained elsewhere.

    Raises
    ------
    ModelError
        No block, or an unknown order.
    """

    def __init__(
        self,
        *,
        protein_dim: int,
        cell_dim: int,
        gene_dim: int = 1280,
        hidden: tuple[int, ...] = (2048, 512, 128),
        dropout: float = 0.05,
        order: Order = "cell-gene",
    ) -> None:
        super().__init__()
        if order not in get_args(Order) or not hidden:
            msg = (
                f"order = {order!r}, hidden = {hidden}: choose {' or '.join(get_args(Order))}, and at least one block."
            )
            raise ModelError(msg)
        self.widths = (cell_dim, gene_dim) if order == "cell-gene" else (gene_dim, cell_dim)
        self.order = order
        self.projection = nn.Linear(protein_dim, gene_dim)
        self.projection_norm = nn.LayerNorm(gene_dim)
        self.join = nn.Linear(cell_dim + gene_dim, hidden[0])
        self.blocks = nn.Sequential(
            nn.Sequential(nn.LayerNorm(hidden[0]), nn.GELU(), nn.Dropout(dropout)),
            *(dense(width_in, width_out, dropout=dropout) for width_in, width_out in pairwise(hidden)),
            nn.Linear(hidden[-1], 1),
        )

    def project(self, vectors: Tensor) -> Tensor:
        """Gene vectors (..., protein_dim) to (..., gene_dim): Linear, GELU, LayerNorm."""
        projected: Tensor = self.projection_norm(F.gelu(self.projection(vectors)))
        return projected

    def forward(self, cells: Tensor, vectors: Tensor, queries: Tensor | None = None) -> Tensor:
        """Logits of expression; a sigmoid makes them probabilities.

        Parameters
        ----------
        cells
            (B, cell_dim) unit vectors, as `Encoder` returns them.
        vectors
            (G, protein_dim), each distinct gene asked about once.
        queries
            (B, Q) rows of `vectors`, the genes asked of each cell. None: every cell is asked about every gene.

        Returns
        -------
        (B, Q), or (B, G).
        """
        first, second = torch.split(self.join.weight, list(self.widths), dim=1)
        of_cell, of_gene = (first, second) if self.order == "cell-gene" else (second, first)
        cell_part = F.linear(cells, of_cell)[:, None]  # (B, 1, hidden)
        gene_part = F.linear(self.project(vectors), of_gene, self.join.bias)  # (G, hidden)
        # embedding, not indexing: its gradient adds up repeated rows without sorting them.
        asked = gene_part if queries is None else F.embedding(queries, gene_part)
        logits: Tensor = self.blocks(cell_part + asked)
        return logits.squeeze(-1)
