"""Names in a file -> rows of a gene table, with one word of reason for every name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import InputError, UsageError
from uce.files import nearest, printable, shorten
from uce.genes.catalogue import catalogue
from uce.genes.index import AMBIGUOUS, NameIndex, name_index
from uce.genes.names import classify, from_spreadsheet, prefixed_species, split_id, split_prefix, tidy, without_suffix
from uce.genes.tables import GeneTable

if TYPE_CHECKING:
    import pandas as pd

INDEX = "index"


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
        "unlisted-id" (of this species, without a protein in the table), "other-species", "noncoding", "spike-in",
        "antibody", "transgene", "virus", "peak", "number", "empty", "unknown".
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

    def share(self, column_counts: NDArray[np.float64] | None = None) -> float:
        """Part of all counts that lies in resolved columns; without `column_counts` (columns,), part of the names."""
        weights = np.ones(len(self.rows)) if column_counts is None else np.asarray(column_counts, dtype=np.float64)
        total = float(weights.sum())
        return float(weights[self.rows >= 0].sum()) / total if total else 0.0

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
            "steps": dict(self.normalised),
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
    version of an id are taken off; then id, symbol, symbol in another case, symbol as R or Seurat writes it, symbol with
    the suffix of a repeated name (where the bare name stands in the column too), alias or previous symbol (if it points
    to one gene and is nobody's current symbol), spreadsheet date. A name that fits several genes at a step is ambiguous.

    Raises
    ------
    InputError
        The names carry prefixes of more than one species, or of another one than the table's.
    """
    steps: Counter[str] = Counter()
    plain = _without_prefixes(_tidied(names, steps), table, steps, file)
    lookup = _Lookup(name_index(table), table.species, frozenset(plain), steps)
    found = [lookup.find(name) for name in plain]
    rows = np.array([row for row, _ in found], dtype=np.int64)
    return Resolution(rows, np.array([reason for _, reason in found], dtype=np.str_), column, dict(steps))


def _tidied(names: Sequence[str], steps: Counter[str]) -> list[str]:
    plain = [tidy(name) for name in names]
    steps["tidied"] += sum(new != old for new, old in zip(plain, names, strict=True))
    return plain


def _without_prefixes(names: list[str], table: GeneTable, steps: Counter[str], file: str) -> list[str]:
    prefixed = prefixed_species(names)
    check_one_species(prefixed, names, file)
    if not prefixed:
        return names
    if table.species not in prefixed:
        label = _label(next(iter(prefixed)))
        msg = f"{file}: the names carry the prefix of {label} ({shorten(names[:2])}), the gene table is of {_label(table.species)}."
        raise InputError(f"{msg} Use --species {label}.")
    split = [split_prefix(name) for name in names]
    steps["prefix stripped"] += sum(species == table.species for species, _ in split)
    return [rest if species == table.species else name for name, (species, rest) in zip(names, split, strict=True)]


def check_one_species(prefixed: dict[str, int], names: Sequence[str], file: str) -> None:
    """Refuse a file whose reference joins several species (`prefixed`, as `prefixed_species` counts them).

    Raises
    ------
    InputError
        More than one species; cells of a mixed sample have to be told apart before they are embedded.
    """
    if len(prefixed) > 1:
        counted = ", ".join(f"{_label(species)} on {n:,} names" for species, n in prefixed.items())
        examples = [next(name for name in names if split_prefix(name)[0] == species) for species in prefixed]
        msg = f"{file}: the reference joins several species ({counted}; {shorten(examples)})."
        raise InputError(
            f"{msg} Split the columns by prefix and the cells by species, and embed each part with its --species."
        )


def _label(species: str) -> str:
    return catalogue()[species].label if species in catalogue() else species


@dataclass
class _Lookup:
    index: NameIndex
    species: str
    present: frozenset[str]
    steps: Counter[str]

    def find(self, name: str) -> tuple[int, str]:
        """Row and reason of a tidied name."""
        if (row := self.index.ids.get(name)) is not None:
            return row, "id"
        if (row := self.index.symbols.get(name)) is not None:
            self.steps["shared symbol"] += name in self.index.shared_symbols
            return row, "symbol"
        owner, stem = split_id(name)
        if owner and stem != name and (row := self.index.ids.get(stem)) is not None:
            self.steps["PAR_Y merged" if name.endswith("_PAR_Y") else "version stripped"] += 1
            return row, "id"
        row, reason = self._rewritten(name)
        if row == AMBIGUOUS:
            return -1, "ambiguous"
        if row >= 0:
            return row, reason
        if owner:
            return -1, "unlisted-id" if owner == self.species else "other-species"
        return self._from_date(name)

    def _rewritten(self, name: str) -> tuple[int, str]:
        index = self.index
        for reason, row in (("case", index.folded.get(name.lower())), ("mangled", index.mangled.get(name))):
            if row is not None:
                return row, reason
        if (bare := without_suffix(name)) and bare in self.present and (row := self._bare(bare)) is not None:
            return row, "suffix"
        for form in (name, name.lower()):
            if (row := index.aliases.get(form)) is not None:
                return row, "alias"
        return -1, ""

    def _bare(self, name: str) -> int | None:
        index = self.index
        for row in (index.ids.get(split_id(name)[1]), index.symbols.get(name), index.folded.get(name.lower())):
            if row is not None:
                return row
        return index.aliases.get(name)

    def _from_date(self, name: str) -> tuple[int, str]:
        symbols = from_spreadsheet(name)
        if symbols is None:
            return -1, classify(name)
        for symbol in symbols:
            row = self.index.folded.get(symbol.lower(), self.index.aliases.get(symbol, AMBIGUOUS))
            if row != AMBIGUOUS:
                return row, "excel"
        return -1, "date"


def names_in(var: "pd.DataFrame", column: str) -> list[str]:
    """The names in the index ("index") or a column of `var`, missing ones as ""."""
    values = var.index.to_series() if column == INDEX else var[column]
    return [name if isinstance(name, str) else "" if name != name or name is None else str(name) for name in values]


def text_columns(var: "pd.DataFrame") -> list[str]:
    """ "index" and all columns of `var` that hold text."""
    import pandas as pd

    def holds_text(values: "pd.Series[Any]") -> bool:
        kind = values.dtype.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
        return pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind)

    return [INDEX, *(str(name) for name in var.columns if name != INDEX and holds_text(var[name]))]


def choose_column(var: "pd.DataFrame", table: GeneTable, *, column: str | None = None, file: str = "input") -> str:
    """The column of `var` with the most genes of `table`, by id or exact symbol; ids win where two are equal.

    Parameters
    ----------
    column
        What the user chose: "index" or a column's name; returned as it is if it exists.

    Raises
    ------
    UsageError
        There is no such column.
    """
    if column is not None:
        return check_column(var, column, file)
    index = name_index(table)
    scores = {name: _score(names_in(var, name), index) for name in text_columns(var)}
    return max(scores, key=lambda name: scores[name])


def check_column(var: "pd.DataFrame", column: str, file: str) -> str:
    """Return `column` if `var` has it.

    Raises
    ------
    UsageError
        It has not; the message lists the columns there are.
    """
    if column == INDEX or column in var.columns:
        return column
    columns = [INDEX, *map(str, var.columns)]
    msg = f"{file}: no gene column {printable(column)!r}.{nearest(column, columns)} There are: {shorten(columns)}."
    raise UsageError(msg)


def _score(names: list[str], index: NameIndex) -> tuple[int, int]:
    """How many genes are met, and how many of them by id."""
    distinct = {split_prefix(tidy(name))[1] for name in names}
    by_id = {row for name in distinct if (row := index.ids.get(split_id(name)[1])) is not None}
    by_symbol = {row for name in distinct if (row := index.symbols.get(name)) is not None}
    return len(by_id | by_symbol), len(by_id)
