"""A gene table's names as dictionaries, built once per table, and the order in which a name is looked up in them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from uce.genes.names import UNLISTED, classify, from_spreadsheet, mangled, split_id, without_suffix
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


@dataclass
class Lookup:
    """Finds names in one index; `present` are all names of the column, `steps` counts what was done to names.

    Every method that finds gives the row, or -1, and the reason as `resolver.Resolution` lists them.
    """

    index: NameIndex
    species: str
    present: frozenset[str]
    steps: Counter[str]

    def find(self, name: str) -> tuple[int, str]:
        """Row and reason of a tidied name without prefix."""
        if (row := self.index.ids.get(name)) is not None:
            return row, "id"
        if (row := self.index.symbols.get(name)) is not None:
            self.steps["shared symbol"] += name in self.index.shared_symbols
            return row, "symbol"
        owner, stem = split_id(name)
        return self._id(name, owner, stem) if owner else self._symbol(name)

    def _id(self, name: str, owner: str, stem: str) -> tuple[int, str]:
        if (row := self.index.ids.get(stem)) is not None:
            self.steps["PAR_Y merged" if name.endswith("_PAR_Y") else "version stripped"] += 1
            return row, "id"
        if owner not in (self.species, UNLISTED):
            return -1, "other-species"
        row = self.index.aliases.get(stem, -1)
        return (row, "alias") if row >= 0 else (-1, "unlisted-id")

    def _symbol(self, name: str) -> tuple[int, str]:
        row, reason = self._rewritten(name)
        if row is not None:
            return (-1, "ambiguous") if row == AMBIGUOUS else (row, reason)
        symbols = from_spreadsheet(name)
        if symbols is None:
            return -1, classify(name)
        rows = [row for symbol in symbols if (row := self._bare(symbol)) is not None and row != AMBIGUOUS]
        return (rows[0], "excel") if rows else (-1, "date")

    def _rewritten(self, name: str) -> tuple[int | None, str]:
        index, folded = self.index, name.lower()
        if (row := index.folded.get(folded)) is not None:
            return row, "case"
        if (row := index.mangled.get(name)) is not None:
            return row, "mangled"
        if (bare := without_suffix(name)) and bare in self.present and (row := self._bare(bare)) is not None:
            return row, "suffix"
        return index.aliases.get(name, index.aliases.get(folded)), "alias"

    def _bare(self, name: str) -> int | None:
        index = self.index
        row = index.ids.get(split_id(name)[1], index.symbols.get(name))
        return index.folded.get(name.lower(), index.aliases.get(name)) if row is None else row
