"""Cells that a model was trained on are found in any disguise, others are not; not to know is not to be clean."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData, concat
from scipy.sparse import csc_matrix, csr_matrix

from uce.corpus.build import build_corpus
from uce.corpus.duplicates import top_gene_hashes
from uce.corpus.quality import SWITCHES, QualityRules
from uce.corpus.training_manifest import TrainingManifest
from uce.engines import Settings as Computing
from uce.errors import InputError
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.leakage import accessions, find_overlap, is_in, overlapping, same_names, trained_on
from uce.evaluation.reading import Columns, read_cells
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.tasks import leakage as task
from uce.genes.collection import load_gene_table
from uce.model.checkpoint import Model, load_model
from uce.training.corpus import open_corpus
from uce.training.settings import DataSettings
from uce.training.trained_on import training_manifest

MakeCells = Callable[..., AnnData]
COMPUTING = Computing(torch.device("cpu"), "fp32")


def cells_of(adata: AnnData | Path, model: Model | None, **columns: str) -> Cells:
    return read_cells(adata, Columns(**({"label": "kind"} | columns)), model=model, computing=COMPUTING).cells


def judge(cells: Cells, manifest: Path | None = None) -> Findings:
    vectors = np.zeros((len(cells), 2), np.float32)
    return task.run(Context(cells, Settings(manifest=manifest)), Embedding("tiny", vectors, "own"))


def write_corpus(folder: Path, sets: dict[str, tuple[AnnData, str, str]]) -> str:
    lines = ["dataset,file,species,split,study"]
    for name, (adata, split, study) in sets.items():
        adata.write_h5ad(folder / f"{name}.h5ad")
        lines.append(f"{name},{name}.h5ad,human,{split},{study}")
    (folder / "corpus.csv").write_text("\n".join(lines))
    build_corpus(folder / "corpus.csv", folder / "corpus", rules=QualityRules(off=SWITCHES))
    return str(folder / "corpus")


@pytest.fixture(scope="module")
def sets(make_cells: MakeCells) -> dict[str, tuple[AnnData, str, str]]:
    return {
        "blood": (make_cells(cells=700, genes=1500, seed=1), "train", "GSE96583"),
        "lung": (make_cells(cells=300, genes=1200, seed=2), "train", "10.1126/science.aax1971"),
        "skin": (make_cells(cells=60, genes=1200, seed=3), "train", "left out"),
        "brain": (make_cells(cells=60, genes=1200, seed=4), "validation", "kept aside"),
    }


@pytest.fixture(scope="module")
def manifest(sets: dict[str, tuple[AnnData, str, str]], tmp_path_factory: pytest.TempPathFactory) -> TrainingManifest:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), sets)
    return training_manifest(open_corpus(DataSettings(corpus, leave_out=("skin",))))


@pytest.fixture
def written(manifest: TrainingManifest, tmp_path: Path) -> Path:
    manifest.write(tmp_path / "trained_on")
    return tmp_path / "trained_on"


def ensembl(adata: AnnData) -> AnnData:
    table = load_gene_table("human")
    ids = {symbol: gene for gene, symbol in zip(table.ids.tolist(), table.symbols.tolist(), strict=True)}
    renamed = adata.copy()
    renamed.var_names = [f"{ids[symbol]}.7" for symbol in adata.var_names]
    return renamed


def shuffled(adata: AnnData, seed: int = 5) -> AnnData:
    rng = np.random.default_rng(seed)
    return adata[rng.permutation(adata.n_obs)][:, rng.permutation(adata.n_vars)].copy()


def without_silent_genes(adata: AnnData) -> AnnData:
    return adata[:, np.asarray(adata.X.sum(axis=0)).ravel() > 0].copy()


def with_counts(kind: Callable[[csr_matrix], object]) -> Callable[[AnnData], AnnData]:
    def change(adata: AnnData) -> AnnData:
        other = adata.copy()
        other.X = kind(other.X)
        return other

    return change


DISGUISES: dict[str, Callable[[AnnData], AnnData]] = {
    "as they are": lambda adata: adata,
    "shuffled": shuffled,
    "silent genes dropped": without_silent_genes,
    "whole numbers": with_counts(lambda x: x.astype(np.int64)),
    "dense float64": with_counts(lambda x: x.toarray().astype(np.float64)),
    "columns first": with_counts(csc_matrix),
    "Ensembl ids": ensembl,
    "all at once": lambda adata: with_counts(lambda x: csc_matrix(x.astype(np.int32)))(
        ensembl(without_silent_genes(shuffled(adata)))
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_one_percent_of_the_corpus_is_found_whatever_became_of_its_form(
    sets: dict[str, tuple[AnnData, str, str]],
    make_cells: MakeCells,
    manifest: TrainingManifest,
    tiny_model: Model,
    disguise: str,
) -> None:
    planted = sets["blood"][0][::100].copy()
    planted.obs_names = [f"leaked {i}" for i in range(planted.n_obs)]
    fresh = make_cells(cells=60, genes=1500, seed=9)
    mixed = concat([planted, fresh], join="outer", fill_value=0)
    cells = cells_of(DISGUISES[disguise](mixed), tiny_model)
    leaked = np.char.startswith(cells.names.astype(str), "leaked")
    assert leaked.sum() == 7
    overlap = find_overlap(cells, manifest)
    assert np.array_equal(overlap.exact, leaked)
    assert np.array_equal(overlapping(cells, manifest), leaked)
    assert [(row["dataset"], row["exact"], row["named"]) for row in overlap.rows] == [("blood", 7, "")]


def test_cells_that_the_weights_have_seen_are_marked_by_any_manifest(
    sets: dict[str, tuple[AnnData, str, str]], make_cells: MakeCells, written: Path, tiny_model: Model
) -> None:
    mixed = concat([sets["blood"][0][:20], make_cells(cells=60, seed=9)], join="outer", fill_value=0, index_unique="-")
    seen = trained_on(cells_of(mixed, tiny_model), Settings(manifest=written))
    np.testing.assert_array_equal(seen, np.arange(80) < 20)


def test_counts_that_were_scaled_or_lost_their_rare_genes_are_found_as_near_duplicates(
    sets: dict[str, tuple[AnnData, str, str]], make_cells: MakeCells, manifest: TrainingManifest, tiny_model: Model
) -> None:
    adata = sets["blood"][0][:100].copy()
    scaled = adata.copy()
    scaled.X = scaled.X * 3
    cut = adata.copy()
    cut.X = csr_matrix(np.where(adata.X.toarray() > 1, adata.X.toarray(), 0))
    for other in (scaled, cut):
        overlap = find_overlap(cells_of(other, tiny_model), manifest)
        assert not overlap.exact.any()
        assert overlap.near.mean() > 0.95
    strange = find_overlap(cells_of(make_cells(cells=200, genes=1500, seed=9), tiny_model), manifest)
    assert not strange.any.any()


def test_the_hash_of_the_highest_genes_needs_no_rule_for_ties() -> None:
    words = np.random.default_rng(0).integers(0, 2**63, 500, dtype=np.uint64)
    cell = np.zeros(500)
    cell[:150], cell[150:400] = 5, 2  # the 201st gene has a 2, so the set is the first 150
    fewer, other, poor = cell.copy(), cell.copy(), cell.copy()
    fewer[300:] = 0
    other[149] = 1
    poor[20:150] = 2  # only 20 genes stand out
    counts = csr_matrix(np.stack([cell, 10 * cell, fewer, other, poor, 10 * poor]))
    before = counts.toarray()
    hashes = top_gene_hashes(counts, words)
    assert np.array_equal(counts.toarray(), before)
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[[0, 3, 4, 5]].tolist())) == 4


@pytest.mark.parametrize("name", ["skin", "brain"])
def test_what_was_left_out_or_is_of_another_split_was_not_trained_on(
    sets: dict[str, tuple[AnnData, str, str]], manifest: TrainingManifest, tiny_model: Model, name: str
) -> None:
    assert [dataset["dataset"] for dataset in manifest.datasets] == ["blood", "lung"]
    assert [len(part) for part in manifest.cells] == [700, 300]
    assert not overlapping(cells_of(sets[name][0], tiny_model), manifest).any()


def test_a_model_without_a_manifest_is_unknown_and_has_no_score(make_cells: MakeCells, tiny_model: Model) -> None:
    found = judge(cells_of(make_cells(cells=50), tiny_model))
    assert found.details["status"] == "unknown"
    assert "tiny has no training manifest" in found.details["note"]
    assert [score.status for score in found.scores] == ["skipped", "skipped"]
    assert np.isnan([score.value for score in found.scores]).all()


def test_a_manifest_tells_clean_from_cells_and_from_datasets(
    sets: dict[str, tuple[AnnData, str, str]], make_cells: MakeCells, tiny_model: Model, written: Path
) -> None:
    fresh = make_cells(cells=50, seed=9)
    clean = judge(cells_of(fresh, tiny_model), written)
    assert clean.details["status"] == "clean"
    assert [score.value for score in clean.scores] == [0, 0]
    for named in ("blood", "Kang 2018 (gse96583)", "doi:10.1126/SCIENCE.aax1971."):
        fresh.obs["study"] = named
        by_name = judge(cells_of(fresh, tiny_model, dataset="study"), written)
        assert by_name.details["status"] == "dataset-overlap"
        assert by_name.details["rows"][0]["named"]
    leaked = judge(cells_of(sets["lung"][0], tiny_model), written / "manifest.json")
    assert leaked.details["status"] == "cell-overlap"
    assert [score.value for score in leaked.scores] == [1, 1]
    assert all(score.better == "lower" for score in leaked.scores)
    assert "300 of 300 cells were trained on (lung)" in leaked.details["note"]


def test_a_manifest_that_says_it_is_not_complete_never_makes_clean(
    manifest: TrainingManifest, make_cells: MakeCells, tiny_model: Model, tmp_path: Path
) -> None:
    replace(manifest, lacking="the cells of 1 other corpus").write(tmp_path / "part")
    found = judge(cells_of(make_cells(cells=50, seed=9), tiny_model), tmp_path / "part")
    assert found.details["status"] == "unknown"
    assert "lacks the cells of 1 other corpus" in found.details["note"]


def test_hashes_over_other_genes_are_not_compared(
    manifest: TrainingManifest, make_cells: MakeCells, tiny_model: Model, tmp_path: Path
) -> None:
    cells = cells_of(make_cells(cells=50, seed=9), tiny_model)
    other = replace(manifest, genes={"homo_sapiens": {"words": "another", "encoder": "esm2"}})
    with pytest.raises(NotPossible, match=r"other genes of homo_sapiens .* \(a table of esm2\)"):
        overlapping(cells, other)
    other.write(tmp_path / "other")
    assert not trained_on(cells, Settings(manifest=tmp_path / "other")).any()
    assert judge(cells, tmp_path / "other").details["status"] == "unknown"
    assert overlapping(cells, replace(manifest, genes={})).sum() == 0  # trained on other species alone


def test_cells_without_counts_are_nobodys_copy(
    manifest: TrainingManifest, make_cells: MakeCells, tiny_model: Model
) -> None:
    cells = cells_of(make_cells(cells=50, seed=9), tiny_model)
    empty = cells.need_counts().copy()
    empty.data[:] = 0
    empty.eliminate_zeros()
    silent = replace(cells, counts=empty)
    zero = np.unique(top_gene_hashes(silent.ranked, silent.need_reader().vocabulary.gene_keys))
    assert not overlapping(silent, replace(manifest, cells=(zero, zero), near=(zero, zero))).any()


def test_without_a_model_or_counts_nothing_is_known(make_cells: MakeCells, written: Path) -> None:
    fresh = make_cells(cells=50, seed=9)
    found = judge(cells_of(fresh, None), written)
    assert found.details["status"] == "unknown"
    assert all(score.status == "skipped" for score in found.scores)
    fresh.obs["study"] = "blood"
    assert judge(cells_of(fresh, None, dataset="study"), written).details["status"] == "dataset-overlap"


def test_a_manifest_survives_the_disk_and_damage_is_noticed(manifest: TrainingManifest, written: Path) -> None:
    back = TrainingManifest.read(written)
    assert back.datasets == manifest.datasets
    for before, after in zip(manifest.cells + manifest.near, back.cells + back.near, strict=True):
        assert np.array_equal(before, after)
        assert (np.diff(after.astype(object)) >= 0).all()
    content = (written / "cells.npy").read_bytes()
    (written / "cells.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"manifest\.json: not a training manifest"):
        TrainingManifest.read(written)
    (written / "cells.npy").write_bytes(content)
    index = json.loads((written / "manifest.json").read_text())
    for broken in (
        "{",
        "[]",
        json.dumps(index | {"version": 99}),
        json.dumps(index | {"datasets": index["datasets"][:1]}),
    ):
        (written / "manifest.json").write_text(broken)
        with pytest.raises(InputError, match="not a training manifest"):
            TrainingManifest.read(written)
    with pytest.raises(InputError, match="no training manifest there"):
        TrainingManifest.read(written / "nowhere")


def test_names_are_compared_whole_and_accessions_wherever_they_stand() -> None:
    datasets = [{"dataset": "kidney", "study": "GSE131685; Liao 2020 10.1038/s41597-019-0351-8"}, {"dataset": "eye"}]
    assert same_names(["Kidney"], datasets) == ["kidney", ""]
    assert same_names(["kidney_2"], datasets) == ["", ""]
    assert same_names(["from GSE131685, filtered"], datasets) == ["gse131685", ""]
    assert same_names(["GSE1316850", "10.1038/s41597-019-0351-80"], datasets) == ["", ""]
    assert accessions("see E-MTAB-10519 (SRP041736) and 00000000-1111-2222-3333-444444444444.") == {
        "e-mtab-10519",
        "srp041736",
        "00000000-1111-2222-3333-444444444444",
    }


def test_an_empty_list_holds_nothing() -> None:
    assert not is_in(np.array([1, 2], np.uint64), np.zeros(0, np.uint64)).any()


def test_the_bundled_model_knows_its_cells_and_no_others(shared: Path) -> None:
    """Every cell of its corpus in the files it was built from, and not one of the validation sets."""
    model = load_model("uce-mini")
    assert model.folder is not None
    own = TrainingManifest.read(model.folder)
    trained = {str(dataset["dataset"]): len(part) for dataset, part in zip(own.datasets, own.cells, strict=True)}
    assert sum(trained.values()) == 13_000
    assert own.corpora == (model.info["training"]["corpus_sha256"],)
    for name in ("human_embryo_blakeley", "mouse_es_mef_islam", "cele_embryo_packer"):
        found = judge(cells_of(shared / "data" / "cells" / f"{name}.h5ad", model, label="dataset"))
        assert found.details["status"] == "cell-overlap"
        assert [(row["dataset"], row["exact"]) for row in found.details["rows"]] == [(name, trained[name])]
    for name in ("human_lung_tumour_zilionis", "dmel_gut_fca"):
        found = judge(cells_of(shared / "data" / "cells" / f"{name}.h5ad", model, label="dataset"))
        assert (found.details["status"], found.details["cells"]) == ("clean", 0)
