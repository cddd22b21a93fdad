"""A run leaves a list of the cells it was trained on with its model, and exporting keeps it or makes it up."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
from scipy.sparse import csr_matrix

from uce.corpus.duplicates import cell_hashes, gene_words, top_gene_hashes
from uce.corpus.training_manifest import TrainingManifest
from uce.model.checkpoint import load_model
from uce.model.hub import pack
from uce.training.corpus import open_corpus
from uce.training.export import export
from uce.training.loop import pretrain
from uce.training.settings import DataSettings, PretrainConfig
from uce.training.trained_on import note_corpus, write_manifest

Configure = Callable[..., PretrainConfig]


def hashes_of_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the cells of a file of the planted corpus, by the names of its own columns."""
    adata = anndata.read_h5ad(path)
    words = gene_words([f"ENSG{int(name.removeprefix('GENE')):011d}" for name in adata.var_names])
    counts = csr_matrix(adata.X)
    counts.sort_indices()
    return np.sort(cell_hashes(counts, words)), np.sort(top_gene_hashes(counts, words))


def test_the_model_of_a_run_says_which_cells_it_has_seen(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=replace(planted_files, leave_out=("set1",)), steps=2, licence="MIT")
    model = pretrain(config, out=tmp_path / "run")
    manifest = TrainingManifest.read(model)
    (dataset,) = manifest.datasets
    assert (dataset["dataset"], dataset["cells"], dataset["species"]) == ("set0", 120, "homo_sapiens")
    exact, near = hashes_of_file(tmp_path / "cells" / "set0.h5ad")
    assert np.array_equal(manifest.cells[0], exact)
    assert np.array_equal(manifest.near[0], near)
    assert manifest.genes["homo_sapiens"]["table"] == load_model(model).gene_tables[0]["sha256"]
    assert manifest.corpora == (load_model(model).info["training"]["corpus_sha256"],)
    assert not manifest.lacking

    shared = export(tmp_path / "run", out=tmp_path / "shared")
    again = export(shared, out=tmp_path / "again", licence="MIT")
    for folder in (shared, again):
        for name in ("manifest.json", "cells.npy", "near.npy"):
            assert (folder / "trained_on" / name).read_bytes() == (model / "trained_on" / name).read_bytes()
    assert {"trained_on/manifest.json", "trained_on/cells.npy", "trained_on/near.npy"} < set(
        pack(again, repo="me/x").files
    )
    export(tmp_path / "run", out=tmp_path / "shared", overwrite=True)


def test_a_snapshot_is_exported_with_the_cells_of_its_corpus_where_that_is_at_hand(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    model = pretrain(make_config(data=planted_files), out=run)
    snapshot = export(run, out=tmp_path / "early", step=8)
    assert (snapshot / "trained_on" / "cells.npy").read_bytes() == (model / "trained_on" / "cells.npy").read_bytes()
    shutil.move(tmp_path / "cells", tmp_path / "elsewhere")
    assert not (export(run, out=tmp_path / "late", step=8) / "trained_on").exists()


def test_a_run_that_began_on_another_corpus_says_that_its_list_is_not_complete(
    planted_files: DataSettings, tmp_path: Path
) -> None:
    corpus = open_corpus(planted_files)
    note_corpus(tmp_path, corpus.sha256, corpus)
    for _ in range(2):
        note_corpus(tmp_path, "another", corpus)
    write_manifest(tmp_path, corpus, tmp_path)
    assert TrainingManifest.read(tmp_path).lacking == "the cells of 1 other corpora that its training began with"
