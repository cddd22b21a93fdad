"""Two sentences of each cell that share no gene, or no molecule, or neither: what contrastive objectives are shown.

All cells of a part have the same two panels of genes, on every process: otherwise the panel would tell them apart.
Letters in shapes: B cells of one process, L tokens, G genes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from uce.errors import UsageError
from uce.training.batch import Batch, draw_sentences, pack, rows_of, thin
from uce.training.objectives.base import ObjectiveSettings, within
from uce.training.order import HIDE, THIN, generator, generators
from uce.training.stream import Cells

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.settings import PretrainConfig


@dataclass(frozen=True)
class ViewSettings(ObjectiveSettings):
    """How the two views of a cell are made.

    Raises
    ------
    UsageError
        A value out of range.
    """

    name: str = ""
    # No gene in common, or counts thinned independently, or both; "draws": two sentences of the same counts, a control.
    view: Literal["panels", "thin", "panels+thin", "draws"] = "panels+thin"
    panel_least: float = 0.02  # share of the measured genes that the smallest panel has
    thin_least: float = 0.1  # smallest share of the counts that a thinned view keeps
    fewest_genes: int = 20  # in a view; cells with fewer in either take no part

    def __post_init__(self) -> None:
        within("objective.panel_least", self.panel_least, 1e-6, 0.5)
        within("objective.thin_least", self.thin_least, 1e-6, 1)
        within("objective.fewest_genes", self.fewest_genes, 1, 1 << 20)

    def check(self, config: "PretrainConfig") -> None:
        """A cell needs others to be told from, and its views are thinned here alone."""
        if config.part_size < 2:
            msg = (
                f"batch_size / accumulate = {config.part_size}: objective.name = {self.name!r} tells such cells apart; "
                "2 or more are needed."
            )
            raise UsageError(msg)
        if config.data.thinning:
            msg = (
                f"data.thinning = {config.data.thinning!r}: objective.name = {self.name!r} thins its views itself; "
                "set it to 0 and choose objective.view."
            )
            raise UsageError(msg)


@dataclass(frozen=True, eq=False)
class ViewBatch(Batch):
    """Sentences (2B, L): the first view of every cell, then the second of every cell.

    Attributes
    ----------
    cells
        (B,) row of each cell in its dataset: a cell drawn twice is not to be told from itself.
    genes
        (2B,) genes seen in each view.
    valid
        (B,) false for cells with too few genes in either view to take part.
    """

    cells: NDArray[np.int64]
    genes: NDArray[np.int64]
    valid: NDArray[np.bool_]


def make_views(
    settings: ViewSettings, everyone: Cells, config: "PretrainConfig", part: int, *, panels: int, rank: int, world: int
) -> ViewBatch:
    """The share of process `rank` in the cells of a part; parts of the same number `panels` have the same panels."""
    cells = everyone.part(rank, world)
    measured = cells.dataset.measured
    shown_genes = np.stack([measured, measured])
    if "panels" in settings.view:
        shown_genes = draw_panels(generator(config.seed, HIDE, panels), measured, least=settings.panel_least)
    sentences, genes = [], []
    for view, panel in enumerate(shown_genes):
        numbers = 2 * cells.samples + view
        counts = _thinned(settings, cells, config.seed, numbers) if "thin" in settings.view else cells.counts
        shown = panel[counts.indices]
        genes.append(np.bincount(rows_of(counts)[shown & (counts.data > 0)], minlength=counts.shape[0]))
        sentences.append(draw_sentences(cells, counts, ~shown, config, part, numbers=numbers))
    vectors, tokens, keep = pack(sentences)
    return ViewBatch(
        species=cells.dataset.species,
        vectors=vectors,
        tokens=tokens,
        keep=keep,
        cells=cells.rows,
        genes=np.concatenate(genes),
        valid=np.minimum(*genes) >= settings.fewest_genes,
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


def _thinned(settings: ViewSettings, cells: Cells, seed: int, numbers: NDArray[np.int64]) -> "csr_matrix":
    """Each view of each cell keeps a share of its counts, log-uniform from `thin_least` to 1."""
    randoms = generators(seed, THIN, numbers)
    kept = [float(np.exp(random.uniform(np.log(settings.thin_least), 0))) for random in randoms]
    return thin(cells.counts, kept, randoms)
