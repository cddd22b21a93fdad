"""scVI, trained on the very cells: the usual deep model for integration."""

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.sparse import csr_matrix

from uce.evaluation.baselines.variable_genes import fitting_cells, variable_genes
from uce.evaluation.cells import Cells, Texts
from uce.evaluation.embeddings import Floats, Mask
from uce.evaluation.results import NotPossible

LATENT, LAYERS, MOST_EPOCHS = 30, 2, 200
_INSTALL = "scvi-tools is not installed: pip install 'uce[scvi]'"


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:
    """(cells, 30) latent means of scVI, trained on all cells; `train` chooses the 2,000 variable genes.

    Raises
    ------
    NotPossible
        There are no counts or too few cells, or scvi-tools is not installed.
    """
    genes = variable_genes(cells.log_counts[fitting_cells(cells, train)])
    return train_scvi(cells.need_counts()[:, genes], cells.batches, seed)


def train_scvi(counts: csr_matrix, batches: Texts | None, seed: int, *, epochs: int = MOST_EPOCHS) -> Floats:
    """(cells, 30) latent means of scVI (Lopez et al. 2018), with the batch of every cell where there are any.

    Two layers, negative binomial, at most `epochs`: it stops when the loss of a tenth that is held out no longer falls.

    Raises
    ------
    NotPossible
        There are fewer than 20 cells, some have no counts, or scvi-tools is not installed.
    """
    if counts.shape[0] < 20 or not counts.getnnz(axis=1).all():
        raise NotPossible("needs 20 cells or more, each with counts in the variable genes")
    with _quiet(), _same_random_state():
        try:
            import scvi
        except ImportError as error:
            raise NotPossible(_INSTALL) from error
        import anndata as ad
        import pandas as pd

        names = np.arange(counts.shape[0]).astype(str)
        obs = pd.DataFrame({"batch": "" if batches is None else batches}, index=names)
        data = ad.AnnData(counts.astype(np.float32), obs=obs)
        scvi.settings.seed = seed
        scvi.model.SCVI.setup_anndata(data, batch_key="batch")
        model = scvi.model.SCVI(data, n_latent=LATENT, n_layers=LAYERS, gene_likelihood="nb")
        model.train(
            max_epochs=epochs,
            train_size=0.9,
            early_stopping=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
        )
        return np.asarray(model.get_latent_representation(), dtype=np.float32)


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Training draws from the global generators, and sets them: put them back."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning and scVI speak of devices, and warn of what is meant to be so (no workers, a small last batch)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
