"""The exact way back from log1p of normalised counts to the counts themselves, or the finding that there is none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

BASES = {"e": float(np.e), "2": 2.0, "10": 10.0}


@dataclass(frozen=True)
class LogScale:
    """How a matrix of `log_b(1 + k * m)` was made: k whole, m one number per cell.

    Attributes
    ----------
    base : base of the logarithm.
    precision : relative precision of the stored values (eps of their float type).
    decimals : number of decimals the values were rounded to, None if they were not.
    factors : (cells,) m of every cell, from a column with total counts; None to fit m to each cell.
    origin : in words, where m comes from.
    """

    base: float
    precision: float
    decimals: int | None = None
    factors: npt.NDArray[np.float64] | None = None
    origin: str = "the smallest value of a cell taken as one count"

    def tolerance(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Largest difference by which a stored value may miss its recomputed one.

        A fitted m carries the rounding of the values it was fitted to, hence twice the half unit.
        """
        if self.decimals is None:
            return 4 * self.precision * (1 + values)
        return np.full(values.shape, (1.0 if self.factors is None else 0.55) * 10.0**-self.decimals)


@dataclass(frozen=True)
class Undone:
    """Counts of a block of cells, and for which cells they reproduce the stored values.

    Attributes
    ----------
    counts : (cells, genes) CSR, whole numbers.
    accepted : (cells,) whether the cell was recovered exactly.
    largest_residual : largest distance, in counts, of a value from the whole number taken for it.
    """

    counts: sparse.csr_matrix
    accepted: npt.NDArray[np.bool_]
    largest_residual: float


def undo_log(block: sparse.csr_matrix, scale: LogScale, *, start: int = 0) -> Undone:
    """Recover the whole counts k of `log_b(1 + k * m)` for every cell of a block whose first row is cell `start`.

    A cell is accepted only if transforming its counts again gives every stored value within the tolerance of the
    storage, and if that tolerance is narrower than half a count, so that no second whole number would do.

    Parameters
    ----------
    block : (cells, genes) CSR, canonical, values above zero.
    """
    n_cells = block.shape[0]
    lengths = np.diff(block.indptr)
    cell = np.repeat(np.arange(n_cells), lengths)
    values = block.data.astype(np.float64)
    log_base = np.log(scale.base)
    linear = np.expm1(values * log_base)
    if scale.factors is None:
        counts, unit = _fit_units(linear, cell, block.indptr)
    else:
        unit = scale.factors[start : start + n_cells]
        counts = np.rint(linear / unit[cell])
    per_value = unit[cell]
    tolerance = scale.tolerance(values)
    again = np.log1p(counts * per_value) / log_base
    # exp(v) - 1 moves by (1 + e) * ln(b) per unit of v.
    width = tolerance * (1 + linear) * log_base / per_value
    good = (counts >= 1) & (np.abs(again - values) <= tolerance) & (width < 0.5)
    bad_values = np.bincount(cell[~good], minlength=n_cells)
    residual = np.abs(linear / per_value - counts)
    recovered = sparse.csr_matrix((counts, block.indices, block.indptr), shape=block.shape)
    return Undone(recovered, bad_values == 0, float(residual.max(initial=0.0)))


def _fit_units(
    linear: npt.NDArray[np.float64], cell: npt.NDArray[np.intp], indptr: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Counts and the linear value of one count per cell, by weighted least squares from the smallest value."""
    n_cells = len(indptr) - 1
    filled = np.diff(indptr) > 0
    unit = np.ones(n_cells)
    if filled.any():
        unit[filled] = np.minimum.reduceat(linear, indptr[:-1][filled])
    weights = 1 / (1 + linear) ** 2
    counts = np.rint(linear / unit[cell])
    for _ in range(3):
        above = np.bincount(cell, weights * counts * linear, minlength=n_cells)
        below = np.bincount(cell, weights * counts * counts, minlength=n_cells)
        unit = np.divide(above, below, out=unit, where=below > 0)
        counts = np.rint(linear / unit[cell])
    return counts, unit


def total_scales(
    totals: dict[str, npt.NDArray[np.float64]], *, base: float, precision: float, decimals: int | None
) -> list[LogScale]:
    """One candidate per column of total counts and per usual size factor (1e4, 1e6, the median total)."""
    scales = []
    for column, total in totals.items():
        if not (np.isfinite(total).all() and (total > 0).any()):
            continue
        safe = np.where(total > 0, total, 1.0)
        for target, words in ((1e4, "10,000"), (1e6, "1,000,000"), (float(np.median(total)), "the median total")):
            origin = f"obs['{column}'] as total counts, scaled to {words}"
            scales.append(LogScale(base, precision, decimals, target / safe, origin))
    return scales
