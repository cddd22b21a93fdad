"""The same network before any training: what its shape alone makes of the gene vectors."""

from dataclasses import replace

import numpy as np

from uce.cells.parts import BLOCK_CELLS
from uce.engines import embed_cells, prepare_reader
from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Floats, Mask
from uce.model.checkpoint import Model


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  fits nothing
    """(cells, out dim) by the model with fresh random weights; sentences and gene vectors are the model's.

    Raises
    ------
    NotPossible
        There are no counts or no model.
    """
    counts, reader = cells.need_counts(), cells.need_reader()
    fresh = prepare_reader(untrained(reader.model, seed), reader.match, reader.settings)
    blocks = (counts[start : start + BLOCK_CELLS] for start in range(0, len(cells), BLOCK_CELLS))
    return np.concatenate([embed_cells(block, fresh).vectors for block in blocks])


def untrained(model: Model, seed: int) -> Model:
    """`model` with the weights that training begins with; the random state of torch stays what it was."""
    import torch

    from uce.model.encoder import Encoder

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder = Encoder(model.config)
    return replace(model, encoder=encoder.eval().requires_grad_(False))
