"""What a gene table holds, in numbers."""

from collections import Counter
from typing import Any

import numpy as np

from uce.genes.tables import GeneTable


def describe(table: GeneTable) -> dict[str, Any]:
    """Facts about a table: size, kind and origin of its vectors, names, positions, metadata, hash."""
    facts: dict[str, Any] = {
        "species": table.species,
        "genes": len(table),
        "encoder": table.encoder,
        "dim": table.dim,
        "with symbol": int((table.symbols != "").sum()),
        "with synonyms": int((table.synonyms != "").sum()),
        "chromosomes": len(np.unique(table.chromosomes[table.chromosomes != "unplaced"])),
        "unplaced": int((table.chromosomes == "unplaced").sum()),
        "position projected": int(table.projected.sum()),
    }
    for origin, count in Counter(table.origins.tolist()).most_common():
        facts[f"vector from {origin}"] = count
    return {**facts, **table.metadata, "sha256": table.sha256}
