"""What tells sound gene vectors from faulty ones, as numbers: spread, rank, copies, families, orthologues.

Cosines are taken after centring, each table by its own mean: vectors of protein models share a large common part (the
raw cosine of two unrelated proteins is .91 in ESM2 8M), and species differ in it.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.genes.names import sole_owners
from uce.genes.tables import GeneTable

Floats = NDArray[np.float32]
Pairs = NDArray[np.int64]

RANDOM_PAIRS = 20_000
_MOST_MEMBERS = 500  # of a stem; pairs grow with the square
_PAIRS_PER_STEM, _FEWEST_PAIRS, _FEWEST_STEMS = 10, 50, 10
_MOST_ORTHOLOGUES, _FEWEST_ORTHOLOGUES, _FEWEST_ALIGNED = 2_000, 30, 30
# More than the 2,560 numbers of the widest ESM2 that anybody could stretch to the next one's width.
_RANK_SAMPLE = 3_000
# Singular values below this part of the largest are rounding. ESM2 8M: the last but one is 7.5e-5 of it, the last one
# 2e-9 (a layer norm takes one direction); the surplus of vectors stretched in float32 lies below 1e-7.
_ROUNDING = 1e-6
# Squared distance of two unit vectors whose cosine is 0.9999, and the numbers kept of each (Johnson-Lindenstrauss).
_COPY, _SKETCH = 2e-4, 32

# Letters, a number, letters, then a number (SLC2A1); letters, a number, then a letter (ABCB1A); four letters or more,
# then a number (KCNA1). Three letters and a number (SEC1) name a phenotype in yeast, and no family.
_STEM = re.compile(r"[a-z]{3,}\d+[a-z]+(?=\d+$)|[a-z]{3,}\d+(?=[a-z]$)|[a-z]{4,}(?=\d+$)")
# Numbered lists and parts of complexes, not relatives.
_NO_FAMILY = {"tmem", "ccdc", "kiaa", "linc", "mrpl", "mrps", "ndufa", "ndufb", "spata", "loc"}


@dataclass(frozen=True)
class Cosines:
    """Cosines of random pairs of genes: mean, standard deviation, 5 % and 95 % quantiles."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class FamilyTest:
    """Pairs of genes whose symbols share a stem against random pairs.

    Attributes
    ----------
    pairs, stems
        How many pairs, from how many stems.
    auc
        Chance that a pair of one family has a higher cosine than a random pair: 0.5 says the vectors know no families.
    error
        Standard error of `auc`, stems taken as the units that vary.
    """

    pairs: int
    stems: int
    auc: float
    error: float


@dataclass(frozen=True)
class OrthologueTest:
    """Genes of one symbol in two species, one to one.

    Attributes
    ----------
    species
        The other species.
    genes
        How many symbols were compared; below 30 the figures that rest on them are None.
    shared
        Symbols that both tables have, as share of the genes with a symbol of the smaller one.
    auc, error
        Chance that two genes of one symbol have a higher cosine than two of different symbols; its standard error over
        genes.
    nearest, reciprocal
        Share of genes whose nearest among the other's sample has their symbol, and for which that holds both ways.
    chance
        What `nearest` would be by chance.
    over_paralogues
        See `over_paralogues`: one half by chance.
    mean_cosine
        Cosine between the mean vectors of the two tables.
    alignment
        Whether both vary along the same directions, whatever the names: 1 the same, 0 unrelated; None where they vary
        alike in all directions, or a table has fewer than 30 genes.
    """

    species: str
    genes: int
    shared: float
    auc: float | None
    error: float | None
    nearest: float | None
    reciprocal: float | None
    chance: float | None
    over_paralogues: float | None
    mean_cosine: float
    alignment: float | None


def centred(vectors: Floats) -> Floats:
    """Unit vectors (genes, dim) of what is left when the mean is taken off; zeros where only rounding is left."""
    rest: Floats = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(rest, axis=1, keepdims=True)
    rounding = lengths <= 1e-6 * np.linalg.norm(vectors, axis=1, keepdims=True)
    rest /= np.where(rounding, np.inf, lengths)
    return rest


def pair_cosines(units: Floats, pairs: Pairs, others: Floats | None = None) -> Floats:
    """Products (pairs,) of rows: cosines, if these are unit vectors. The second row is of `others` where given."""
    second = units if others is None else others
    blocks = [pairs[begin : begin + 1000].T for begin in range(0, len(pairs), 1000)]
    found = [np.einsum("nd,nd->n", units[left], second[right]) for left, right in blocks]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def random_pairs(genes: int) -> Pairs:
    """Up to 20,000 pairs (pairs, 2) of different rows, the same for the same seed."""
    drawn = np.random.default_rng(0).integers(genes, size=(RANDOM_PAIRS, 2))
    return np.asarray(drawn[drawn[:, 0] != drawn[:, 1]])


def cosines(found: Floats) -> Cosines:
    """Mean, spread and quantiles of cosines (pairs,)."""
    if not len(found):
        return Cosines(1.0, 0.0, 1.0, 1.0)
    low, high = np.quantile(found, [0.05, 0.95])
    return Cosines(float(found.mean()), float(found.std()), float(low), float(high))


def relative_spread(vectors: Floats) -> float:
    """Root mean square distance from the mean vector, as part of the root mean square length."""
    squares = np.einsum("nd,nd->", vectors, vectors, dtype=np.float64)
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(max(0.0, 1.0 - len(vectors) * float(mean @ mean) / float(squares))))


def copies(units: Floats) -> Pairs:
    """For every gene the first row (genes,) with its vector: the same, or a centred cosine above about 0.9999."""
    sketch = units
    if units.shape[1] > _SKETCH:
        drawn = np.random.default_rng(0).normal(scale=_SKETCH**-0.5, size=(units.shape[1], _SKETCH))
        sketch = units @ drawn.astype(np.float32)
    squares = np.einsum("nd,nd->n", sketch, sketch)[:, None]
    # One product gives squared distances: |x|^2 - 2 x.y + |y|^2.
    left = np.hstack([-2 * sketch, squares, np.ones_like(squares)])
    right = np.hstack([sketch, np.ones_like(squares), squares])
    first = np.empty(len(units), np.int64)
    for begin in range(0, len(units), 512):
        distances = left[begin : begin + 512] @ right[: begin + 512].T
        first[begin : begin + 512] = (distances <= _COPY).argmax(axis=1)
    return first


def used_directions(vectors: Floats, distinct: Pairs) -> tuple[int, int]:
    """Numerical rank of the centred `distinct` rows (3,000 at most), and what it can be at most.

    Vectors stretched to a larger width by a linear map, interpolation, repetition or zeros keep the rank they had.
    With fewer genes than that rank, only columns that repeat another or are constant give them away.
    """
    rows = np.sort(np.random.default_rng(0).permutation(distinct)[:_RANK_SAMPLE])
    width, most = vectors.shape[1], min(len(rows) - 1, vectors.shape[1])
    columns = np.unique(vectors[rows].T, axis=0)
    different = int((np.ptp(columns, axis=1) > 0).sum())
    if different < 0.95 * width and len(rows) > 2:
        return different, width
    sample = vectors[rows].astype(np.float64)
    sample -= sample.mean(axis=0)
    squared = np.linalg.eigvalsh(sample @ sample.T if len(sample) <= width else sample.T @ sample)
    return int((squared > squared[-1] * _ROUNDING**2).sum()), most


def family_pairs(symbols: NDArray[np.str_]) -> tuple[Pairs, Pairs]:
    """Pairs (pairs, 2) of genes whose symbols share a stem, ten per stem at most, and the number (pairs,) of the stem.

    Symbols that are alike up to their case are one gene on several loci, and no pair.
    """
    members: dict[str, dict[str, int]] = {}
    for row, symbol in enumerate(symbols.tolist()):
        folded = symbol.lower()
        if (found := _STEM.match(folded)) and found[0] not in _NO_FAMILY:
            members.setdefault(found[0], {}).setdefault(folded, row)
    rng = np.random.default_rng(0)
    families = [sorted(rows.values()) for _, rows in sorted(members.items()) if len(rows) > 1]
    drawn = [_some_pairs(rows, rng) for rows in families]
    if not drawn:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    return np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(pairs) for pairs in drawn])


def _some_pairs(rows: list[int], rng: np.random.Generator) -> Pairs:
    left, right = np.triu_indices(min(len(rows), _MOST_MEMBERS), 1)
    kept = rng.permutation(len(left))[:_PAIRS_PER_STEM]
    members = np.array(rows, np.int64)
    return np.stack([members[left[kept]], members[right[kept]]], axis=1)


def family_test(symbols: NDArray[np.str_], units: Floats, random: Floats) -> FamilyTest | None:
    """Family pairs against the cosines of `random` pairs; None with fewer than 50 pairs or 10 stems."""
    pairs, stems = family_pairs(symbols)
    n_stems = int(stems[-1]) + 1 if len(stems) else 0
    if len(pairs) < _FEWEST_PAIRS or n_stems < _FEWEST_STEMS:
        return None
    above = _placement(pair_cosines(units, pairs), random)
    auc = float(above.mean())
    # Pairs of one stem share genes: the sum over a stem is what varies from sample to sample.
    error = float(np.sqrt((np.bincount(stems, weights=above - auc) ** 2).sum()) / len(pairs))
    return FamilyTest(len(pairs), n_stems, auc, error)


def _placement(values: Floats, background: Floats) -> NDArray[np.float64]:
    """Part of `background` below each value, equal ones by half; the mean is the area under the curve."""
    ordered = np.sort(background, axis=None)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return below / (2.0 * ordered.size)


def same_symbol(first: GeneTable, second: GeneTable) -> Pairs:
    """Rows (pairs, 2) of genes with one symbol, case ignored, that one gene of each table has."""
    left, right = (
        sole_owners((symbol.lower(), row) for row, symbol in enumerate(table.symbols.tolist()))
        for table in (first, second)
    )
    names = sorted(left.keys() & right.keys())
    return np.array([(left[name], right[name]) for name in names], np.int64).reshape(-1, 2)


def orthologue_test(first: GeneTable, units: Floats, second: GeneTable, others: Floats) -> OrthologueTest:
    """Compare two tables of one kind, `units` and `others` their centred unit vectors, by symbol and by space."""
    every = same_symbol(first, second)
    shared = len(every) / max(1, min(int((table.symbols != "").sum()) for table in (first, second)))
    pairs = every[np.sort(np.random.default_rng(0).permutation(len(every))[:_MOST_ORTHOLOGUES])]
    means = [table.vectors.mean(axis=0, dtype=np.float64) for table in (first, second)]
    lengths = float(np.linalg.norm(means[0]) * np.linalg.norm(means[1]))
    space = (float(means[0] @ means[1]) / lengths if lengths else 0.0, alignment(units, others))
    n = len(pairs)
    if n < _FEWEST_ORTHOLOGUES:
        return OrthologueTest(second.species, n, shared, None, None, None, None, None, None, *space)
    table = units[pairs[:, 0]] @ others[pairs[:, 1]].T
    own = np.diag(table)
    above = _placement(own, table[~np.eye(n, dtype=bool)])
    nearest = own >= table.max(axis=1) - 1e-6
    both = nearest & (own >= table.max(axis=0) - 1e-6)
    auc, error = float(above.mean()), float(above.std() / n**0.5)
    found = float(nearest.mean()), float(both.mean()), 1 / n
    return OrthologueTest(
        second.species, n, shared, auc, error, *found, over_paralogues(first.symbols, units, every, others), *space
    )


def over_paralogues(symbols: NDArray[np.str_], units: Floats, pairs: Pairs, others: Floats) -> float | None:
    """How often a gene is nearer to its own symbol in the other species than to another member of its family there.

    Names that are shifted by a few rows of a sorted list keep families together, and so pass every test that compares
    with random pairs; here they fall below one half, as a gene then has the vector of a member of its family. None with
    fewer than 30 comparisons.

    Parameters
    ----------
    symbols, units
        (genes,) and (genes, dim) of the one table.
    pairs
        (pairs, 2) rows of one symbol in the two tables.
    others
        (genes, dim) of the other table.
    """
    families, _ = family_pairs(symbols[pairs[:, 0]])
    own, rival = (
        pairs[np.concatenate([families[:, 0], families[:, 1]])],
        pairs[np.concatenate([families[:, 1], families[:, 0]])],
    )
    if len(own) < _FEWEST_ORTHOLOGUES:
        return None
    difference = pair_cosines(units, own, others) - pair_cosines(
        units, np.stack([own[:, 0], rival[:, 1]], axis=1), others
    )
    return float((difference > 1e-6).mean() + (np.abs(difference) <= 1e-6).mean() / 2)


def alignment(first: Floats, second: Floats) -> float | None:
    """Correlation of the covariances of two sets of unit vectors, the part that all directions share taken off.

    The RV coefficient (Robert and Escoufier 1976) between directions, from mean squared cosines within and between up
    to 2,000 rows of each, which are not biased by their number: random directions give 0, one distribution gives 1.
    """
    if min(len(first), len(second)) < _FEWEST_ALIGNED:
        return None
    rng = np.random.default_rng(0)
    left, right = (rows[np.sort(rng.permutation(len(rows))[:2000])] for rows in (first, second))
    isotropic = 1.0 / first.shape[1]
    within = [_squares(rows @ rows.T, same=True) - isotropic for rows in (left, right)]
    if min(within) <= 0.01 * isotropic:
        return None
    # Two samples of one distribution may come out a little above 1.
    return min(1.0, float((_squares(left @ right.T, same=False) - isotropic) / (within[0] * within[1]) ** 0.5))


def _squares(found: Floats, *, same: bool) -> float:
    """Mean square of cosines, without those of rows with themselves."""
    own = float((np.diag(found).astype(np.float64) ** 2).sum()) if same else 0.0
    return (float((found.astype(np.float64) ** 2).sum()) - own) / max(1, found.size - same * len(found))
