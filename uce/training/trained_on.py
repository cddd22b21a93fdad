"""The training manifest of a run: every cell that its settings show to the model, and no other."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uce.corpus.duplicates import Words, cell_hashes, top_gene_hashes
from uce.corpus.training_manifest import TrainingManifest
from uce.files import atomic_path, sha256_arrays
from uce.model.folders import TRAINED_ON

if TYPE_CHECKING:
    from uce.training.corpus import Corpus, Dataset
    from uce.training.start import Start

_BLOCK = 4096
_EARLIER = "earlier_corpora.txt"  # of a run: SHA-256 of each corpus that it was trained on before it got another


def training_manifest(corpus: "Corpus", *, lacking: str = "") -> TrainingManifest:
    """The manifest of an opened corpus: the cells of its split, without the datasets that are left out.

    Reads all of these cells once.

    Parameters
    ----------
    lacking
        In words, what else was trained on.
    """
    hashes = [_hashes(dataset) for dataset in corpus.datasets]
    words = {dataset.species: np.sort(dataset.vocabulary.gene_keys) for dataset in corpus.datasets}
    tables = {str(table["species"]): table for table in corpus.tables}
    return TrainingManifest(
        datasets=tuple(
            {"dataset": dataset.name, **dataset.facts, "species": dataset.species, "cells": dataset.n_cells}
            for dataset in corpus.datasets
        ),
        genes={
            species: {
                "encoder": str(tables[species]["encoder"]),
                "table": str(tables[species]["sha256"]),
                "words": sha256_arrays(keys),
            }
            for species, keys in words.items()
        },
        cells=tuple(exact for exact, _ in hashes),
        near=tuple(near for _, near in hashes),
        corpora=(corpus.sha256,),
        lacking=lacking,
    )


def _hashes(dataset: "Dataset") -> tuple[Words, Words]:
    words = dataset.vocabulary.gene_keys[dataset.vocabulary.ranks]
    exact, near = [], []
    for shard, size in enumerate(dataset.shards):
        for start in range(0, size, _BLOCK):
            counts = dataset.fetch(shard, start, min(start + _BLOCK, size))
            exact.append(cell_hashes(counts, words))
            near.append(top_gene_hashes(counts, words))
    return np.sort(np.concatenate(exact)), np.sort(np.concatenate(near))


def note_corpus(run: Path, before: str, corpus: "Corpus") -> None:
    """Remember that a run was trained on another corpus before: its cells may not be at hand when it ends."""
    known = _earlier(run)
    if before != corpus.sha256 and before not in known:
        with atomic_path(run / _EARLIER) as temporary:
            temporary.write_text("".join(f"{sha256}\n" for sha256 in [*known, before]), encoding="utf-8")


def write_manifest(model: Path, corpus: "Corpus", run: Path, start: "Start | None" = None) -> None:
    """Put the manifest of a run into the folder of its model, with what the model it began from had seen."""
    others = [sha256 for sha256 in _earlier(run) if sha256 != corpus.sha256]
    lacking = f"the cells of {len(others)} other corpora that its training began with" if others else ""
    manifest = training_manifest(corpus, lacking=lacking)
    (manifest if start is None else _with_those_of(start, manifest)).write(model / TRAINED_ON)


def _with_those_of(start: "Start", ours: TrainingManifest) -> TrainingManifest:
    """The manifest with the cells of the model that a run began from, or with a word that they are lacking.

    Hashes are over the genes of a table, so those of another table cannot stand beside ours.
    """
    known = start.folder is not None and (start.folder / TRAINED_ON).is_dir()
    theirs = TrainingManifest.read(start.folder / TRAINED_ON) if known and start.folder else None
    if theirs is None or any(theirs.genes[name] != ours.genes[name] for name in theirs.genes.keys() & ours.genes):
        why = "its folder does not say which" if theirs is None else "hashed over other gene tables"
        lacking = [ours.lacking, f"the cells that {start.name} was trained on, from which it began ({why})"]
        return replace(ours, lacking="; ".join(filter(None, lacking)))
    # Where training went on with the same cells, as in phases, they are named once.
    seen = list(zip(ours.datasets, ours.cells, strict=True))
    more = [
        (dataset, cells, near)
        for dataset, cells, near in zip(theirs.datasets, theirs.cells, theirs.near, strict=True)
        if not any(dataset == there and np.array_equal(cells, known) for there, known in seen)
    ]
    return TrainingManifest(
        datasets=(*ours.datasets, *(dataset for dataset, _, _ in more)),
        genes=theirs.genes | ours.genes,
        cells=(*ours.cells, *(cells for _, cells, _ in more)),
        near=(*ours.near, *(near for _, _, near in more)),
        corpora=tuple(dict.fromkeys((*ours.corpora, *theirs.corpora))),
        lacking="; ".join(filter(None, (ours.lacking, theirs.lacking))),
    )


def _earlier(run: Path) -> list[str]:
    path = run / _EARLIER
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
