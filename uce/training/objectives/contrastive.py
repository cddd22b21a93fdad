"""The contrastive objective: which two views are of one cell? After scConcept (bioRxiv 2025.10.14.682419).

Letters in shapes: B cells of one process, n = 2B views of them, m views of all processes, D width of a cell vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uce.training.objectives.base import Objective, cell_vectors, within
from uce.training.objectives.collapse import doubts, effective_rank, kernel, scatter, told_by_length
from uce.training.objectives.gather import gather, place
from uce.training.objectives.views import ViewBatch, ViewSettings, make_views

if TYPE_CHECKING:
    from uce.model.encoder import Encoder, ModelConfig
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells

_LARGEST_LOG_SCALE = math.log(100)  # temperature 0.01, as in CLIP


@dataclass(frozen=True, eq=False)
class ContrastiveBatch(ViewBatch):
    """Two views of each cell.

    Attributes
    ----------
    across
        () whether a cell is told from others in the other view alone (CLIP) or in both (NT-Xent).
    """

    across: NDArray[np.bool_]


@dataclass(frozen=True)
class ContrastiveSettings(ViewSettings):
    """How the two views of a cell are made, and what they are told from.

    Raises
    ------
    UsageError
        A value out of range.
    """

    name: Literal["contrastive"] = "contrastive"
    form: Literal["clip", "ntxent"] = "ntxent"  # told from cells in the other view, or in both
    # First steps that have the form "clip" whatever `form` says: at the start panels differ more than cells do, and the
    # quickest way to tell cells from others of their own view is to make all vectors alike. Published: 10,000.
    clip_steps: int = 1000
    log_scale: float = 3.0  # ln(1 / temperature) at the start; it is learned, up to ln 100
    cache_cells: int = 0  # sentences encoded at a time, for batches beyond memory; 0: all

    def __post_init__(self) -> None:
        super().__post_init__()
        within("objective.clip_steps", self.clip_steps, 0, 1 << 40)
        within("objective.log_scale", self.log_scale, 0, _LARGEST_LOG_SCALE)
        within("objective.cache_cells", self.cache_cells, 0, 1 << 40)

    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> ContrastiveBatch:
        """Two sentences of each cell."""
        views = make_views(self, cells, config, part, panels=part, rank=rank, world=world)
        across = self.form == "clip" or part // config.accumulate < self.clip_steps
        return ContrastiveBatch(**vars(views), across=np.array(across))

    def build(self, model: "ModelConfig") -> "ContrastiveObjective":  # noqa: ARG002  (no head: vectors are compared)
        """The temperature."""
        return ContrastiveObjective(self)


@dataclass(frozen=True)
class Comparison:
    """Which view is compared with which: n views of this process with m of all.

    Attributes
    ----------
    rows
        The columns that are this process's own views.
    second
        (m,) whether it is a second view.
    taking
        (m,) whether its cell takes part.
    positive
        (n, m) the other view of the same cell.
    others
        (n, m) views of other cells that take part.
    """

    rows: slice
    second: Tensor
    taking: Tensor
    positive: Tensor
    others: Tensor

    @property
    def opposite(self) -> Tensor:
        """(n, m) second views for first ones, first for second."""
        return self.second[self.rows, None] != self.second


def compare(cells: Tensor, valid: Tensor) -> Comparison:
    """The comparison of the views of `cells` (B,), of which `valid` (B,) take part, with those of all processes.

    Each process brings its first views, then its second ones. A cell that was drawn twice is not among its others.
    """
    n = 2 * len(cells)
    cell, taking = gather(cells.repeat(2)), gather(valid.repeat(2).to(torch.uint8)).bool()
    start, columns = place() * n, torch.arange(len(cell), device=cell.device)
    own = columns[:n]
    partner = start + (own + n // 2) % n
    rows = slice(start, start + n)
    return Comparison(
        rows=rows,
        second=columns % n >= n // 2,
        taking=taking,
        positive=partner[:, None] == columns,
        others=(cell[rows, None] != cell) & taking,
    )


def info_nce(similarity: Tensor, scale: Tensor, positive: Tensor, others: Tensor) -> Tensor:
    """-log of the softmax share of the positive among itself and the others, (n,) nats; van den Oord et al. 2018.

    Parameters
    ----------
    similarity
        (n, m) cosines.
    scale
        () 1 / temperature.
    positive, others
        (n, m) booleans; one positive in each row. What is neither has no share at all.
    """
    logits = scale * similarity
    known = logits.masked_fill(~(positive | others), -math.inf)
    return known.logsumexp(dim=1) - logits[positive]


class ContrastiveObjective(Objective):
    """A learned temperature. With W processes each compares its own cells with all, see `gather`."""

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.log_scale = nn.Parameter(torch.tensor([settings.log_scale]))  # no matrix, so not decayed

    @torch.no_grad()
    def constrain(self) -> None:
        """Limit the value and not its use: beyond a limit of the latter no gradient leads back."""
        self.log_scale.clamp_(max=_LARGEST_LOG_SCALE)

    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the views of a `ContrastiveBatch` whose cells take part, see `compare_vectors`."""
        return self.compare_vectors(cell_vectors(encoder, batch, at_once=self.settings.cache_cells), batch)

    def compare_vectors(self, own: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the views of this process.

        Parameters
        ----------
        own
            (n, D) cell vectors of length 1, first views before second ones.
        batch
            `cells`, `valid` (B,), `genes` (n,), `across` ().

        Returns
        -------
        loss, views
            Cross-entropies in nats and their number: their ratio is the loss. The rest is for the log, see `fields`.
        """
        with torch.autocast(own.device.type, enabled=False):
            pairs = compare(batch["cells"], batch["valid"])
            everyone = gather(own)
            similarity = own @ everyone.T
            told_from = pairs.others & (pairs.opposite | ~batch["across"])
            losses = info_nce(similarity, self.log_scale.exp(), pairs.positive, told_from)
            with torch.no_grad():
                watched = _watch(similarity, pairs, gather(batch["genes"]))
            watched["loss_chance"] = (told_from.sum(dim=1) + 1).log()
            watched["scale"] = self.log_scale.detach().expand_as(losses)
            weight = pairs.taking[pairs.rows].to(losses.dtype)
            return {
                **{name: (weight * value).sum() for name, value in {"loss": losses, **watched}.items()},
                "views": weight.sum(),
                "skipped": (1 - weight).sum() / 2,
                "scatter": scatter(everyone.detach(), pairs.taking, own=pairs.rows),
            }

    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over the views of the batch, also those that take no part: a constant, so that processes add up."""
        return sums["loss"] / len(batch["genes"])

    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:
        """The loss beside that of guessing, what finds a cell among the others, and how vectors are spread.

        `recall` is the share of views whose nearest view of the other kind is their own cell's, `recall_length` that
        of a matcher that sees the number of genes alone, `recall_chance` that of guessing. `alignment` is the mean
        squared distance of two views of a cell, `effective_rank` that of vectors within a batch.
        """
        views = max(float(totals["views"]), 1.0)
        names = ("loss", "loss_chance", "recall", "recall_chance", "recall_length", "alignment")
        values = {name: float(totals[name]) / views for name in names}
        values["uniformity"] = math.log(max(float(totals["kernel"]) / views, math.exp(-8)))  # the least of a pair
        values["effective_rank"] = effective_rank(totals["scatter"])
        values["temperature"] = math.exp(-float(totals["scale"]) / views)
        values["skipped_cells"] = float(totals["skipped"])
        found = doubts(values, step=step)
        return {**values, "suspect": found} if found else values


def _watch(similarity: Tensor, pairs: Comparison, genes: Tensor) -> dict[str, Tensor]:
    """What the log shows of each view, (n,)."""
    candidates = pairs.positive | (pairs.others & pairs.opposite)
    nearest = similarity.masked_fill(~candidates, -math.inf).argmax(dim=1)
    lengths = genes.clamp(min=1).log()
    for view in (pairs.second, ~pairs.second):
        taking = view & pairs.taking
        lengths = torch.where(view, lengths - lengths[taking].sum() / taking.sum().clamp(min=1), lengths)
    return {
        "recall": pairs.positive.gather(1, nearest[:, None]).squeeze(1),
        "recall_chance": 1 / candidates.sum(dim=1),
        "recall_length": told_by_length(lengths[pairs.rows], lengths, pairs.positive, candidates),
        "alignment": 2 - 2 * similarity[pairs.positive],
        "kernel": kernel(similarity, pairs.others),
    }
