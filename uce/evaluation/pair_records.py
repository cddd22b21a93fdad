"""What is written down of two data sets that are judged against each other: facts, leakage, hashes."""

from typing import Any

import numpy as np

from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.orthology import SharedGenes
from uce.evaluation.pairing import Pair
from uce.evaluation.records import hashes
from uce.evaluation.results import NAN
from uce.evaluation.tasks.leakage import find_leakage

_SEEN = ("clean", "unknown", "dataset-overlap", "cell-overlap")


def pair_facts(pair: Pair, genes: SharedGenes | None, given: tuple[Cells, Cells]) -> dict[str, Any]:
    """Numbers of cells, labels and shared genes, the mapping of labels, and what is peculiar to each side.

    Parameters
    ----------
    given
        The cells of each side before any was left out.
    """
    shares = (NAN, NAN) if genes is None else (genes.share_first, genes.share_second)
    return {
        "name": f"{pair.first.name} and {pair.second.name}",
        "cells": len(pair.first) + len(pair.second),
        "judged": len(pair.first) + len(pair.second),
        "labels": len(pair.shared),
        "shared_labels": list(pair.shared),
        "label_mapping": list(pair.mapping),
        "orthologs": 0 if genes is None else len(genes),
        "orthologs_source": "" if genes is None else genes.source,
        "sides": [
            {
                "name": side.name,
                "species": species,
                "species_trained_on": _trained_on(side, species),
                "cells": len(side),
                "left_out": len(whole) - len(side),
                "labels": len(np.unique(side.labels)),
                "groups": 0 if side.groups is None else len(np.unique(side.groups)),
                "own_labels": sorted(set(side.labels.tolist()) - set(pair.shared)),
                "counts_in_orthologs": share,
            }
            for side, whole, species, share in zip(pair.sides, given, pair.species, shares, strict=True)
        ],
    }


def _trained_on(side: Cells, species: str) -> bool | None:
    """Whether the model saw cells of this species; None where that is not known."""
    if side.reader is None or not (known := side.reader.model.gene_tables):
        return None
    return species in {table["species"] for table in known}


def pair_leakage(pair: Pair, settings: Settings) -> dict[str, Any]:
    """Whether the model was trained on cells of either side: the worse of the two, and the evidence of both."""
    found = {side.name: find_leakage(Context(side, settings)).details for side in pair.sides}
    cells = sum(each["cells"] for each in found.values())
    return {
        "status": max((each["status"] for each in found.values()), key=_SEEN.index),
        "note": ". ".join(f"{name}: {each['note']}" for name, each in found.items()),
        "rows": [{"side": name, **row} for name, each in found.items() for row in each["rows"]],
        "manifests": sorted({place for each in found.values() for place in each["manifests"]}),
        "doubts": [f"{name}: {doubt}" for name, each in found.items() for doubt in each["doubts"]],
        "cells": cells,
        "share": cells / (len(pair.first) + len(pair.second)),
    }


def pair_hashes(pair: Pair) -> dict[str, str]:
    """SHA-256 of what was read of each side."""
    return {f"{side.name}/{name}": digest for side in pair.sides for name, digest in hashes(side, {}).items()}
