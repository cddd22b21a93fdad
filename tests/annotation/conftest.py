"""Planted vectors: labels as clusters, donors as small shifts, so that every truth is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from uce.annotation.reference import Reference


@dataclass(frozen=True)
class World:
    """Clusters on a sphere; `cells` draws some of a donor."""

    centres: np.ndarray
    spread: float
    donor_shift: float

    def cells(self, labels: np.ndarray, donor: int, seed: int = 0) -> np.ndarray:
        """(cells, dim) unit vectors of cells with these label numbers."""
        dim = self.centres.shape[1]
        shift = self.donor_shift * np.random.default_rng([99, donor]).standard_normal((len(self.centres), dim))
        noise = self.spread * np.random.default_rng([seed, donor]).standard_normal((len(labels), dim))
        vectors = self.centres[labels] + shift[labels] + noise
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def reference(self, donors: int, cells: int, labels: int, seed: int = 0) -> Reference:
        """`cells` cells of each of `donors` donors, of the first `labels` labels."""
        codes = np.random.default_rng(seed).integers(labels, size=(donors, cells))
        vectors = np.concatenate([self.cells(codes[donor], donor, seed) for donor in range(donors)])
        names = np.array([f"type {code}" for code in codes.ravel()])
        groups = np.repeat([f"donor {donor}" for donor in range(donors)], cells)
        return Reference(names, vectors, groups, np.arange(len(names)), {})


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """A function (labels, spread, donor_shift) -> World; small spread: labels far apart."""

    def make(labels: int = 5, spread: float = 0.05, donor_shift: float = 0.02, dim: int = 20, seed: int = 3) -> World:
        return World(np.random.default_rng(seed).standard_normal((labels, dim)) / dim**0.5, spread, donor_shift)

    return make
