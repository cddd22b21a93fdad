"""Which training cells of a corpus enter a subset: schemes, and the order each of them gives.

What needs the cells is here; the permutations themselves are in `uce.corpus.orders`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from uce.cells.labels import is_labelled
from uce.corpus.layout import CorpusIndex, read_index
from uce.corpus.orders import BOXES, Order, boxes, in_turns, random_order, spiked
from uce.corpus.shards import ShardReader, read_obs_column
from uce.corpus.splits import TRAIN
from uce.corpus.store import check_stores, read_record
from uce.errors import InputError, UsageError
from uce.files import nearest
from uce.genes.collection import load_gene_table

Scheme: TypeAlias = Literal["random", "reweighted", "sketch", "spike"]
SCHEMES: tuple[Scheme, ...] = ("random", "reweighted", "sketch", "spike")
_BLOCK, _COMPONENTS = 4096, 50


@dataclass(frozen=True)
class SubsetRule:
    """Which training cells come first.

    Attributes
    ----------
    scheme
        "random": all alike. "reweighted": equally many of every cell type, as long as it has any; cells without a
        label last. "sketch": equally many of every box of a grid in the principal components (`uce.corpus.orders`).
        "spike": random, but `share` of them are of the dataset `spike`.
    only
        Training datasets to take cells of; all if empty. Cells of the others are not in the subset.
    """

    scheme: Scheme = "random"
    seed: int = 0
    only: tuple[str, ...] = ()
    spike: str = ""
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            msg = f"scheme {self.scheme!r}: one of {', '.join(SCHEMES)}.{nearest(self.scheme, list(SCHEMES))}"
            raise UsageError(msg)
        if (self.scheme == "spike") != bool(self.spike):
            msg = "the scheme spike needs the name of a dataset, and no other scheme takes one."
            raise UsageError(msg)
        if not 0 < self.share < 1:
            msg = f"share = {self.share:g}: between 0 and 1."
            raise UsageError(msg)


@dataclass(frozen=True)
class Shard:
    """Training cells, stored together."""

    dataset: str
    file: str
    cells: int


@dataclass(frozen=True)
class TrainingCells:
    """The training cells of a corpus, counted through all shards, datasets in the order of their names."""

    index: CorpusIndex
    shards: tuple[Shard, ...]

    @property
    def cells(self) -> int:
        """How many there are."""
        return sum(shard.cells for shard in self.shards)

    @property
    def names(self) -> list[str]:
        """The datasets, sorted."""
        return sorted({shard.dataset for shard in self.shards})

    def datasets(self) -> npt.NDArray[np.str_]:
        """(cells,) the dataset of each."""
        return np.repeat([shard.dataset for shard in self.shards], [shard.cells for shard in self.shards])

    def folder(self, shard: Shard) -> Path:
        """Where a shard is."""
        return self.index.folder / "data" / shard.dataset / shard.file


def training_cells(corpus: str | Path, only: tuple[str, ...] = ()) -> TrainingCells:
    """The training cells of a corpus, of all its datasets or some.

    Raises
    ------
    InputError
        There is no corpus, or a file of it is missing.
    UsageError
        It has no training cells, or none of a dataset that is named.
    """
    index = read_index(corpus)
    if problems := check_stores(index):
        msg = f"{problems[0]}. `uce corpus build` mends it."
        raise InputError(msg)
    shards = []
    for name in sorted(index.stores):
        record = read_record(index.folder / "data" / name) or {"shards": {}}
        training = {file: facts for file, facts in record["shards"].items() if facts["split"] == TRAIN}
        shards += [Shard(name, file, int(facts["cells"])) for file, facts in sorted(training.items())]
    found = {shard.dataset for shard in shards}
    for name in only:
        if name not in found:
            msg = f"{corpus}: no training cells of a dataset {name}.{nearest(name, sorted(found))}"
            raise UsageError(msg)
    kept = tuple(shard for shard in shards if not only or shard.dataset in only)
    if not kept:
        msg = f"{corpus}: no cells with split {TRAIN} in it."
        raise UsageError(msg)
    return TrainingCells(index, kept)


def first_cells(pool: TrainingCells, rule: SubsetRule, cells: int) -> npt.NDArray[np.bool_]:
    """(cells of the pool,) whether each is among the first `cells`.

    Raises
    ------
    UsageError
        There are not so many.
    """
    order = cell_sequence(pool, rule)
    if not 0 < cells <= len(order):
        msg = f"{cells:,} cells of {pool.index.folder}: 1 to {len(order):,} can be had with this scheme."
        raise UsageError(msg)
    chosen = np.zeros(pool.cells, dtype=bool)
    chosen[order[:cells]] = True
    return chosen


def first_datasets(pool: TrainingCells, rule: SubsetRule, datasets: int) -> npt.NDArray[np.bool_]:
    """(cells of the pool,) whether each is of one of the first `datasets` in random order.

    Raises
    ------
    UsageError
        There are not so many, or the scheme is of cells.
    """
    names = pool.names
    if rule.scheme != "random" or not 0 < datasets <= len(names):
        msg = f"{datasets} datasets of {pool.index.folder} ({rule.scheme}): 1 to {len(names)} can be had, at random."
        raise UsageError(msg)
    first = [names[place] for place in random_order(rule.seed, len(names))[:datasets].tolist()]
    return np.isin(pool.datasets(), first)


def cell_sequence(pool: TrainingCells, rule: SubsetRule) -> Order:
    """The cells of a pool in the order in which a rule takes them; a spike may leave some out."""
    order = random_order(rule.seed, pool.cells)
    if rule.scheme == "reweighted":
        types = np.concatenate([_types(pool.folder(shard), shard.cells) for shard in pool.shards])
        known = is_labelled(types)[order]
        return np.concatenate([in_turns(types, order[known]), order[~known]])
    if rule.scheme == "sketch":
        return in_turns(boxes(_components(pool), max(1, round(BOXES * pool.cells))), order)
    if rule.scheme == "spike":
        if rule.spike not in pool.names:
            msg = f"{pool.index.folder}: no training cells of {rule.spike}.{nearest(rule.spike, pool.names)}"
            raise UsageError(msg)
        return spiked(pool.datasets() == rule.spike, order, rule.share)
    return order


def _types(shard: Path, cells: int) -> npt.NDArray[np.str_]:
    found = read_obs_column(shard, "cell_type")
    return np.repeat("", cells) if found is None else found.astype(np.str_)


def _components(pool: TrainingCells) -> npt.NDArray[np.float64]:
    """(cells, 50 at most) principal components of the mean gene vectors, weighted by log1p of counts per 10,000.

    Gene vectors put all species into one space.
    """
    from scipy.linalg import eigh

    species = {row["dataset_id"]: row["species"] for row in pool.index.datasets()}
    encoder = str(pool.index.content["gene_encoder"])
    parts = []
    for shard in pool.shards:
        vectors = load_gene_table(species[shard.dataset], encoder=encoder).vectors.astype(np.float64)
        reader = ShardReader(pool.folder(shard))
        for start in range(0, shard.cells, _BLOCK):
            counts = reader.read(start, start + _BLOCK).astype(np.float64)
            depth = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
            counts.data = np.log1p(counts.data * np.repeat(1e4 / depth, np.diff(counts.indptr)))
            parts.append(counts @ vectors)
    joined = np.concatenate(parts)
    joined -= joined.mean(axis=0)
    dim = joined.shape[1]
    axes = eigh(joined.T @ joined, subset_by_index=(max(dim - _COMPONENTS, 0), dim - 1))[1]
    turned = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # else a matter of the machine
    components: npt.NDArray[np.float64] = joined @ (axes * turned)
    return components
