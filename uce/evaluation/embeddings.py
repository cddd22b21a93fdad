"""The vectors that are judged: what they are, and the same form for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.results import NotPossible

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Kind = Literal["own", "given", "baseline", "control"]
_LARGEST = 1e17  # squares of thousands of such numbers can be added up in float32


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors of the judged cells.

    Attributes
    ----------
    name
        Unique among the rows of a report.
    vectors
        (cells, dim) float32, dense and finite.
    kind
        `own`: by a model of ours; `given`: found in `obsm`; `baseline`; `control`.
    title
        What it is, for a reader, in a few words.
    transductive
        Whether something was fitted on the very cells that are judged (and may not be fitted on a part of them).
    refit
        For vectors that something was fitted for: (mask of the cells to fit on) -> vectors (cells, dim) of all cells.
    note
        What a reader must know.
    seconds
        It took to make them.
    rows
        (cells,) which of all judged cells these are, where some had no vector.
    left_out
        How many judged cells have no finite vector.
    """

    name: str
    vectors: Floats
    kind: Kind
    title: str = ""
    transductive: bool = False
    refit: Callable[[Mask], Floats] | None = None
    note: str = ""
    seconds: float = 0.0
    rows: NDArray[np.int64] | None = None
    left_out: int = 0

    @property
    def any_finite(self) -> bool:
        """Whether any cell has a vector without NaN and infinities."""
        return bool(np.isfinite(self.vectors).all(axis=1).any())

    def fitted_on(self, train: Mask) -> Floats:
        """Vectors of all cells with everything fitted on the cells of `train` alone, where that is possible."""
        return self.vectors if self.refit is None else self.refit(train)

    def finite(self) -> Self:
        """Without the rows that hold NaN or infinities; `rows` says which are left.

        Raises
        ------
        NotPossible
            No row is finite.
        """
        there: Mask = np.asarray(np.isfinite(self.vectors).all(axis=1))
        if not there.any():
            msg = f"no cell has a finite vector in {self.name}"
            raise NotPossible(msg)
        if there.all() or self.rows is not None:
            return self
        refit = self.refit
        again = None if refit is None else lambda train: refit(_scattered(train, there))[there]
        return replace(
            self,
            vectors=np.ascontiguousarray(self.vectors[there]),
            rows=np.flatnonzero(there),
            left_out=int((~there).sum()),
            refit=again,
        )

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Of some cells only, by position; what was fitted is then fitted on cells among them."""
        refit, n = self.refit, len(self.vectors)

        def again(train: Mask) -> Floats:
            assert refit is not None
            mask = np.zeros(n, dtype=bool)
            mask[rows[train]] = True
            return refit(mask)[rows]

        return replace(self, vectors=self.vectors[rows], refit=None if refit is None else again)


def _scattered(train: Mask, there: Mask) -> Mask:
    mask = np.zeros(len(there), dtype=bool)
    mask[np.flatnonzero(there)[train]] = True
    return mask


def as_vectors(values: Any, n_cells: int, name: str) -> Floats:
    """Anything that `obsm` may hold (array, sparse, DataFrame, any number type) as (cells, dim) float32.

    Raises
    ------
    NotPossible
        It is no matrix of numbers with a row per cell.
    """
    dense = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if np.iscomplexobj(dense):
        msg = f"{name} holds complex numbers; real ones are needed"
        raise NotPossible(msg)
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            vectors = np.ascontiguousarray(dense, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"{name} does not hold numbers"
        raise NotPossible(msg) from error
    if vectors.ndim != 2 or len(vectors) != n_cells or not vectors.shape[1]:
        msg = f"{name} has shape {vectors.shape}; {n_cells} rows of one or more numbers are needed"
        raise NotPossible(msg)
    if (beyond := np.abs(vectors) > _LARGEST).any():
        return np.where(beyond, np.inf, vectors).astype(np.float32)
    return vectors
