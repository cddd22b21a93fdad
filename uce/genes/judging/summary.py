"""What a gene table holds, in numbers; and one gene of it."""

from collections import Counter
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import UsageError
from uce.files import printable
from uce.genes.catalogue import species_label
from uce.genes.judging.measures import centred
from uce.genes.resolver import resolve
from uce.genes.tables import UNPLACED, GeneTable

_NEIGHBOURS = 10


def describe(table: GeneTable) -> dict[str, Any]:
    """Facts about a table: size, kind and origin of its vectors, names, positions, metadata, hash."""
    placed = table.chromosomes != UNPLACED
    facts: dict[str, Any] = {
        "species": table.species,
        "genes": len(table),
        "encoder": table.encoder,
        "dim": table.dim,
        "with symbol": int((table.symbols != "").sum()),
        "with synonyms": int((table.synonyms != "").sum()),
        "with protein count": int((table.proteins > 0).sum()),
        "chromosomes": len(np.unique(table.chromosomes[placed])),
        "unplaced": int((~placed).sum()),
        "position projected": int(table.projected.sum()),
        "chromosome vectors": len(table.chromosome_vectors),
    }
    for origin, count in Counter(table.origins.tolist()).most_common():
        facts[f"vector from {origin}"] = count
    return {**facts, **table.metadata, "sha256": table.sha256}


def describe_gene(table: GeneTable, name: str) -> dict[str, Any]:
    """One gene of a table, found by the rules for the names of a cell file: id, symbol, alias, other case.

    Returns
    -------
    Plain values: the gene's row, how it was found, the length of its vector (`norm`) and the ten `nearest` genes as
    [symbol or id, cosine after the table's mean vector is taken off], nearest first.

    Raises
    ------
    UsageError
        No gene, or more than one, goes by this name; the message names the nearest.
    """
    found = resolve([name], table)
    row, reason = int(found.rows[0]), str(found.reasons[0])
    if row < 0:
        raise UsageError(_not_found(table, name, reason))
    return {
        "id": str(table.ids[row]),
        "symbol": str(table.symbols[row]),
        "synonyms": str(table.synonyms[row]).replace("|", ", "),
        "found by": reason,
        "chromosome": str(table.chromosomes[row]),
        "start": int(table.starts[row]),
        "position projected": bool(table.projected[row]),
        "proteins": int(table.proteins[row]),
        "vector from": str(table.origins[row]),
        "norm": float(np.linalg.norm(table.vectors[row])),
        "nearest": _neighbours(table, row),
    }


def _neighbours(table: GeneTable, row: int) -> list[list[str | float]]:
    units = centred(table.vectors)
    cosines: NDArray[np.float32] = units @ units[row]
    order = [other for other in np.argsort(-cosines, kind="stable").tolist() if other != row]
    return [[str(table.symbols[other] or table.ids[other]), float(cosines[other])] for other in order[:_NEIGHBOURS]]


def _not_found(table: GeneTable, name: str, reason: str) -> str:
    species, asked = species_label(table.species), repr(printable(name))
    if reason == "ambiguous":
        return f"{asked} is an alias of more than one gene of {species}. Give an id or a symbol."
    known = {spelt.upper(): spelt for spelt in (*table.ids.tolist(), *table.symbols.tolist()) if spelt}
    close = [known[found] for found in get_close_matches(name[:60].upper(), list(known), n=3)]
    why = "" if reason == "unknown" else f" ({reason})"
    advice = f" Did you mean {' or '.join(close)}?" if close else " Give an id, a symbol or an alias of a gene."
    return f"no gene of {species} in this table is called {asked}{why}.{advice}"
