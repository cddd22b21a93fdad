"""A planted corpus: genes in programmes, cells that run one programme each, written as files a run can read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from uce.cells.sentences import SentenceRule
from uce.corpus.build import build_corpus
from uce.corpus.quality import SWITCHES, QualityRules
from uce.genes.tables import GeneTable, table_record, write_table
from uce.genes.vocabulary import Vocabulary, build_vocabulary
from uce.model.encoder import ModelConfig
from uce.training.batch import Batch, to_tensors, token_tables
from uce.training.corpus import Corpus, Dataset, special_vectors
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig, RunSettings
from uce.training.stream import Cells, Stream

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
            measured[np.argsort(vocabulary.ranks)[-GENES // 5 :]] = False
        datasets.append(dataset_in_memory(f"set{number}", counts.multiply(measured).tocsr(), measured, vocabulary))
    return Corpus(tuple(datasets), (table_record(table),), specials, gene_encoder="planted", sha256="planted")


def dataset_in_memory(
    name: str, counts: csr_matrix, measured: np.ndarray, vocabulary: Vocabulary, *, labels: np.ndarray | None = None
) -> Dataset:
    """A dataset of (cells, genes) counts by row of the table, in one shard."""
    seen = np.asarray((counts > 0).sum(axis=0)).ravel()
    return Dataset(
        name=name,
        species="homo_sapiens",
        shards=(counts.shape[0],),
        fetch=lambda _shard, start, stop: counts[start:stop],
        fetch_genes=lambda: (measured, seen),
        vocabulary=vocabulary,
        facts={"cells": counts.shape[0]},
        fetch_labels=lambda column: labels if column == "cell_type" else None,
    )


def toy_config(**changes: object) -> PretrainConfig:
    """Two layers of 64, sentences of 96 draws."""
    settings: dict[str, object] = {
        "data": DataSettings(corpus="corpus"),
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
        "run": RunSettings(workers=0, log_every=2, snapshot_every=4),
        "objective": MaskedSettings(queries=64, hidden=(32, 16)),
        "optimizer": OptimizerSettings(lr=1e-3, warmup=3),
        "name": "toy",
    }
    return PretrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def corpus() -> Corpus:
    return planted_corpus()


@pytest.fixture(scope="session")
def planted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `planted_files` copies for every test, as building takes longer than many a test."""
    once = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCE_HOME", str(once / "home"))
        write_planted_files(once / "home", once / "cells")
    return once


@pytest.fixture
def planted_files(planted_once: Path, uce_home: Path, tmp_path: Path) -> DataSettings:
    """The table in the user's folder, and a corpus of two datasets to train on and one to validate on."""
    shutil.copytree(planted_once / "home", uce_home, dirs_exist_ok=True)
    shutil.copytree(planted_once / "cells", tmp_path / "cells")
    return DataSettings(corpus=str(tmp_path / "cells" / "corpus"))


def write_planted_files(home: Path, folder: Path) -> DataSettings:
    (home / "genes" / "planted").mkdir(parents=True)
    folder.mkdir()
    write_table(planted_table(), home / "genes" / "planted" / "homo_sapiens.h5ad")
    rows = []
    for number, (name, cells) in enumerate({"set0": 120, "set1": 60, "kept": 50}.items()):
        counts, programme = planted_counts(cells, seed=number)
        order = np.random.default_rng(number).permutation(GENES)[: GENES - 100 * (number == 1)]
        adata = anndata.AnnData(
            X=counts[:, order].astype(np.float32),
            obs=pd.DataFrame({"cell_type": programme.astype(str)}, index=[f"c{i}" for i in range(cells)]),
            var=pd.DataFrame(index=[f"GENE{i}" for i in order]),
        )
        adata.write_h5ad(folder / f"{name}.h5ad")
        split = "validation" if name == "kept" else "train"
        rows.append({"dataset": name, "file": f"{name}.h5ad", "species": "human", "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    build_planted_corpus(folder)
    return DataSettings(corpus=str(folder / "corpus"))


def build_planted_corpus(folder: Path) -> None:
    """Bring the corpus beside a manifest up to date; all cells stay."""
    build_corpus(folder / "manifest.csv", folder / "corpus", encoder="planted", rules=QualityRules(off=SWITCHES))


@pytest.fixture
def make_corpus() -> Callable[..., Corpus]:
    return planted_corpus


@pytest.fixture
def make_config() -> Callable[..., PretrainConfig]:
    return toy_config


def cells_of(corpus: Corpus, config: PretrainConfig, part: int) -> Cells:
    """All cells of a part."""
    return Stream(corpus, config).cells(part)


def batch_of(corpus: Corpus, config: PretrainConfig, part: int, *, rank: int = 0, world: int = 1) -> Batch:
    """The batch of a process in a part."""
    return config.objective.make_batch(cells_of(corpus, config, part), config, part, rank=rank, world=world)


def tensors_of(
    corpus: Corpus, config: PretrainConfig, part: int, *, rank: int = 0, world: int = 1
) -> dict[str, torch.Tensor]:
    """The same as the tensors that an objective takes."""
    device = torch.device("cpu")
    return to_tensors(batch_of(corpus, config, part, rank=rank, world=world), token_tables([corpus], device), device)


def planted_cells(cells: int, *, seed: int = 0) -> anndata.AnnData:
    """Planted cells as a user has them: gene symbols, types, and a donor for each type."""
    counts, programme = planted_counts(cells, seed=seed)
    obs = {"cell_type": np.array(list("abcd"))[programme], "donor": programme.astype(str)}
    return anndata.AnnData(
        X=counts.astype(np.float32),
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(cells)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(GENES)]),
    )
