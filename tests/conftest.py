"""What every test may use: no network, the folder of shared real data where there is one, a home of its own."""

import logging
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from anndata import AnnData

    from uce.model.checkpoint import Model

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine, in every test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "localhost", "::1"):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _logs_are_heard() -> None:
    """Undo what libraries do to loggers that are there before them: our warnings must reach the test that waits."""
    logging.disable(logging.NOTSET)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("uce") and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Undo a change of torch's number of threads: with another one, sums round otherwise in the tests that follow."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def uce_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder that belongs to this test alone."""
    home = tmp_path_factory.mktemp("uce-home")
    monkeypatch.setenv("UCE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real cells, genes and the published model's numbers; tests that need it skip without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the folder of shared real data is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with one small untrained layer that reads the bundled gene vectors."""
    import torch

    from uce.cells.sentences import SentenceRule
    from uce.genes.collection import load_gene_table
    from uce.model.checkpoint import save_model
    from uce.model.encoder import Encoder, ModelConfig

    width = load_gene_table("human").dim
    config = ModelConfig(
        layers=2, dim=32, heads=2, hidden=64, protein_dim=width, out_dim=16, decoder_dim=32, readout="cls+mean"
    )
    torch.manual_seed(7)
    specials = np.random.default_rng(7).standard_normal((4, width)).astype(np.float32)
    return save_model(
        tmp_path_factory.mktemp("models") / "tiny",
        encoder=Encoder(config),
        rule=SentenceRule(draws=64, max_tokens=160),
        specials=specials,
        gene_encoder="orthogroups-v1",
        gene_tables=[],
        info={},
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> "Model":
    """The model of `tiny_folder`, loaded."""
    from uce.model.checkpoint import load_model

    return load_model(tiny_folder)


@pytest.fixture(scope="session")
def make_cells() -> Callable[..., "AnnData"]:
    """A function (cells, genes, seed) -> AnnData of simulated human counts, three kinds of cells, named by symbols."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    from uce.genes.collection import load_gene_table

    table = load_gene_table("human")
    symbols = [symbol for symbol in table.symbols.tolist() if symbol]

    def make(cells: int = 60, genes: int = 1200, seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        names = sorted(set(rng.choice(symbols, size=genes, replace=False).tolist()))
        levels = rng.gamma(0.3, 1.0, size=(3, len(names)))
        kinds = rng.integers(3, size=cells)
        counts = sparse.csr_matrix(rng.poisson(levels[kinds]).astype(np.float32))
        obs = pd.DataFrame(
            {"kind": pd.Categorical([f"kind {k}" for k in kinds])}, index=[f"c{i}" for i in range(cells)]
        )
        return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=names))

    return make
