"""Two data sets side by side: their labels made one set, and every way to put their cells into one space."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.baselines import BASELINES
from uce.evaluation.baselines.harmony import mix_batches
from uce.evaluation.baselines.pca import principal_components
from uce.evaluation.baselines.variable_genes import variable_genes
from uce.evaluation.candidates import OWN_TITLE, Candidate, attempt, embed_own, make_baseline
from uce.evaluation.cells import Cells, Texts, log_cp10k
from uce.evaluation.controls import make_controls
from uce.evaluation.embeddings import Embedding
from uce.evaluation.label_map import harmonise
from uce.evaluation.orthology import SharedGenes, shared_genes
from uce.evaluation.results import NotPossible
from uce.evaluation.saving import Pieces
from uce.genes.kinds import BUNDLED_ENCODER, plain_kind
from uce.genes.orthologs import Orthologs

# Of the four controls those that say something between two data sets: nothing carried, everything carried.
CONTROLS = ("shuffled", "oracle")
UNCORRECTED = "ortholog-pca"
VARIABLE_IN_EACH = 4000  # of which about 1,500 are the same in both
BUILT_IN = (
    "one-to-one orthologues have equal gene vectors by construction: part of any agreement between species is built in"
)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two data sets with one set of labels.

    Attributes
    ----------
    first, second
        The cells, with harmonised labels and different names.
    shared
        Labels that both have.
    mapping
        See `label_map.Harmonised`.
    """

    first: Cells
    second: Cells
    shared: tuple[str, ...]
    mapping: tuple[dict[str, Any], ...] = ()

    @property
    def sides(self) -> tuple[Cells, Cells]:
        """Both."""
        return self.first, self.second

    @cached_property
    def side_of(self) -> Texts:
        """(cells of both,) name of the side."""
        return np.repeat([self.first.name, self.second.name], [len(self.first), len(self.second)])

    @property
    def species(self) -> tuple[str, str]:
        """Of each side; "" where the genes were not read."""
        names = [side.reader.match.table.species if side.reader else "" for side in self.sides]
        return names[0], names[1]

    @property
    def several_species(self) -> bool:
        """Whether the two sides are known to be of different species."""
        return all(self.species) and self.species[0] != self.species[1]

    @cached_property
    def joined(self) -> Cells:
        """The cells of both, first's first, the side as batch; names and groups say the side."""
        return Cells(
            f"{self.first.name} and {self.second.name}",
            np.concatenate([_told(side, side.names) for side in self.sides]).astype(object),
            np.concatenate([side.labels for side in self.sides]),
            batches=self.side_of,
            groups=np.concatenate([_told(side, side.groups) for side in self.sides]),
            rows=np.concatenate([side.rows for side in self.sides]),
            why_no_counts="two data sets have different genes",
        )

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Some of the cells, by position among the cells of both, ascending."""
        mine = rows < len(self.first)
        first, second = self.first.take(rows[mine]), self.second.take(rows[~mine] - len(self.first))
        both = set(self.shared) & set(first.labels.tolist()) & set(second.labels.tolist())
        return replace(self, first=first, second=second, shared=tuple(sorted(both)))


def _told(side: Cells, values: Any) -> Texts:
    if values is None:
        return np.full(len(side), side.name)
    return np.array([f"{side.name}: {value}" for value in values], dtype=np.str_)


def pair_up(
    first: Cells, second: Cells, label_map: Mapping[tuple[str, str], str] | None
) -> tuple[Pair, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Both data sets with one set of labels, and which cells of each are left.

    Cells whose label the map leaves empty are left out.

    Raises
    ------
    InputError
        No label is shared, or the map is of other data sets.
    """
    if first.name == second.name:
        first, second = replace(first, name=f"{first.name} (1)"), replace(second, name=f"{second.name} (2)")
    labels = harmonise(first.labels, second.labels, label_map, [_names(first), _names(second)])
    kept = np.flatnonzero(labels.first != ""), np.flatnonzero(labels.second != "")
    sides = [
        replace(cells, labels=made).take(rows)
        for cells, made, rows in zip((first, second), (labels.first, labels.second), kept, strict=True)
    ]
    return Pair(sides[0], sides[1], labels.shared, labels.mapping), kept


def _names(cells: Cells) -> tuple[str, ...]:
    """What the column `file` of a label map may call this side."""
    species = () if cells.reader is None else (cells.reader.match.table.species,)
    return (cells.name, f"{cells.name}.h5ad", *species)


def gather_spaces(
    pair: Pair,
    given: Sequence[tuple[Embedding, Embedding]],
    orthologs: Orthologs | None,
    *,
    seed: int,
    quiet: bool = False,
) -> tuple[list[Candidate], SharedGenes | None]:
    """Every space that both data sets are in, ours first, controls last; and the genes that they share, if any.

    Raises
    ------
    InputError
        The list of orthologues is not of these species.
    """
    found, nowhere = [], Pieces(None, {})
    if all(side.reader is not None for side in pair.sides):
        name = pair.first.need_reader().model.name
        make: Callable[[Cells], Embedding] = partial(embed_own, pieces=nowhere, quiet=quiet)
        found.append(attempt(name, "own", OWN_TITLE, partial(_both, pair, make)))
    found += [attempt(one.name, "given", "in both files", partial(_stacked, one, other)) for one, other in given]
    make = partial(make_baseline, name="mean-genes", pieces=nowhere, seed=seed)
    found.append(attempt("mean-genes", "baseline", BASELINES["mean-genes"].title, partial(_both, pair, make)))
    genes, why = _shared(pair, orthologs)
    for name, title, corrected in (
        (UNCORRECTED, "50 principal components of the shared genes", False),
        ("ortholog-harmony", "Harmony on these components, the data sets as batches", True),
    ):
        fit = partial(_ortholog_space, pair, genes, corrected=corrected, seed=seed) if genes else partial(_refuse, why)
        space = attempt(name, "baseline", title, fit)
        found.append(replace(space, embedding=space.embedding and replace(space.embedding, name=name, title=title)))
    first = next((one.embedding for one in found if one.embedding is not None and one.embedding.any_finite), None)
    controls = make_controls(pair.joined, first, seed=seed)
    found += [Candidate(one.name, "control", one.title, one) for one in controls if one.name in CONTROLS]
    return found, genes


def built_in(pair: Pair) -> str:
    """What a reader must know of agreement between species by a model of bundled gene vectors; "" for others."""
    reader = pair.first.reader
    told = reader is not None and plain_kind(reader.model.gene_encoder) == BUNDLED_ENCODER and pair.several_species
    return BUILT_IN if told else ""


def _both(pair: Pair, make: Callable[[Cells], Embedding]) -> Embedding:
    return replace(_stacked(make(pair.first), make(pair.second)), note=built_in(pair))


def _stacked(first: Embedding, second: Embedding) -> Embedding:
    widths = [one.vectors.shape[1] for one in (first, second)]
    if widths[0] != widths[1]:
        msg = (
            f"{first.name} is {widths[0]} wide in one data set and {widths[1]} in the other: they are not in one space"
        )
        raise NotPossible(msg)
    vectors = np.concatenate([first.vectors, second.vectors])
    return replace(first, vectors=vectors, refit=None, seconds=first.seconds + second.seconds)


def _shared(pair: Pair, orthologs: Orthologs | None) -> tuple[SharedGenes | None, str]:
    try:
        return shared_genes(pair.first, pair.second, orthologs), ""
    except NotPossible as reason:
        return None, str(reason)


def _refuse(why: str) -> Embedding:
    raise NotPossible(why)


def _ortholog_space(pair: Pair, genes: SharedGenes, *, corrected: bool, seed: int) -> Embedding:
    """Components of the variable shared genes, log1p CP10k, and Harmony after it where asked for."""
    started = time.monotonic()
    values = [log_cp10k(counts) for counts in (genes.first, genes.second)]
    # Over both data sets together, what varies most is the difference between them; so a gene must vary within each.
    chosen = np.intersect1d(variable_genes(values[0], VARIABLE_IN_EACH), variable_genes(values[1], VARIABLE_IN_EACH))
    if not len(chosen):
        raise NotPossible("no shared gene was seen in both data sets")
    dense = np.concatenate([each[:, chosen].toarray() for each in values])
    vectors = principal_components(dense, np.ones(len(dense), dtype=bool))
    if corrected:
        vectors = mix_batches(vectors, pair.side_of, seed)
    note = f"{len(genes):,} shared genes ({genes.source}), {len(chosen):,} of them vary in both data sets"
    return Embedding(UNCORRECTED, vectors, "baseline", "", True, note=note, seconds=time.monotonic() - started)
