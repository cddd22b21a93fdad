"""`uce embed --cycles`: a recursive model read at another depth; recorded, verified, refused where there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from uce.cli.main import main
from uce.model.checkpoint import Model, save_model
from uce.model.encoder import Encoder


@pytest.fixture
def recursive(tiny_model: Model, tmp_path: Path) -> Path:
    """The folder of an untrained recursive model of three cycles."""
    torch.manual_seed(3)
    config = replace(tiny_model.config, kind="recursive", cycles=3, readout="cls")
    return save_model(
        tmp_path / "recursive",
        encoder=Encoder(config),
        rule=tiny_model.rule,
        specials=tiny_model.specials,
        gene_encoder=tiny_model.gene_encoder,
        gene_tables=[],
        info={},
    )


@pytest.fixture
def cells(make_cells: Callable[..., anndata.AnnData], tmp_path: Path) -> Path:
    """A file of 20 cells."""
    make_cells(20).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def embed(cells: Path, model: Path | str, out: Path, *more: str) -> int:
    return main(["embed", str(cells), "--model", str(model), "--species", "human", "-o", str(out), *more])


def test_another_number_of_cycles_is_read_recorded_and_verified(recursive: Path, cells: Path, tmp_path: Path) -> None:
    found = {}
    for name, more in {"own": [], "three": ["--cycles", "3"], "one": ["--cycles", "1"]}.items():
        out = tmp_path / f"{name}.h5ad"
        assert embed(cells, recursive, out, *more) == 0
        found[name] = anndata.read_h5ad(out)
        assert main(["verify", str(out), "--model", str(recursive)]) == 0
    vectors = {name: adata.obsm["X_uce"] for name, adata in found.items()}
    assert [int(adata.uns["uce"]["X_uce"]["cycles"]) for adata in found.values()] == [3, 3, 1]
    np.testing.assert_array_equal(vectors["own"], vectors["three"])
    assert np.abs(vectors["own"] - vectors["one"]).max() > 1e-3


def test_a_run_at_other_cycles_is_another_run(
    recursive: Path, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.h5ad"
    assert embed(cells, recursive, out, "--shard", "0/2") == 0
    assert embed(cells, recursive, out, "--cycles", "2") == 2
    assert "holds an unfinished run with cycles 3, now 2" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("cycles", "words"), [("2", "tiny runs its blocks once"), ("0", "must be a whole number from 1 to 1000")]
)
def test_cycles_that_cannot_be_are_refused_in_a_line(
    tiny_folder: Path, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cycles: str, words: str
) -> None:
    assert embed(cells, tiny_folder, tmp_path / "out.h5ad", "--cycles", cycles) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"--cycles {cycles}: " in line
    assert words in line
    assert not (tmp_path / "out.h5ad").exists()
