"""Cells whose labels, donors and vectors are made to a plan."""

from collections.abc import Callable

import numpy as np
import pytest

from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding

World = tuple[Context, Embedding]


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """A function -> (context, embedding) of cells around the centres of their labels, moved by their donors.

    `apart` is the distance of the labels, `donor` how far a donor moves all its cells, `own` how far it moves the cells
    of a label in a direction of their own; noise is 1 in every direction.
    """

    def make(
        cells: int = 600,
        labels: int = 4,
        donors: int = 6,
        dim: int = 12,
        apart: float = 3.0,
        donor: float = 0.0,
        own: float = 0.0,
        seed: int = 0,
        **settings: object,
    ) -> World:
        rng = np.random.default_rng(seed)
        label, group = rng.integers(labels, size=cells), np.arange(cells) % donors
        vectors = (
            apart * rng.standard_normal((labels, dim))[label] / np.sqrt(2)
            + donor * rng.standard_normal((donors, dim))[group]
            + own * rng.standard_normal((donors, labels, dim))[group, label]
            + rng.standard_normal((cells, dim))
        )
        names = np.asarray([f"cell {i}" for i in range(cells)], dtype=object)
        texts = np.asarray([f"type {i}" for i in label]), np.asarray([f"donor {i}" for i in group])
        world = Cells("world", names, texts[0], groups=texts[1])
        return Context(world, Settings(bootstrap=200, **settings)), Embedding(
            "made", vectors.astype(np.float32), "given"
        )  # type: ignore[arg-type]

    return make
