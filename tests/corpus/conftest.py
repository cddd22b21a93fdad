"""Small files of human cells with their manifest, and a corpus built of them."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from uce.corpus.build import Built, build_corpus
from uce.corpus.quality import QualityRules
from uce.genes.collection import load_gene_table

GENES = 1300


def cells_file(path: Path, cells: int = 90, *, seed: int = 0, obs: dict[str, object] | None = None) -> anndata.AnnData:
    """Write cells with about 400 genes and 900 counts each; every column is a gene of the bundled human table."""
    random = np.random.default_rng(seed)
    symbols = sorted({symbol for symbol in load_gene_table("human").symbols.tolist() if symbol})
    names = [symbols[place] for place in random.permutation(len(symbols))[:GENES]]
    counts = random.poisson(random.gamma(0.5, 1.4, size=GENES), size=(cells, GENES))
    table = pd.DataFrame(obs or {}, index=[f"c{i}" for i in range(cells)])
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=table, var=pd.DataFrame(index=names))
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)
    return adata


def write_manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two datasets, `one` of 90 and `two` of 40 cells, their manifest, and the corpus built of them."""
    folder = tmp_path_factory.mktemp("whole")
    cells_file(folder / "cells/one.h5ad", 90, seed=1, obs={"donor": [f"d{i % 3}" for i in range(90)]})
    cells_file(folder / "cells/two.h5ad", 40, seed=2)
    rows: list[dict[str, object]] = [
        {"dataset_id": "one", "path": "cells/one.h5ad", "species": "human", "licence": "MIT", "split": "train"},
        {"dataset_id": "two", "path": "cells/two.h5ad", "species": "human", "licence": "CC0", "split": "test"},
    ]
    manifest = write_manifest(folder / "manifest.csv", rows)
    build_corpus(manifest, folder / "corpus", rules=QualityRules(off=("mad",)))
    return folder


@pytest.fixture
def manifest(whole: Path, tmp_path: Path) -> Path:
    """The manifest of `whole` and its cells, for this test alone."""
    shutil.copytree(whole, tmp_path, ignore=shutil.ignore_patterns("corpus"), dirs_exist_ok=True)
    return tmp_path / "manifest.csv"


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    """The corpus of `whole`, at `tmp_path / "corpus"`, for this test alone."""
    return Path(shutil.copytree(whole / "corpus", tmp_path / "corpus"))


@pytest.fixture
def build(manifest: Path, tmp_path: Path) -> Callable[..., Built]:
    """Build the corpus of `manifest` in `tmp_path / "corpus"`, without the filter of outliers."""

    def run(**options: object) -> Built:
        options = {"rules": QualityRules(off=("mad",)), "out": tmp_path / "corpus"} | options
        return build_corpus(manifest, **options)  # type: ignore[arg-type]

    return run
