"""The variable genes themselves: surprisingly strong, and no step that could go wrong."""

from uce.evaluation.baselines.variable_genes import variable_values
from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Floats, Mask


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  nothing here is random
    """(cells, 2,000 at most) log1p CP10k of the genes that vary most among the cells of `train` (all if None).

    Raises
    ------
    NotPossible
        There are no counts, or too few cells.
    """
    return variable_values(cells, train)
