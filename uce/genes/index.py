"""A gene table's names as dictionaries, built once per table: what a name in a file is looked up in."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from uce.genes.names import mangled
from uce.genes.tables import UNPLACED, GeneTable

# What a dictionary holds for a name that would point to more than one gene.
AMBIGUOUS = -2


@dataclass(frozen=True, eq=False)
class NameIndex:
    """Dictionaries from names to rows of one gene table; a value of -2 means that several genes answer to the name.

    Attributes
    ----------
    ids, symbols
        Exact ids and current symbols. Of several genes with one symbol the one on the chromosome with most genes is
        taken, then the first by id, so that "HLA-A" is the gene on chromosome 6 and not one of its alternative loci.
    folded
        Symbols in lower case.
    mangled
        Symbols as R's `make.names` and Seurat write them, where that differs.
    aliases
        Aliases and previous symbols that are not the current symbol of a gene; also in lower case and mangled.
    shared_symbols
        Symbols that more than one gene has.
    """

    ids: dict[str, int]
    symbols: dict[str, int]
    folded: dict[str, int]
    mangled: dict[str, int]
    aliases: dict[str, int]
    shared_symbols: frozenset[str]


@lru_cache(maxsize=32)
def name_index(table: GeneTable) -> NameIndex:
    """The index of `table`; kept for as long as it is among the last 32 asked for."""
    ids = {name: row for row, name in enumerate(table.ids.tolist())}
    names = table.symbols.tolist()
    symbols: dict[str, int] = {}
    for row in _preferred(table).tolist():
        symbols.setdefault(names[row], row)
    symbols.pop("", None)
    counted = Counter(names)
    return NameIndex(
        ids=ids,
        symbols=symbols,
        folded=_unique((name.lower(), row) for name, row in symbols.items()),
        mangled=_unique((form, row) for name, row in symbols.items() for form in _written(name)),
        aliases=_aliases(table, names, symbols),
        shared_symbols=frozenset(name for name, n in counted.items() if n > 1 and name),
    )


def _preferred(table: GeneTable) -> NDArray[np.int64]:
    """Rows from the largest chromosome to the smallest, by id within one; unplaced genes last."""
    _, codes, sizes = np.unique(table.chromosomes, return_inverse=True, return_counts=True)
    size = np.where(table.chromosomes == UNPLACED, 0, sizes[codes])
    return np.lexsort((np.arange(len(table)), -size))


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, row in pairs:
        if found.setdefault(name, row) != row:
            found[name] = AMBIGUOUS
    return found


def _written(name: str) -> set[str]:
    return {mangled(name), name.replace("_", "-")} - {name}


def _aliases(table: GeneTable, names: list[str], symbols: dict[str, int]) -> dict[str, int]:
    # Rows that share a symbol (alternative loci) share its aliases too: they count as the one gene of that symbol.
    exact = _unique(
        (alias, symbols.get(names[row], row))
        for row, joined in enumerate(table.synonyms.tolist())
        if joined
        for alias in joined.split("|")
        if alias and alias not in symbols
    )
    other = _unique((form, row) for name, row in exact.items() for form in {name.lower(), *_written(name)} - {name})
    return other | exact
