"""What must hold of a model whatever the cells: the order of columns, and other cells, do not matter; gene names do."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from uce.engines import Reader, embed_cells, prepare_reader
from uce.evaluation.bench import Bench
from uce.evaluation.robustness import Floats, cosines, largest_difference
from uce.evaluation.spoiling import exchange_genes

_FEW = 64  # cells, enough for a largest difference
_EXACT, _NEARLY = 1e-5, 1e-4
_LEFT = 0.25  # of what the vectors say about labels, that may be left without gene names


@dataclass(frozen=True)
class Check:
    """A number, and whether it is as it must be; None where it is only stated."""

    name: str
    value: float
    passed: bool | None
    note: str

    def row(self) -> dict[str, Any]:
        """For the report."""
        return {"name": self.name, "passed": self.passed, "value": self.value, "note": self.note}


def exchanged_genes(bench: Bench, accuracy: float) -> Check:
    """Counts under the names of other genes must mean next to nothing among cells with the right names."""
    places = np.arange(bench.counts.shape[1])
    places[bench.genes] = bench.rng(5).permutation(bench.genes)
    found = bench.point(0, exchange_genes(bench.counts, places))["accuracy"]
    asked = bench.cells.labels[bench.reference.asked]
    chance = float(np.unique(asked, return_counts=True)[1].max(initial=0) / max(1, len(asked)))
    words = f"gene names exchanged; {accuracy:.3f} with the right ones, {chance:.3f} by always giving the same label"
    if not accuracy > chance:
        return Check("permuted_genes_accuracy", found, None, f"{words}: there was nothing to lose")
    limit = chance + _LEFT * (accuracy - chance)
    return Check("permuted_genes_accuracy", found, bool(found <= limit), f"{words}; at most {limit:.3f} may be left")


def column_order(bench: Bench) -> Check:
    """Columns in another order."""
    counts, match = _few(bench), bench.reader.match
    order = bench.rng(6).permutation(counts.shape[1])
    resolution = replace(match.resolution, rows=match.resolution.rows[order], reasons=match.resolution.reasons[order])
    moved = csr_matrix(counts[:, order])
    moved.sort_indices()
    again = _vectors(moved, replace(bench.reader, match=replace(match, resolution=resolution)))
    found = largest_difference(_vectors(counts, bench.reader), again)
    note = "columns in another order: " + ("equal to the bit" if found == 0 else f"must be {_EXACT:g} at most")
    return Check("column_shuffle_max_difference", found, found <= _EXACT, note)


def company(bench: Bench) -> Check:
    """Rows in another order, a cell alone, other sizes of a batch."""
    counts, reader = _few(bench), bench.reader
    before = bench.before.vectors[: counts.shape[0]]
    order = bench.rng(7).permutation(counts.shape[0])
    sized = [replace(reader, settings=replace(reader.settings, batch_size=size)) for size in (1, 7, 64)]
    worst = max(
        largest_difference(_vectors(counts[order], reader), before[order]),
        largest_difference(_vectors(counts[:1], reader), before[:1]),
        *(largest_difference(_vectors(counts, other), before) for other in sized),
    )
    note = f"rows in another order, a cell alone, batches of 1, 7 and 64: must be {_NEARLY:g} at most"
    return Check("company_max_difference", worst, worst <= _NEARLY, note)


def ten_times(bench: Bench) -> Check:
    """Ten times the counts. Not a test: genes are drawn by log1p(count), so they are not without effect."""
    found = _likeness(bench, _vectors(_few(bench) * 10, bench.reader))
    return Check("counts_times_10_cosine", found, None, "genes are drawn by log1p(count), so scale has some effect")


def precision(bench: Bench) -> Check:
    """Computed in the other precision."""
    reader, settings = bench.reader, bench.reader.settings
    other = replace(settings, precision="fp32" if settings.precision == "bf16" else "bf16")
    found = _likeness(bench, _vectors(_few(bench), prepare_reader(reader.model, reader.match, other)))
    return Check("precision_cosine", found, None, f"{other.precision} against {settings.precision}")


def _few(bench: Bench) -> csr_matrix:
    return bench.counts[:_FEW]


def _vectors(counts: csr_matrix, reader: Reader) -> Floats:
    return embed_cells(counts, reader).vectors


def _likeness(bench: Bench, vectors: Floats) -> float:
    return float(cosines(vectors, bench.before.vectors[: len(vectors)]).mean())
