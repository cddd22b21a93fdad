"""A small model of planted gene vectors, and files of planted cells of four types from four donors."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from tests.training.conftest import WIDTH, planted_cells, planted_table, toy_config
from uce.cells.sentences import SentenceRule
from uce.genes.tables import write_table
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder
from uce.training.corpus import special_vectors


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def base(uce_home: Path, tmp_path: Path) -> Path:
    """The folder of an untrained model, its gene table in the user's folder."""
    (uce_home / "genes" / "planted").mkdir(parents=True)
    write_table(planted_table(), uce_home / "genes" / "planted" / "homo_sapiens.h5ad")
    torch.manual_seed(3)
    return save_model(
        tmp_path / "base",
        encoder=Encoder(toy_config().model),
        rule=SentenceRule(draws=96, max_tokens=256),
        specials=special_vectors(WIDTH),
        gene_encoder="planted",
        gene_tables=[],
        info={"licence": "MIT", "limits": ["small"]},
    )


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """A function (name, cells, seed) -> file with the columns cell_type and donor, or with those left out."""

    def make(name: str = "mine", *, cells: int = 160, seed: int = 0, without: tuple[str, ...] = ()) -> Path:
        adata = planted_cells(cells, seed=seed)
        adata.obs["donor"] = np.array(["D1", "D2", "D3", "D4"])[np.arange(cells) % 4]
        adata.obs = adata.obs.drop(columns=list(without))
        path = tmp_path / f"{name}.h5ad"
        anndata.AnnData.write_h5ad(adata, path)
        return path

    return make
