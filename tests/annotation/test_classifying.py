"""Labels by the classifier that a model brings along: files and objects, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import uce
from uce.cli.main import main
from uce.errors import ModelError, UsageError
from uce.model.checkpoint import load_model, save_model
from uce.model.classifier import Classifier
from uce.model.folders import CLASSIFIER
from uce.model.hub import pack


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a classifier of three labels."""
    model, random = load_model(tiny_folder), np.random.default_rng(0)
    return save_model(
        tmp_path_factory.mktemp("models") / "labelling",
        encoder=model.encoder,
        rule=model.rule,
        specials=model.specials,
        gene_encoder=model.gene_encoder,
        gene_tables=[],
        info={"licence": "MIT"},
        classifier=Classifier(
            ("a", "b", "c"),
            (20 * random.standard_normal((3, model.config.out_dim))).astype(np.float32),
            np.zeros(3, np.float32),
        ),
    )


def test_cells_get_the_labels_of_the_classifier(
    folder: Path, make_cells: Callable[..., ad.AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = make_cells(cells=30, genes=400)
    cells.X = sparse.csr_matrix(cells.X.toarray() * (np.arange(30) != 3)[:, None])  # without a count, no vector
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ["annotate", str(tmp_path / "cells.h5ad"), "--model", str(folder), "--species", "human", "--quiet"]
    assert main([*words, "-o", str(tmp_path / "out.h5ad")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out.h5ad"), str(tmp_path / "out.summary.tsv")]
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    model = load_model(folder)
    assert model.classifier is not None
    there = np.arange(30) != 3
    vectors = found.obsm["X_uce"]
    logits = vectors @ model.classifier.weight.T
    expected = np.array(["a", "b", "c"])[logits[there].argmax(axis=1)]
    assert found.obs["uce_label"].astype(str)[there].tolist() == expected.tolist()
    assert found.obs["uce_label"].iloc[3] == "unknown"
    assert np.isnan(found.obs["uce_vote_share"].iloc[3])
    shares = np.exp(logits[there]) / np.exp(logits[there]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.obs["uce_vote_share"][there], shares.max(axis=1), rtol=1e-4)
    assert found.uns["uce_annotate"]["summary"]["cells"].sum() == 29
    uce.annotate(cells, model=folder, species="human", quiet=True)
    assert cells.obs["uce_label"].astype(str).tolist() == found.obs["uce_label"].astype(str).tolist()
    with pytest.raises(Exception, match="uce_best_label"):
        uce.annotate(cells, model=folder, species="human", quiet=True)


def test_the_classifier_goes_where_the_model_goes(folder: Path, tiny_folder: Path) -> None:
    assert pack(folder, repo="me/mini").files[CLASSIFIER] == folder / CLASSIFIER
    assert "## Labels\n\n- a\n- b\n- c" in (folder / "README.md").read_text()
    assert load_model(folder).sha256 == load_model(tiny_folder).sha256  # which is that of the vectors


def test_what_cannot_be_labelled_is_refused(
    folder: Path, tiny_folder: Path, make_cells: Callable[..., ad.AnnData]
) -> None:
    cells = make_cells(cells=5, genes=400)
    with pytest.raises(UsageError, match="brings no classifier: give a labelled --reference"):
        uce.annotate(cells, model=tiny_folder, quiet=True)
    with pytest.raises(UsageError, match="no --model: give a labelled --reference"):
        uce.annotate(cells, quiet=True)
    with pytest.raises(UsageError, match="--group-key: is of a labelled --reference"):
        uce.annotate(cells, model=folder, group_key="donor", quiet=True)
    with pytest.raises(UsageError, match="--reference without --label-key"):
        uce.annotate(cells, reference=cells, quiet=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "classifier.safetensors: missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "not the file that config.json names"),
    ],
)
def test_a_damaged_classifier_is_refused(
    spoil: Callable[[Path], object], message: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    spoil(copy / CLASSIFIER)
    with pytest.raises(ModelError, match=message):
        load_model(copy)


def test_a_classifier_that_nobody_named_is_refused(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    shutil.copy(folder / CLASSIFIER, copy)
    with pytest.raises(ModelError, match=r"not the file that config\.json names"):
        load_model(copy)


def test_a_classifier_of_other_vectors_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(tiny_folder)
    parts = {"rule": model.rule, "specials": model.specials, "gene_encoder": model.gene_encoder}
    for name, labels, width in (("wide", ("a", "b"), 17), ("one", ("a",), 16), ("twice", ("a", "a"), 16)):
        weight, bias = np.zeros((len(labels), width), np.float32), np.zeros(len(labels), np.float32)
        wrong = Classifier(labels, weight, bias)
        made = save_model(tmp_path / name, encoder=model.encoder, gene_tables=[], info={}, classifier=wrong, **parts)
        with pytest.raises(ModelError, match="not a classifier of vectors 16 wide"):
            load_model(made)
    nan = Classifier(("a", "b"), np.full((2, 16), np.nan, np.float32), np.zeros(2, np.float32))
    made = save_model(tmp_path / "nan", encoder=model.encoder, gene_tables=[], info={}, classifier=nan, **parts)
    with pytest.raises(ModelError, match="holds NaN"):
        load_model(made)
