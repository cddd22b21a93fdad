"""Promise 5: every output says what made it, without clock or path, and can be verified."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import uce
from uce.errors import InputError, ModelError
from uce.genes.collection import load_gene_table

if TYPE_CHECKING:
    from uce.model.checkpoint import Model


@pytest.fixture
def source(make_cells: Callable[..., ad.AnnData], tmp_path: Path) -> Path:
    make_cells().write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def run(source: Path, output: Path, model: "Model", **options: object) -> Path:
    return uce.embed_file(source, output, model=model, species="human", quiet=True, **options).path


def test_the_record_names_everything_that_decides_the_numbers(
    source: Path, tiny_model: "Model", tmp_path: Path
) -> None:
    record = ad.read_h5ad(run(source, tmp_path / "out.h5ad", tiny_model, seed=3)).uns["uce"]["X_uce"]
    assert record["version"] == uce.__version__
    assert record["model_sha256"] == tiny_model.sha256
    assert record["species"] == {"homo_sapiens": load_gene_table("human").sha256}
    assert (record["seed"], record["replicates"], record["precision"]) == (3, 1, "fp32")
    assert (record["counts_slot"], record["cells"], record["draws"]) == ("X", 60, 64)
    report = record["genes"]["homo_sapiens"]
    assert sum(report["reasons"].values()) == report["names"]
    assert 0.9 < record["health"]["counts_covered"] <= 1


def test_equal_runs_give_equal_records_anywhere(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = uce.embed_file(source, tmp_path / "a.npy", model=tiny_model, species="human", quiet=True, file_format="npy")
    other = uce.embed_file(
        source, tmp_path / "elsewhere" / "b.npy", model=tiny_model, species="human", quiet=True, file_format="npy"
    )
    assert first.record == other.record
    assert str(tmp_path) not in json.dumps(first.record)
    assert first.path.read_bytes() == other.path.read_bytes()


def test_npy_and_parquet_hold_the_same_vectors_and_record(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    expected = ad.read_h5ad(run(source, tmp_path / "out.h5ad", tiny_model)).obsm["X_uce"]
    path = run(source, tmp_path / "out.npy", tiny_model, file_format="npy")
    np.testing.assert_array_equal(np.load(path), expected)
    assert json.loads(path.with_name("out.npy.json").read_text())["model_sha256"] == tiny_model.sha256
    table = pq.read_table(run(source, tmp_path / "out.parquet", tiny_model, file_format="parquet"))
    assert table["cell"].to_pylist()[:2] == ["c0", "c1"]
    np.testing.assert_array_equal(np.array(table["X_uce"].to_pylist(), np.float32), expected)
    assert json.loads(table.schema.metadata[b"uce"])["model_sha256"] == tiny_model.sha256


def test_a_result_verifies(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    path = run(source, tmp_path / "out.h5ad", tiny_model, seed=5, replicates=2)
    verdict = uce.verify(path, model=tiny_model)
    assert verdict.ok
    assert verdict.cells == 60
    assert "verified" in str(verdict)


def test_a_changed_result_does_not_verify(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    path = run(source, tmp_path / "out.h5ad", tiny_model)
    with h5py.File(path, "r+") as file:
        file["obsm/X_uce"][30] = file["obsm/X_uce"][31]
    verdict = uce.verify(path, model=tiny_model)
    assert not verdict.ok
    assert "NOT what its record says" in str(verdict)


def test_verifying_needs_the_record_and_the_model(
    source: Path, tiny_model: "Model", tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(InputError, match=r"no record of obsm\['X_uce'\]"):
        uce.verify(source, model=tiny_model)
    path = run(source, tmp_path / "out.h5ad", tiny_model)
    with pytest.raises(ModelError, match="A record names no folder; give that of the model with --model"):
        uce.verify(path)
    with h5py.File(path, "r+") as file:
        del file["uns/uce/X_uce/model_sha256"]
        file["uns/uce/X_uce"]["model_sha256"] = "0" * 64
        file["uns/uce/X_uce/model_sha256"].attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
    with pytest.raises(ModelError, match="was made by model 000000000000"):
        uce.verify(path, model=tiny_model)
