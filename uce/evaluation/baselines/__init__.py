"""What any embedding must be compared with, one file each; a new one is a new file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Cells


@dataclass(frozen=True)
class Baseline:
    """A simple way to make vectors of cells.

    Attributes
    ----------
    module
        Has `embed(cells, train, seed) -> (cells, dim) float32`: whatever is fitted is fitted on the cells of the mask
        `train` (all if None). It raises `NotPossible` where it cannot be had.
    title
        For a reader.
    fitted
        Whether anything is fitted on the cells at all.
    transductive
        Whether it needs all the cells at once, so that nothing can be held out of the fit.
    random
        Whether it starts from random numbers that matter, so that several copies are judged.
    """

    module: str
    title: str
    fitted: bool = False
    transductive: bool = False
    random: bool = False

    @property
    def embed(self) -> Callable[[Cells, NDArray[np.bool_] | None, int], NDArray[np.float32]]:
        """The function that makes the vectors."""
        made: Callable[[Cells, NDArray[np.bool_] | None, int], NDArray[np.float32]] = import_module(
            f"{__name__}.{self.module}"
        ).embed
        return made


BASELINES: dict[str, Baseline] = {
    "pca": Baseline("pca", "50 principal components of 2,000 variable genes", fitted=True),
    "hvg": Baseline("hvg", "2,000 variable genes, as they are", fitted=True),
    "harmony": Baseline("harmony", "Harmony on the principal components", fitted=True, transductive=True),
    "scvi": Baseline("scvi", "scVI trained on these cells", fitted=True, transductive=True),
    "mean-genes": Baseline("mean_genes", "mean of the cell's gene vectors, no network"),
    "shuffled-genes": Baseline("shuffled_genes", "the same with gene vectors dealt to the wrong genes", random=True),
    "corpus-pca": Baseline("corpus_pca", "principal components of the training corpus"),
    "untrained": Baseline("untrained", "the same network with random weights", random=True),
}
