"""Whether numbers are counts: a streaming test on a sample of rows, and the same test on every block that is read."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from uce.cells.layouts import Rows

SAMPLE_CELLS = 2048
SAMPLE_BLOCK = 64
DECIMALS = (2, 3, 4, 5)
LARGEST_LOG = 14.0  # ln(1e6 + 1) is 13.8, log2(1e4 + 1) is 13.3

Finding = Literal["counts", "empty", "negative", "not finite", "log", "fractional"]


def sample_ranges(n_cells: int) -> list[tuple[int, int]]:
    """Blocks of 64 rows, first, last and evenly between, about 2,000 cells in all: files are joined half way."""
    if n_cells <= SAMPLE_CELLS:
        starts = range(0, n_cells, SAMPLE_BLOCK)
        return [(start, min(start + SAMPLE_BLOCK, n_cells)) for start in starts]
    spaced = np.linspace(0, n_cells - SAMPLE_BLOCK, SAMPLE_CELLS // SAMPLE_BLOCK).astype(np.int64)
    return [(int(start), int(start) + SAMPLE_BLOCK) for start in spaced]


@dataclass
class Evidence:
    """What a sample of stored values looks like; blocks are added one by one and not kept."""

    cells: int = 0
    values: int = 0
    smallest: float = np.inf
    largest: float = 0.0
    negatives: int = 0
    not_finite: int = 0
    fractional: int = 0
    example: float = 0.0
    zeros: int = 0
    duplicates: int = 0
    single_precision: bool = True
    filled: int = 0
    totals: set[float] = field(default_factory=set)
    saturated: dict[int, int] = field(default_factory=lambda: {255: 0, 65535: 0})
    misfit: dict[int, float] = field(default_factory=lambda: dict.fromkeys(DECIMALS, 0.0))

    def add(self, raw: sparse.csr_matrix) -> None:
        """Take in one block of rows as stored."""
        block, zeros, duplicates = canonical(raw)
        values = block.data
        self.cells += block.shape[0]
        self.zeros += zeros
        self.duplicates += duplicates
        if not values.size:
            return
        self.values += values.size
        finite = values[np.isfinite(values)]
        self.not_finite += values.size - finite.size
        if not finite.size:
            return
        self.smallest = min(self.smallest, float(finite.min()))
        self.largest = max(self.largest, float(finite.max()))
        self.negatives += int((finite < 0).sum())
        broken = fractional(finite)
        self.fractional += int(broken.sum())
        if broken.any():
            self.example = self.example or float(finite[broken][0])
            self.single_precision &= bool((finite.astype(np.float32) == finite).all())
            for decimals in DECIMALS:
                misfit = float(np.abs(finite - np.round(finite, decimals)).max())
                self.misfit[decimals] = max(self.misfit[decimals], misfit)
        totals = np.asarray(block.sum(axis=1)).ravel()
        self.filled += int((totals > 0).sum())
        if len(self.totals) < 2:
            self.totals.update(np.unique(totals[totals > 0])[:2].tolist())
        for limit in self.saturated:
            self.saturated[limit] += int((block.max(axis=1).toarray() == limit).sum())

    @property
    def decimals(self) -> int | None:
        """To how many decimals the values were rounded, None if to none of 2 to 5."""
        return next((d for d in DECIMALS if self.misfit[d] < 1e-6), None)

    @property
    def finding(self) -> Finding:
        """The kind of numbers, by the table of thresholds in the documentation."""
        if self.not_finite:
            return "not finite"
        if self.negatives:
            return "negative"
        if not self.values:
            return "empty"
        if not self.fractional:
            return "counts"
        return "log" if self.largest < LARGEST_LOG else "fractional"

    @property
    def words(self) -> str:
        """The finding in a clause for people."""
        span = f"{self.smallest:.4g} to {self.largest:.6g}"
        return {
            "not finite": f"{self.not_finite} missing or infinite values",
            "negative": f"negative values ({span}), as after scaling, regression or Pearson residuals; no way back",
            "empty": "no value above zero",
            "counts": f"whole numbers, {span}",
            "log": f"log-like values ({span})",
            "fractional": f"fractional values ({span}, such as {self.example:.6g}), as in CPM, TPM, ambient-corrected "
            "or EM counts",
        }[self.finding]


def gather_evidence(rows: Rows, ranges: Iterable[tuple[int, int]]) -> Evidence:
    """Evidence over the given row ranges."""
    evidence = Evidence()
    for start, stop in ranges:
        evidence.add(rows.block(start, stop))
    return evidence


def fractional(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which finite values are not whole, within a millionth."""
    return np.abs(values - np.rint(values)) > 1e-6 * np.maximum(1.0, np.abs(values))


def all_whole(values: npt.NDArray[np.float64]) -> bool:
    """Whether all values are whole without any tolerance, in pieces that stay in the processor's cache."""
    pieces = (values[start : start + 65536] for start in range(0, values.size, 65536))
    return all(np.array_equal(np.rint(piece), piece) for piece in pieces)


def canonical(block: sparse.csr_matrix) -> tuple[sparse.csr_matrix, int, int]:
    """The block in float64, indices sorted, duplicates summed, zeros dropped; and how many zeros and duplicates."""
    values = block.data.astype(np.float64)
    wide = sparse.csr_matrix((values, block.indices, block.indptr), shape=block.shape, copy=False)
    if _rows_rise(wide):
        wide.has_sorted_indices = wide.has_canonical_format = True
        duplicates = 0
    else:
        wide = wide.copy()
        wide.sum_duplicates()
        duplicates = block.nnz - wide.nnz
    zeros = int(wide.nnz - np.count_nonzero(wide.data))
    if zeros:
        wide = wide.copy()
        wide.eliminate_zeros()
    return wide, zeros, duplicates


def _rows_rise(block: sparse.csr_matrix) -> bool:
    """Whether column indices strictly rise within every row."""
    if block.nnz < 2:
        return True
    rising = block.indices[1:] > block.indices[:-1]
    edges = block.indptr[1:-1]
    edges = edges[(edges > 0) & (edges < block.nnz)] - 1
    rising[edges] = True
    return bool(rising.all())


def value_warnings(evidence: Evidence, dtype: np.dtype[np.generic]) -> list[str]:
    """Remarks on whole numbers that may still not be what was counted."""
    notes = []
    if evidence.largest == 1.0 and evidence.values > 0:
        notes.append("every value is 0 or 1: the counts look binarised, so all genes of a cell weigh the same.")
    if evidence.filled > 2 and len(evidence.totals) == 1 and evidence.largest > 1:
        notes.append(
            f"every cell has the same total ({next(iter(evidence.totals)):.0f}): down-sampled, or rounded after "
            "normalising."
        )
    limit = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(np.dtype(dtype))
    if limit and evidence.saturated[limit] > 1:
        notes.append(f"{evidence.saturated[limit]} sampled cells reach {limit}, the limit of {dtype}: clipped?")
    exact = {np.dtype(np.float16): 2**11, np.dtype(np.float32): 2**24}.get(np.dtype(dtype))
    if exact and evidence.largest > exact:
        notes.append(f"values up to {evidence.largest:.0f}: {dtype} holds whole numbers exactly only to {exact}.")
    return notes
