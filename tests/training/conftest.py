"""A planted corpus: genes in programmes, cells that run one programme each, written as files a run can read."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from uce.cells.sentences import SentenceRule
from uce.genes.tables import GeneTable, write_table
from uce.genes.vocabulary import build_vocabulary
from uce.model.encoder import ModelConfig
from uce.training.corpus import Corpus, Dataset, special_vectors
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig

GENES, WIDTH, PROGRAMMES = 600, 32, 4


def planted_table(species: str = "homo_sapiens") -> GeneTable:
    """600 genes on three chromosomes; the first 200 belong to four programmes, and their vectors show it."""
    random = np.random.default_rng(5)
    vectors = random.normal(size=(GENES, WIDTH))
    for programme in range(PROGRAMMES):
        vectors[50 * programme : 50 * (programme + 1)] += 1.5 * random.normal(size=WIDTH)
    return GeneTable.from_rows(
        species=species,
        encoder="planted",
        ids=[f"ENSG{i:011d}" for i in range(GENES)],
        symbols=[f"GENE{i}" for i in range(GENES)],
        vectors=vectors,
        chromosomes=[str(1 + i % 3) for i in range(GENES)],
        starts=np.arange(GENES) + 1,
    )


def planted_counts(cells: int, *, seed: int = 0) -> tuple[csr_matrix, np.ndarray]:
    """(cells, 600) counts by row of the table, and the programme of each cell.

    Base rates are logit-normal(-2.5, 1.5); the 50 genes of a cell's own programme are detected at 0.6.
    """
    rates = 1 / (1 + np.exp(-np.random.default_rng(1).normal(-2.5, 1.5, GENES)))
    random = np.random.default_rng([2, seed])
    programme = random.integers(0, PROGRAMMES, cells)
    chance = np.repeat(rates[None], cells, axis=0)
    for cell in range(cells):
        chance[cell, 50 * programme[cell] : 50 * (programme[cell] + 1)] = 0.6
    seen = random.random(chance.shape) < chance
    return csr_matrix((seen * (1 + random.poisson(1.0, seen.shape))).astype(np.float64)), programme


def planted_corpus(*, sizes: tuple[int, ...] = (400, 100)) -> Corpus:
    """Datasets in memory; the genes of the last fifth of the table are not measured in the second one."""
    table = planted_table()
    specials = special_vectors(WIDTH)
    vocabulary = build_vocabulary(table, specials)
    datasets = []
    for number, cells in enumerate(sizes):
        counts, _ = planted_counts(cells, seed=number)
        measured = np.ones(GENES, dtype=bool)
        if number == 1:
            measured[-GENES // 5 :] = False
        by_rank = counts[:, np.argsort(vocabulary.ranks)].multiply(measured).tocsr()
        by_rank.sort_indices()
        by_rank.eliminate_zeros()
        datasets.append(Dataset(f"set{number}", table.species, by_rank, measured, vocabulary, {"cells": cells}))
    return Corpus(tuple(datasets), (table,), specials)


def toy_config(**changes: object) -> PretrainConfig:
    """Two layers of 64, sentences of 96 draws."""
    settings: dict[str, object] = {
        "data": DataSettings(manifest="manifest.csv", folder=".", gene_encoder="planted"),
        "model": ModelConfig(
            layers=2,
            dim=64,
            heads=4,
            hidden=128,
            protein_dim=WIDTH,
            out_dim=32,
            decoder_dim=64,
            norm="pre",
            activation="gelu",
            dropout=0.0,
            positions="none",
            readout="cls+mean",
            max_tokens=256,
        ),
        "rule": SentenceRule(draws=96, max_tokens=256),
        "draws": 96,
        "batch_size": 32,
        "steps": 12,
        "snapshot_every": 4,
        "log_every": 2,
        "objective": MaskedSettings(queries=64, hidden=(32, 16)),
        "optimizer": OptimizerSettings(lr=1e-3, warmup=3),
        "name": "toy",
    }
    return PretrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def corpus() -> Corpus:
    return planted_corpus()


@pytest.fixture
def planted_files(uce_home: Path, tmp_path: Path) -> DataSettings:
    """The table in the user's folder, two files of cells with names in another order, and their manifest."""
    return write_planted_files(uce_home, tmp_path / "cells")


def write_planted_files(home: Path, folder: Path) -> DataSettings:
    (home / "genes" / "planted").mkdir(parents=True)
    folder.mkdir()
    write_table(planted_table(), home / "genes" / "planted" / "homo_sapiens.h5ad")
    rows = []
    for number, cells in enumerate((120, 60)):
        counts, programme = planted_counts(cells, seed=number)
        order = np.random.default_rng(number).permutation(GENES)[: GENES - 100 * number]
        adata = anndata.AnnData(
            X=counts[:, order].astype(np.float32),
            obs=pd.DataFrame({"cell_type": programme.astype(str)}, index=[f"c{i}" for i in range(cells)]),
            var=pd.DataFrame(index=[f"GENE{i}" for i in order]),
        )
        adata.write_h5ad(folder / f"set{number}.h5ad")
        rows.append({"dataset": f"set{number}", "file": f"set{number}.h5ad", "species": "human", "role": "train"})
    rows.append({"dataset": "kept", "file": "kept.h5ad", "species": "human", "role": "validation"})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return DataSettings(manifest=str(folder / "manifest.csv"), folder=str(folder), gene_encoder="planted")


@pytest.fixture
def make_corpus() -> Callable[..., Corpus]:
    return planted_corpus


@pytest.fixture
def make_config() -> Callable[..., PretrainConfig]:
    return toy_config
