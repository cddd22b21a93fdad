"""What every task is given beside the embedding: the cells, the settings, and neighbours that are found once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Embedding
from uce.evaluation.neighbors import Neighbors, find_neighbors

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Settings:
    """How cells are judged, whatever they are.

    Attributes
    ----------
    max_cells
        More are drawn from, stratified by batch and label.
    seeds
        How many such draws are judged, and how many copies of what starts from random numbers.
    seed
        Of everything random.
    bootstrap
        Draws of groups for an interval.
    robustness_cells
        Cells that are embedded again under every perturbation.
    manifest
        A training manifest (folder or file) to look for leakage in, beside the one of the model.
    random_split
        Allow a split that ignores groups where there are none; such scores are watermarked.
    threads
        Of the linear algebra in the process of the scIB task.
    """

    max_cells: int = 20_000
    seeds: int = 3
    seed: int = 0
    bootstrap: int = 1000
    robustness_cells: int = 500
    manifest: Path | None = None
    random_split: bool = False
    threads: int = 2


@dataclass(frozen=True, eq=False)
class Context:
    """One pass over the cells: a task is `run(context, embedding) -> Findings`.

    `embedding.vectors` has a row for each of `cells`; rows without a finite vector were taken out of both.
    """

    cells: Cells
    settings: Settings
    _found: dict[tuple[str, str, int], Neighbors] = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict)

    def neighbors(self, embedding: Embedding, k: int, *, metric: str = "euclidean") -> Neighbors:
        """The k nearest other cells of every cell, exact; found once per embedding and metric, for the largest k.

        Parameters
        ----------
        metric
            `euclidean` or `cosine`.
        """
        k = min(k, len(embedding.vectors) - 1)
        key = (embedding.name, metric, len(embedding.vectors))
        if key not in self._found or self._found[key].k < k:
            self._found[key] = find_neighbors(embedding.vectors, max(k, 90), metric=metric)
        return self._found[key].first(k)

    def once(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What `make` gives, made when first asked for: what several tasks need is found by the first of them."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: Kept = self._kept[name]
        return kept

    def of(self, embedding: Embedding) -> Self:
        """The context of an embedding that lacks some cells."""
        if embedding.rows is None:
            return self
        return type(self)(self.cells.take(embedding.rows), self.settings)

    def rng(self, *words: int) -> np.random.Generator:
        """A generator of its own for every use."""
        return np.random.default_rng([self.settings.seed, *words])
