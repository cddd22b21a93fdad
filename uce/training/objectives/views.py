"""A batch of the contrastive objective: two sentences of each cell that share no gene, or no molecule, or neither.

All cells of a part have the same two panels of genes, on every process: otherwise the panel would tell them apart.
Letters in shapes: B cells of one process, L tokens, G genes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.training.batch import Batch, draw_sentences, pack, rows_of, thin
from uce.training.order import HIDE, THIN, generator
from uce.training.stream import Cells

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.objectives.contrastive import ContrastiveSettings
    from uce.training.settings import PretrainConfig


@dataclass(frozen=True, eq=False)
class ContrastiveBatch(Batch):
    """Sentences (2B, L): the first view of every cell, then the second of every cell.

    Attributes
    ----------
    cells
        (B,) row of each cell in its dataset: a cell drawn twice is not to be told from itself.
    genes
        (2B,) genes seen in each view.
    valid
        (B,) false for cells with too few genes in either view to take part.
    across
        () whether a cell is told from others in the other view alone (CLIP) or in both (NT-Xent).
    """

    cells: NDArray[np.int64]
    genes: NDArray[np.int64]
    valid: NDArray[np.bool_]
    across: NDArray[np.bool_]


def make_batch(
    settings: "ContrastiveSettings", everyone: Cells, config: "PretrainConfig", part: int, *, rank: int, world: int
) -> ContrastiveBatch:
    """The share of process `rank` in the cells of a part."""
    cells = everyone.part(rank, world)
    measured = cells.dataset.measured
    panels = np.stack([measured, measured])
    if "panels" in settings.view:
        panels = draw_panels(generator(config.seed, HIDE, part), measured, least=settings.panel_least)
    sentences, genes = [], []
    for view, panel in enumerate(panels):
        numbers = 2 * cells.samples + view
        counts = _thinned(settings, cells, config.seed, numbers) if "thin" in settings.view else cells.counts
        shown = panel[counts.indices]
        genes.append(np.bincount(rows_of(counts)[shown & (counts.data > 0)], minlength=counts.shape[0]))
        sentences.append(draw_sentences(cells, counts, ~shown, config, part, numbers=numbers))
    vectors, tokens, keep = pack(sentences)
    return ContrastiveBatch(
        species=cells.dataset.species,
        vectors=vectors,
        tokens=tokens,
        keep=keep,
        cells=cells.rows,
        genes=np.concatenate(genes),
        valid=np.minimum(*genes) >= settings.fewest_genes,
        across=np.array(settings.form == "clip" or part // config.accumulate < settings.clip_steps),
    )


def draw_panels(random: np.random.Generator, measured: NDArray[np.bool_], *, least: float) -> NDArray[np.bool_]:
    """Two panels of the measured genes that share none, (2, G); their sizes are log-uniform.

    The first has from `least` of the genes to all but so many, the second from as many to all that are left. Source:
    the published code of scConcept, without its library of designed panels.
    """
    genes = random.permutation(np.flatnonzero(measured))
    fewest = int(np.ceil(least * len(genes)))
    first = _log_uniform(random, fewest, max(len(genes) - fewest, 1))
    second = _log_uniform(random, fewest, len(genes) - first)
    panels = np.zeros((2, len(measured)), dtype=bool)
    panels[0, genes[:first]] = True
    panels[1, genes[first : first + second]] = True
    return panels


def _log_uniform(random: np.random.Generator, least: int, most: int) -> int:
    if most <= least:
        return most
    return round(float(np.exp(random.uniform(np.log(least), np.log(most)))))


def _thinned(settings: "ContrastiveSettings", cells: Cells, seed: int, numbers: NDArray[np.int64]) -> "csr_matrix":
    """Each view of each cell keeps a share of its counts, log-uniform from `thin_least` to 1."""
    randoms = [generator(seed, THIN, int(number)) for number in numbers]
    kept = [float(np.exp(random.uniform(np.log(settings.thin_least), 0))) for random in randoms]
    return thin(cells.counts, kept, randoms)
