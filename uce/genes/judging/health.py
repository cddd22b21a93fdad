"""Is a gene table fit for use? Its numbers, and a verdict with the likely cause of what is wrong and the way out.

`measures` says how the numbers are taken, `findings` what they mean.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import UsageError
from uce.genes.judging.findings import findings
from uce.genes.judging.measures import (
    Cosines,
    FamilyTest,
    OrthologueTest,
    centred,
    copies,
    cosines,
    family_test,
    orthologue_test,
    pair_cosines,
    random_pairs,
    relative_spread,
    used_directions,
)
from uce.genes.kinds import plain_kind
from uce.genes.tables import UNPLACED, GeneTable
from uce.health import effective_rank

__all__ = ["TableHealth", "judge_table"]

# Where a vector is from another gene, so that several may have the same.
_BORROWED = ("group", "groups", "same-symbol", "ortholog")


@dataclass(frozen=True)
class TableHealth:
    """What was measured in one gene table, and the verdict. Shares are fractions of 1.

    Attributes
    ----------
    species, encoder, genes, width
        Which table it is.
    with_symbol, placed, projected
        Shares of the genes with a symbol, with a chromosome, and with the position of an orthologue.
    chromosomes
        How many chromosomes or scaffolds have genes.
    proteins_per_gene
        Mean over the genes where it is known, else None.
    duplicated, largest_group
        Share of the genes whose vector another one has too, and how many share one at most.
    raw, centred
        Cosines of random pairs of genes, as the vectors are and after their mean is taken off.
    spread
        Root mean square distance from the mean vector over the root mean square length.
    effective_rank
        Directions the genes really use, exp(entropy) of the spectrum, see `uce.health.effective_rank`.
    directions, directions_possible
        Numerical rank, and what genes and width allow.
    norm_outliers
        Share of the vectors that are three times longer or shorter than the median.
    families
        Pairs of one family against random pairs; None where too few symbols tell.
    orthologues
        One comparison per reference table.
    problems, warnings
        What makes the table unfit, and what is doubtful; each with its likely cause and the way out.
    """

    species: str
    encoder: str
    genes: int
    width: int
    with_symbol: float
    placed: float
    projected: float
    chromosomes: int
    proteins_per_gene: float | None
    duplicated: float
    largest_group: int
    raw: Cosines
    centred: Cosines
    spread: float
    effective_rank: float
    directions: int
    directions_possible: int
    norm_outliers: float
    families: FamilyTest | None
    orthologues: tuple[OrthologueTest, ...]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the table can be used: no problem was found, warnings aside."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """Either "sound", "doubtful" (there are warnings) or "not usable" (there are problems)."""
        return "not usable" if self.problems else "doubtful" if self.warnings else "sound"

    @property
    def headline(self) -> str:
        """The verdict with the name of the table, for a title."""
        return f"health of {self.species} ({self.encoder}): {self.verdict}"

    def to_dict(self) -> dict[str, Any]:
        """The fields and the verdict as plain values, for JSON."""
        lists = {"problems": list(self.problems), "warnings": list(self.warnings)}
        compared = [asdict(test) for test in self.orthologues]
        return {"verdict": self.verdict, "ok": self.ok, **asdict(self), "orthologues": compared, **lists}

    def __str__(self) -> str:
        lines = [self.headline, *(f"  {line}" for line in _numbers(self))]
        lines += [f"problem: {text}" for text in self.problems]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def judge_table(table: GeneTable, *, against: Sequence[GeneTable] = ()) -> TableHealth:
    """Measure a gene table and judge it, alone and against tables of other species with vectors of the same kind.

    Parameters
    ----------
    against
        Tables of the same kind and width; genes of the same symbol are expected to have near vectors.

    Raises
    ------
    UsageError
        A table of `against` has vectors of another kind or width.
    """
    for other in against:
        _check_comparable(table, other)
    units = centred(table.vectors)
    first = copies(units)
    pairs = random_pairs(len(table))
    background = pair_cosines(units, pairs)
    directions, possible = used_directions(table.vectors, np.unique(first))
    health = TableHealth(
        **_content(table),
        **_lengths_and_copies(table, first),
        raw=cosines(_raw_cosines(table, pairs)),
        centred=cosines(background),
        directions=directions,
        directions_possible=possible,
        families=family_test(table.symbols, units, background),
        orthologues=tuple(orthologue_test(table, units, other, centred(other.vectors)) for other in against),
    )
    problems, warnings = findings(health, _faulty_copies(table, first))
    return replace(health, problems=problems, warnings=warnings)


def _content(table: GeneTable) -> dict[str, Any]:
    placed = table.chromosomes != UNPLACED
    counted = table.proteins[table.proteins > 0]
    return {
        "species": table.species,
        "encoder": table.encoder,
        "genes": len(table),
        "width": table.dim,
        "with_symbol": float((table.symbols != "").mean()),
        "placed": float(placed.mean()),
        "projected": float(table.projected.mean()),
        "chromosomes": len(np.unique(table.chromosomes[placed])),
        "proteins_per_gene": float(counted.mean()) if len(counted) else None,
    }


def _lengths_and_copies(table: GeneTable, first: NDArray[np.int64]) -> dict[str, Any]:
    group = np.bincount(first)
    lengths = np.linalg.norm(table.vectors, axis=1)
    sample = np.random.default_rng(0).permutation(len(table))[:1000]
    return {
        "duplicated": float((group[first] > 1).mean()),
        "largest_group": int(group.max()),
        "spread": relative_spread(table.vectors),
        "effective_rank": effective_rank(table.vectors[sample]) if len(table) > 1 else 1.0,
        "norm_outliers": float((np.abs(np.log(lengths / np.median(lengths))) > np.log(3)).mean()),
    }


def _check_comparable(table: GeneTable, other: GeneTable) -> None:
    if plain_kind(table.encoder) == plain_kind(other.encoder) and table.dim == other.dim:
        return
    msg = (
        f"{table.species} has vectors of {table.encoder} ({table.dim} wide), {other.species} of {other.encoder} "
        f"({other.dim} wide): vectors of two kinds cannot be compared. Give a table of the same kind."
    )
    raise UsageError(msg)


def _raw_cosines(table: GeneTable, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(table.vectors, axis=1)
    return np.asarray(pair_cosines(table.vectors, pairs) / lengths[pairs].prod(axis=1))


def _faulty_copies(table: GeneTable, first: NDArray[np.int64]) -> tuple[float, int]:
    """Share of the genes with a copied vector, and the largest group, of those that should have one of their own."""
    own = ~np.isin(table.origins, _BORROWED)
    alike = own & (np.bincount(first)[first] > 1)
    return float(alike.sum() / max(1, own.sum())), int(np.bincount(first[own], minlength=1).max())


def _numbers(health: TableHealth) -> list[str]:
    """The measured values as lines of text."""
    per_gene = f", {health.proteins_per_gene:.2f} proteins per gene" if health.proteins_per_gene else ""
    families = health.families
    lines = [
        f"genes {health.genes:,}, {health.width:,} wide, with symbol {health.with_symbol:.0%}{per_gene}",
        f"with coordinates {health.placed:.0%} (of an orthologue {health.projected:.0%}), on "
        f"{health.chromosomes:,} chromosomes or scaffolds",
        f"vectors shared by several genes {health.duplicated:.1%}, largest group {health.largest_group:,}; "
        f"lengths far from the median {health.norm_outliers:.1%}",
        f"cosines of random pairs {health.raw.mean:.3f} +- {health.raw.sd:.3f}, centred {health.centred.mean:.3f} +- "
        f"{health.centred.sd:.3f} (5 to 95 %: {health.centred.low:.2f} to {health.centred.high:.2f})",
        f"spread {health.spread:.3f}, effective rank {health.effective_rank:.1f}, rank {health.directions:,} of "
        f"{health.directions_possible:,} possible",
        f"families: {families.auc:.3f} +- {families.error:.3f} (chance 0.5; {families.pairs:,} pairs)"
        if families
        else "families: too few symbols of numbered families to tell",
    ]
    return lines + [_comparison(test) for test in health.orthologues]


def _comparison(test: OrthologueTest) -> str:
    space = "" if test.alignment is None else f", alignment of the spaces {test.alignment:.2f}"
    if test.auc is None or test.nearest is None:
        return f"against {test.species}: {test.genes} shared symbols, too few to tell{space}"
    rows = "" if test.over_paralogues is None else f", nearer than its family {test.over_paralogues:.0%} (chance 50%)"
    return (
        f"against {test.species}: {test.auc:.3f} +- {test.error:.3f} (chance 0.5; {test.genes:,} shared symbols), "
        f"nearest has the symbol {test.nearest:.1%}, both ways {test.reciprocal:.1%} (chance {test.chance:.1%})"
        f"{rows}{space}"
    )
