"""Which cells are good enough to train on: thresholds by technology, each with the number of cells it removes."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uce.errors import UsageError
from uce.files import nearest

Mask = npt.NDArray[np.bool_]

# In the order they are applied: a cell is counted by the first that removes it.
CELL_FILTERS = ("expression", "primary", "doublets", "min_genes", "min_counts", "max_mito", "matched", "mad")
SWITCHES = ("assay", "panel", "case", *CELL_FILTERS, "max_cells", "duplicates")
MIN_PANEL = 1000

_FULL_LENGTH = re.compile(r"smart|fluidigm|\bc1\b|full.?length|\btang\b|quartz|ramda|flash.?seq|vasa", re.IGNORECASE)
_NUCLEI = re.compile(r"\bsn|nucle|multiome|dronc", re.IGNORECASE)
_DISALLOWED = re.compile(
    r"atac|visium|slide.?(seq|tag)|merfish|xenium|cosmx|spatial|seqfish|stereo.?seq|\bbulk\b", re.IGNORECASE
)
_NORMAL = 1.4826  # a standard deviation in median absolute deviations, of normal numbers


@dataclass(frozen=True)
class QualityRules:
    """Thresholds on a cell, over all genes of its file; None is the usual value of the technology.

    Attributes
    ----------
    min_genes, min_counts
        Genes seen and counts: 200 and 500, or 1,000 genes where transcripts are read in full length.
    max_mito
        Largest share of counts in mitochondrial genes: 0.2, or 0.05 of nuclei.
    min_matched
        Least share of counts in genes of the gene table, per cell and per dataset.
    mad
        Genes and counts (log) above median + this many median absolute deviations of the dataset are removed.
    max_cells
        Most cells of one dataset.
    off
        Filters that are switched off, of `SWITCHES`.
    """

    min_genes: int | None = None
    min_counts: int | None = None
    max_mito: float | None = None
    min_matched: float = 0.5
    mad: float = 5.0
    max_cells: int = 1_000_000
    off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if strange := [name for name in self.off if name not in SWITCHES]:
            msg = f"no filter {strange[0]!r}.{nearest(strange[0], list(SWITCHES))} There are: {', '.join(SWITCHES)}."
            raise UsageError(msg)
        if not (0 <= self.min_matched <= 1 and 0 <= (self.max_mito or 0) <= 1):
            msg = "a share of counts (--max-mito, --min-matched) is from 0 to 1."
            raise UsageError(msg)
        if self.mad <= 0 or self.max_cells < 1:
            msg = "--mad and --max-cells are above 0."
            raise UsageError(msg)
        object.__setattr__(self, "off", tuple(sorted(set(self.off))))

    def uses(self, name: str) -> bool:
        """Whether a filter is on."""
        return name not in self.off


@dataclass(frozen=True)
class CellFacts:
    """What the filters look at, (cells,) each.

    Attributes
    ----------
    genes, counts
        Genes seen and counts, over all genes of the file.
    mito, matched
        Counts in mitochondrial genes, and in genes of the gene table.
    primary, doublet, expression
        What obs or the manifest says of the cell; None where it says nothing.
    """

    genes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    mito: npt.NDArray[np.int64]
    matched: npt.NDArray[np.int64]
    primary: Mask | None = None
    doublet: Mask | None = None
    expression: Mask | None = None


def why_not_dataset(assay: str, n_genes: int, by_case: float, rules: QualityRules) -> str:
    """Why a dataset is left out as a whole; "" where it is not.

    Parameters
    ----------
    assay
        As the manifest or obs names it.
    n_genes
        Genes of the table that its file has columns for.
    by_case
        Share of the names found that fit a gene only when upper and lower case are not told apart.
    """
    other = _DISALLOWED.search(assay) and "multiome" not in assay.lower()
    if other and rules.uses("assay"):
        return f"assay: {assay} does not count the transcripts of single cells"
    if n_genes < MIN_PANEL and rules.uses("panel"):
        return f"panel: {n_genes} genes measured, {MIN_PANEL} needed"
    if by_case > 0.5 and rules.uses("case"):
        # Human symbols are mouse symbols in capitals, so nearly all of them fit the wrong species.
        return "case: most gene names fit the species only when case is ignored; is it the right one?"
    return ""


def judge_cells(
    facts: CellFacts, assay: str, rules: QualityRules, *, nuclei: bool = False
) -> tuple[Mask, dict[str, int]]:
    """Apply the filters that are on.

    Parameters
    ----------
    facts
        Of all cells of a dataset.
    assay
        Text by which full-length methods and nuclei are told.
    nuclei
        Whether the file says that these are nuclei.

    Returns
    -------
    keep
        (cells,)
    removed
        Filter -> cells it removed that none before it had, "empty" (no count in a gene of the table) first. With the
        cells kept they add up to all.
    """
    keep = facts.matched > 0
    removed = {"empty": int((~keep).sum())}
    for name, passed in _verdicts(facts, assay, rules, nuclei=nuclei).items():
        if rules.uses(name):
            removed[name] = int((keep & ~passed).sum())
            keep = keep & passed
    return keep, removed


def _verdicts(facts: CellFacts, assay: str, rules: QualityRules, *, nuclei: bool) -> dict[str, Mask]:
    """Filter -> which cells pass it, in the order of `CELL_FILTERS`; without those that nothing is known for."""
    full_length = _FULL_LENGTH.search(assay) is not None
    min_genes = (1000 if full_length else 200) if rules.min_genes is None else rules.min_genes
    min_counts = (0 if full_length else 500) if rules.min_counts is None else rules.min_counts
    usual_mito = 0.05 if nuclei or _NUCLEI.search(assay) else 0.2
    max_mito = usual_mito if rules.max_mito is None else rules.max_mito
    verdicts = {
        "expression": facts.expression,
        "primary": facts.primary,
        "doublets": None if facts.doublet is None else ~facts.doublet,
        "min_genes": facts.genes >= min_genes,
        "min_counts": facts.counts >= min_counts,
        "max_mito": facts.mito <= max_mito * facts.counts,
        "matched": facts.matched >= rules.min_matched * facts.counts,
    }
    known = {name: passed for name, passed in verdicts.items() if passed is not None}
    # Outliers are judged among the cells that are sound otherwise.
    sound = np.logical_and.reduce([passed for name, passed in known.items() if rules.uses(name)] or [facts.genes > 0])
    known["mad"] = _below_outliers(facts.genes, sound, rules.mad) & _below_outliers(facts.counts, sound, rules.mad)
    return known


def _below_outliers(values: npt.NDArray[np.int64], sound: Mask, width: float) -> Mask:
    logs = np.log1p(values)
    if not sound.any():
        return np.ones(len(values), dtype=bool)
    median = np.median(logs[sound])
    spread = _NORMAL * np.median(np.abs(logs[sound] - median))
    # Cells that all have one depth have no spread, and no outliers that it could tell.
    return np.asarray(logs <= median + width * spread) if spread else np.ones(len(values), dtype=bool)
