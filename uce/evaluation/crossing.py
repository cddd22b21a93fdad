"""Two data sets as every space of theirs is judged: how cells are held out, and what their own data say."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uce.evaluation.carrying import Side
from uce.evaluation.cells import Cells
from uce.evaluation.context import Settings
from uce.evaluation.embeddings import Embedding, Floats
from uce.evaluation.pairing import Pair
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.scgraph import Yardstick, yardstick
from uce.evaluation.splits import Split, make_split


@dataclass(frozen=True, eq=False)
class Crossing:
    """What all spaces of a pair have in common.

    Attributes
    ----------
    pair
        The cells.
    settings
        How they are judged.
    before
        (cells of both, dim) a space in which nothing was corrected, or None.
    """

    pair: Pair
    settings: Settings
    before: Floats | None = None

    @cached_property
    def splits(self) -> tuple[Split, Split]:
        """How the cells with a shared label are held out within each side; marked where only cells can be."""
        first, second = (self._split(cells) for cells in self.pair.sides)
        return first, second

    def _split(self, cells: Cells) -> Split:
        some = cells.take(np.flatnonzero(np.isin(cells.labels, self.pair.shared)))
        return make_split(
            some.labels,
            datasets=some.datasets,
            assays=some.assays,
            groups=some.groups,
            batches=some.batches,
            counts=some.counts,
            random_split=True,
            seed=self.settings.seed,
        )

    @cached_property
    def yardsticks(self) -> tuple[Yardstick | str, Yardstick | str]:
        """What each side's own data say about the distances between its labels, or why they cannot."""
        first, second = (_yardstick(cells) for cells in self.pair.sides)
        return first, second

    def without(self, embedding: Embedding) -> "Crossing":
        """Of the cells that have a vector in `embedding`."""
        if embedding.rows is None:
            return self
        before = None if self.before is None else self.before[embedding.rows]
        return Crossing(self.pair.take(embedding.rows), self.settings, before)

    def side(self, number: int, vectors: Floats) -> Side:
        """One of the two in the space `vectors` (cells of both, dim)."""
        cells = self.pair.sides[number]
        mine = slice(0, len(self.pair.first)) if number == 0 else slice(len(self.pair.first), None)
        return Side(cells.name, vectors[mine], cells.labels, cells.groups, self.splits[number])


def _yardstick(cells: Cells) -> Yardstick | str:
    batches = np.full(len(cells), cells.name) if cells.batches is None else cells.batches
    try:
        return yardstick(cells.log_counts, cells.labels, batches)
    except NotPossible as reason:
        return str(reason)


Part = Callable[[Crossing, Embedding], Findings]
