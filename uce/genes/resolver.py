"""Names in a file -> rows of a gene table, with one word of reason for every name; and whether that is enough."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import InputError
from uce.files import printable, shorten
from uce.genes.catalogue import species_label
from uce.genes.columns import INDEX, choose_column, names_in
from uce.genes.lookup import Lookup, name_index
from uce.genes.names import explain_names, prefixed_species, split_id, split_prefix, tidy
from uce.genes.species import check_one_species, symbol_matches
from uce.genes.tables import GeneTable

__all__ = ["MIN_GENES", "MIN_SHARE", "Resolution", "check_coverage", "choose_column", "names_in", "resolve"]

# Below these a run stops; a panel of fewer genes needs half of its own, and never fewer than _FEWEST.
MIN_GENES, MIN_SHARE = 500, 0.5
_FEWEST = 20
_GOOD_SHARE = 0.8
_NO_PROTEIN = ["unlisted-id", "noncoding", "immune-receptor", "spike-in", "antibody", "transgene", "virus"]


@dataclass(frozen=True, eq=False)
class Resolution:
    """What became of every name of a file.

    Attributes
    ----------
    rows
        (columns,) row of the gene table, or -1.
    reasons
        (columns,) how a name was found: "id", "symbol", "case", "mangled" (by R or Seurat), "suffix" (added to repeated
        names), "alias", "excel"; or why it was not: "ambiguous", "date" (a spreadsheet's, more than one gene),
        "unlisted-id" (of this species, without a protein in the table), "other-species", "noncoding",
        "immune-receptor" (a segment, not a gene), "spike-in", "antibody", "transgene", "virus", "peak", "number",
        "empty", "unknown".
    column
        Column of `var` the names are from, "index" for its index.
    normalised
        How many names each step changed: "tidied", "prefix stripped", "version stripped", "PAR_Y merged",
        "shared symbol" (several genes have it; the one on the largest chromosome was taken).
    """

    rows: NDArray[np.int64]
    reasons: NDArray[np.str_]
    column: str
    normalised: dict[str, int]

    @property
    def n_genes(self) -> int:
        """How many genes of the table are met, several columns of one gene counted once."""
        return len(np.unique(self.rows[self.rows >= 0]))

    def share(self, column_counts: NDArray[np.float64]) -> float:
        """Part of all counts that lies in resolved columns; `column_counts` (columns,) are their sums. 0 for none."""
        total = float(column_counts.sum())
        return float(column_counts[self.rows >= 0].sum()) / total if total else 0.0

    def report(self, names: Sequence[str], column_counts: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Account for every name, and for the counts where `column_counts` (columns,) holds their sums.

        Returns
        -------
        Plain numbers and texts: `reasons` sum to `names`, `counts_by_reason` to 1. `examples` holds, per reason of an
        unresolved name, the five with most counts.
        """
        resolved = int((self.rows >= 0).sum())
        facts: dict[str, Any] = {
            "column": self.column,
            "names": len(self.rows),
            "resolved": resolved,
            "genes": self.n_genes,
            "columns_summed": resolved - self.n_genes,
            "reasons": dict(Counter(self.reasons.tolist()).most_common()),
            "steps": {step: n for step, n in self.normalised.items() if n},
            "examples": self._examples(names, column_counts),
        }
        if column_counts is not None:
            total = float(column_counts.sum()) or 1.0
            facts["counts_resolved"] = self.share(column_counts)
            facts["counts_by_reason"] = {
                reason: float(column_counts[self.reasons == reason].sum()) / total for reason in facts["reasons"]
            }
        return facts

    def _examples(self, names: Sequence[str], column_counts: NDArray[np.float64] | None) -> dict[str, list[str]]:
        order = np.arange(len(names)) if column_counts is None else np.argsort(-column_counts, kind="stable")
        examples: dict[str, list[str]] = {}
        for position in order[self.rows[order] < 0].tolist():
            shown = examples.setdefault(str(self.reasons[position]), [])
            if len(shown) < 5:
                shown.append(printable(names[position]))
        return examples


def resolve(names: Sequence[str], table: GeneTable, *, column: str = INDEX, file: str = "input") -> Resolution:
    """Find the gene of every name.

    In this order: the name is tidied (Unicode NFKC, white space, quotes), the prefix of a mixed reference and the
    version of an id are taken off; then id, symbol, symbol in another case, symbol as R or Seurat writes it, symbol
    with the suffix of a repeated name (where the bare name stands in the column too), alias or previous symbol (if it
    points to one gene and is no gene's current symbol), date of a spreadsheet. A name that fits several genes at a step
    is ambiguous and stays unresolved. Several names may come to one gene: their counts are to be summed.

    Raises
    ------
    InputError
        The names carry prefixes of more than one species, or of another one than the table's.
    """
    steps: Counter[str] = Counter()
    plain = [tidy(name) for name in names]
    steps["tidied"] = sum(new != old for new, old in zip(plain, names, strict=True))
    plain = _without_prefixes(plain, table, steps, file)
    lookup = Lookup(name_index(table), table.species, frozenset(plain), steps)
    found = [lookup.find(name) for name in plain]
    rows = np.array([row for row, _ in found], dtype=np.int64)
    return Resolution(rows, np.array([reason for _, reason in found], dtype=np.str_), column, dict(steps))


def _without_prefixes(names: list[str], table: GeneTable, steps: Counter[str], file: str) -> list[str]:
    prefixed = prefixed_species(names)
    if not prefixed:
        return names
    check_one_species(prefixed, names, file)
    (species,) = prefixed
    if species != table.species:
        msg = (
            f"{file}: the names carry the prefix of {species_label(species)} ({shorten(names[:2])}), but the gene table"
        )
        raise InputError(f"{msg} is of {species_label(table.species)}. Give --species {species}.")
    split = [split_prefix(name) for name in names]
    steps["prefix stripped"] = sum(owner == species for owner, _ in split)
    return [rest if owner == species else name for name, (owner, rest) in zip(names, split, strict=True)]


def check_coverage(
    resolution: Resolution,
    names: Sequence[str],
    table: GeneTable,
    *,
    file: str = "input",
    column_counts: NDArray[np.float64] | None = None,
    cell_names: Sequence[str] = (),
    min_genes: int = MIN_GENES,
    min_share: float = MIN_SHARE,
) -> list[str]:
    """Stop where too little was resolved for an embedding to mean anything.

    At least `min_genes` genes are needed; a file of few names needs half of those that could have a protein (a spatial
    panel of 300 genes 150), and never fewer than 20. Where `column_counts` (columns,) is given, the genes found must
    hold `min_share` of the counts.

    Parameters
    ----------
    names
        The names that were resolved, as they stand in the file.
    cell_names
        Names of cells, to tell a transposed matrix.

    Returns
    -------
    Warnings for the user; none when all is well.

    Raises
    ------
    InputError
        Too little was resolved; the message says what the names seem to be, and shows five beside five of the table.
    """
    could_be = len(names) - int(np.isin(resolution.reasons, _NO_PROTEIN).sum())
    needed = min(min_genes, max(_FEWEST, could_be // 2))
    n_genes = resolution.n_genes
    share = None if column_counts is None else resolution.share(column_counts)
    _check_other_species(resolution, names, table, file)
    species = species_label(table.species)
    found = f"{file}: {len(names):,} names in {resolution.column}, genes of {species} found among them: {n_genes:,}"
    if n_genes < needed:
        advice = _advice(resolution, names, table, cell_names)
        raise InputError(f"{found}; at least {needed:,} are needed. {advice}")
    if share is not None and share < min_share:
        advice = _advice(resolution, names, table, cell_names)
        raise InputError(
            f"{found}, with {share:.1%} of the counts; at least {min_share:.0%} is needed (--min-coverage). {advice}"
        )
    return _warnings(resolution, share, min_genes)


def _warnings(resolution: Resolution, share: float | None, min_genes: int) -> list[str]:
    warnings = []
    if resolution.n_genes < min_genes:
        warnings.append(f"only {resolution.n_genes:,} genes were resolved: the embeddings rest on few genes")
    if share is not None and share < _GOOD_SHARE:
        lost = Counter(resolution.reasons[resolution.rows < 0].tolist()).most_common(3)
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in lost)
        warnings.append(f"only {share:.1%} of the counts lie in resolved genes (names left out: {reasons})")
    dates = int(np.isin(resolution.reasons, ["excel", "date"]).sum())
    if dates:
        warnings.append(f"{dates:,} gene names were turned into dates or numbers by a spreadsheet; some genes are lost")
    if _mostly_by_case(resolution):
        warnings.append("most names fit only when upper and lower case are not told apart; is the species right?")
    return warnings


def _mostly_by_case(resolution: Resolution) -> bool:
    return bool((resolution.reasons == "case").sum() > 0.5 * (resolution.rows >= 0).sum())


def _check_other_species(resolution: Resolution, names: Sequence[str], table: GeneTable, file: str) -> None:
    """Mouse names fit human genes once case is ignored, and any long list of names fits some aliases of any species."""
    resolved = np.flatnonzero(resolution.rows >= 0)
    by_case = [names[position] for position in np.flatnonzero(resolution.reasons == "case").tolist()]
    if _mostly_by_case(resolution):
        # Names all in capitals are a habit in any species; they say nothing against the one that was given.
        suspicious, start = sum(map(str.isupper, by_case)) <= 0.5 * len(by_case), "only when case is ignored"
    else:
        suspicious, start = len(resolved) < 0.5 * len(names), "or its aliases"
    other = _best_other(names, table) if suspicious else None
    if other and other[1] > max(_FEWEST, 2 * (len(resolved) - len(by_case))):
        msg = (
            f"{file}: {len(resolved):,} names fit {species_label(table.species)} {start}, but {other[1]:,} are exactly"
        )
        raise InputError(f"{msg} those of {species_label(other[0])}. Give --species {other[0]}.")


def _best_other(names: Sequence[str], table: GeneTable) -> tuple[str, int] | None:
    found = {name: len(matched) for name, matched in symbol_matches(names).items() if name != table.species}
    best = max(found, key=lambda name: found[name], default="")
    return (best, found[best]) if best else None


def _advice(resolution: Resolution, names: Sequence[str], table: GeneTable, cell_names: Sequence[str]) -> str:
    lost = [names[position] for position in np.flatnonzero(resolution.rows < 0).tolist()]
    if len(lost) < 0.5 * len(names) and resolution.n_genes < _FEWEST:
        return "That is too few for an embedding: give the file with all genes."
    spaced = np.linspace(0, len(table) - 1, 7).astype(int)[1:-1]
    genes = [str(table.symbols[row] or table.ids[row]) for row in np.unique(spaced)]
    beside = f"Not found: {shorten(lost)}. In the table: {shorten(genes)} ({table.ids[0]})."
    return f"{_cause(resolution, names, table, cell_names)} {beside}"


def _cause(resolution: Resolution, names: Sequence[str], table: GeneTable, cell_names: Sequence[str]) -> str:
    """The likely reason for a poor fit, and what to do."""
    if text := explain_names(names):
        return text
    owners = Counter(owner for name in names if (owner := split_id(split_prefix(tidy(name))[1])[0]))
    owner, n = max(owners.items(), key=lambda item: item[1], default=("", 0))
    if n > 0.5 * len(names) and owner != table.species:
        return f"The ids are of {species_label(owner)} ({shorten(list(names[:2]))}). Give --species {owner}."
    if n > 0.5 * len(names) and not any(split_id(gene)[0] == owner for gene in table.ids.tolist()):
        return (
            f"The names are ids of {owner}, and its table has none. Add the species again with its annotation (--gtf)."
        )
    cells = resolve(cell_names[:5000], table).n_genes if len(cell_names) else 0
    if cells > max(_FEWEST, resolution.n_genes):
        return (
            f"{cells:,} of the cell names are genes: the matrix is transposed. Store cells in rows, genes in columns."
        )
    other = _best_other(names, table)
    if other and other[1] > max(_FEWEST, 2 * resolution.n_genes):
        return f"The table of {species_label(other[0])} has {other[1]:,} of them. Give --species {other[0]}."
    return "Give --gene-column if the names are in another column, or --species."
