"""Was a model trained on the very cells it is judged on? Hashes of cells, and names of datasets, against its manifest.

A model without a manifest is `unknown`, never clean: nothing was found because there was nothing to look in.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.corpus.duplicates import Words, cell_hashes, top_gene_hashes
from uce.corpus.training_manifest import TrainingManifest
from uce.evaluation.cells import Cells
from uce.evaluation.context import Settings
from uce.evaluation.results import NotPossible
from uce.files import sha256_arrays
from uce.model.folders import TRAINED_ON

Mask = NDArray[np.bool_]
Leak = Literal["clean", "cell-overlap", "dataset-overlap", "unknown"]
_ACCESSION = re.compile(
    r"\b(?:GSE|GSM|SRP|ERP|DRP|SCP|HRA|CRA|EGAS|PRJ[A-Z]{2})\d+\b|\bE-[A-Z]{4}-\d+\b|\b10\.\d{4,9}/[^\s;,)\]]+"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Overlap:
    """What cells have in common with those of a manifest.

    Attributes
    ----------
    exact, near
        (cells,) whether a cell has the genes and counts, or at least the highest genes, of a cell trained on.
    rows
        One per dataset trained on that anything speaks for: dataset, study, species, cells, exact, near (how many of
        the judged cells are in it), named (the text that names it, or "").
    """

    exact: Mask
    near: Mask
    rows: list[dict[str, Any]]

    @property
    def any(self) -> Mask:
        """(cells,) either of the two."""
        return self.exact | self.near


def manifests(cells: Cells, settings: Settings) -> dict[str, TrainingManifest]:
    """Where from -> manifest: the one of the model that reads the cells, and the one that was given.

    Raises
    ------
    InputError
        One of them cannot be read.
    """
    found = {}
    model = cells.reader.model if cells.reader else None
    if model is not None and model.folder is not None and (model.folder / TRAINED_ON).is_dir():
        found[model.name] = TrainingManifest.read(model.folder / TRAINED_ON)
    if settings.manifest is not None:
        found[settings.manifest.name] = TrainingManifest.read(settings.manifest)
    return found


def trained_on(cells: Cells, settings: Settings) -> Mask:
    """(cells,) which cells the weights have seen, by every manifest that can be compared.

    Raises
    ------
    InputError
        One of them cannot be read.
    """
    seen = np.zeros(len(cells), dtype=bool)
    for manifest in manifests(cells, settings).values():
        with suppress(NotPossible):  # the task `leakage` says why
            seen |= overlapping(cells, manifest)
    return seen


def overlapping(cells: Cells, manifest: TrainingManifest) -> Mask:
    """(cells,) which cells the weights have seen, in the same counts or in others that rank the genes alike.

    Raises
    ------
    NotPossible
        There are no counts, or no model that reads them; or the hashes of the manifest are over other genes.
    """
    return find_overlap(cells, manifest).any


def find_overlap(cells: Cells, manifest: TrainingManifest) -> Overlap:
    """Compare cells with a manifest, by hash and by name.

    Raises
    ------
    NotPossible
        As `overlapping`.
    """
    exact, near = hashes_of(cells, manifest)
    counted = np.diff(cells.ranked.indptr) > 0  # all cells without counts have one hash
    named = same_names(names_of(cells), manifest.datasets)
    either: tuple[Mask, Mask] = (np.zeros(len(cells), dtype=bool), np.zeros(len(cells), dtype=bool))
    rows = []
    for number, dataset in enumerate(manifest.datasets):
        seen = is_in(exact, manifest.cells[number]) & counted
        alike = is_in(near, manifest.near[number]) & counted
        either = either[0] | seen, either[1] | alike
        if seen.any() or alike.any() or named[number]:
            counts = {"exact": int(seen.sum()), "near": int((alike | seen).sum()), "named": named[number]}
            rows.append(_about(dataset) | counts)
    return Overlap(*either, rows)


def hashes_of(cells: Cells, manifest: TrainingManifest) -> tuple[Words, Words]:
    """(cells,) both hashes of every cell, over the genes that the manifest's are over.

    Raises
    ------
    NotPossible
        As `overlapping`.
    """
    ranked, reader = cells.ranked, cells.need_reader()
    species, words = reader.match.table.species, reader.vocabulary.gene_keys
    facts = manifest.genes.get(species)
    if facts is not None and facts["words"] != sha256_arrays(np.sort(words)):
        kind = facts.get("encoder", "another kind")
        raise NotPossible(
            f"the manifest's hashes are over other genes of {species} than this model reads (a table of {kind}); "
            "judge with the model the manifest is of"
        )
    return cell_hashes(ranked, words), top_gene_hashes(ranked, words)


def is_in(hashes: Words, known: Words) -> Mask:
    """(cells,) whether each is among the sorted `known` ones."""
    places = np.minimum(np.searchsorted(known, hashes), max(0, len(known) - 1))
    return np.asarray(known[places] == hashes) if len(known) else np.zeros(len(hashes), dtype=bool)


def names_of(cells: Cells) -> list[str]:
    """What the cells' datasets are called: in their column, and by their file."""
    return sorted({cells.name, *([] if cells.datasets is None else cells.datasets.tolist())})


def same_names(names: Sequence[str], datasets: Iterable[dict[str, Any]]) -> list[str]:
    """Per dataset of a manifest the name or accession by which one of `names` speaks of it, or ""."""
    whole = {name.strip().lower() for name in names}
    parts = {part for name in names for part in accessions(name)}
    found = []
    for dataset in datasets:
        texts = [str(dataset.get(key, "")) for key in ("dataset", "study", "doi", "accession")]
        shared = ({texts[0].lower()} & whole) | ({part for text in texts for part in accessions(text)} & parts)
        found.append(min(shared, default=""))
    return found


def accessions(text: str) -> set[str]:
    """Accessions of archives (GEO, SRA, ArrayExpress, ...), DOIs and UUIDs in a text, in lower case."""
    return {found.lower().rstrip(".") for found in _ACCESSION.findall(text)}


def _about(dataset: dict[str, Any]) -> dict[str, Any]:
    return {key: dataset.get(key, "") for key in ("dataset", "study", "species", "cells")}
