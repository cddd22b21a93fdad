"""Vectors that collapsed are called so, whatever their neighbours; sound ones, of however simple cells, are not."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import pdist

from uce.evaluation import collapse
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.results import Findings, Score
from uce.evaluation.tasks.collapse import METRICS, run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


@pytest.fixture(scope="module")
def pbmc() -> ad.AnnData:
    import scanpy as sc

    return sc.datasets.pbmc68k_reduced()


def evaluate(vectors: np.ndarray, labels: np.ndarray, counts: sparse.csr_matrix | None = None) -> Findings:
    cells = Cells("cells", np.arange(len(labels)).astype(object), labels.astype(str), counts=counts)
    return run(Context(cells, Settings()), Embedding("X", np.ascontiguousarray(vectors, np.float32), "given"))


def scores(findings: Findings) -> dict[str, Score]:
    return {score.metric: score for score in findings.scores}


def suspects(findings: Findings) -> set[str]:
    return {score.metric for score in findings.scores if score.status == "suspect"}


def test_published_cells_have_the_known_values(pbmc: ad.AnnData) -> None:
    found = evaluate(pbmc.obsm["X_pca"], pbmc.obs["bulk_labels"].to_numpy())
    value = {name: score.value for name, score in scores(found).items()}
    assert value["mean_cosine"] == pytest.approx(0.003, abs=5e-4)
    assert value["mean_cosine_centred"] == pytest.approx(0.003, abs=5e-4)
    assert value["uniformity"] == pytest.approx(-3.12, abs=5e-3)
    assert value["effective_rank"] == pytest.approx(45.1, abs=0.05)
    assert value["participation_ratio"] == pytest.approx(15.8, abs=0.05)
    assert value["top_share"] == pytest.approx(0.17, abs=5e-3)
    assert not suspects(found)
    umap = scores(evaluate(pbmc.obsm["X_umap"], pbmc.obs["bulk_labels"].to_numpy()))
    assert umap["effective_rank"].value == pytest.approx(2.0, abs=0.05)
    assert {score.status for score in umap.values()} == {"ok"}  # two dimensions are few, not collapsed


def test_squeezed_published_cells_are_caught_though_their_neighbours_are_the_same(pbmc: ad.AnnData) -> None:
    vectors, labels = np.asarray(pbmc.obsm["X_pca"]), pbmc.obs["bulk_labels"].to_numpy()
    sound, squeezed = evaluate(vectors, labels), evaluate(vectors.mean(axis=0) + 5 + 0.001 * vectors, labels)
    assert suspects(squeezed) == {"mean_cosine"}
    assert scores(squeezed)["mean_cosine"].value == pytest.approx(1.0, abs=1e-3)
    assert scores(squeezed)["mean_cosine_centred"].value == pytest.approx(0.003, abs=1e-3)
    assert scores(squeezed)["uniformity"].value == pytest.approx(0.0, abs=1e-3)
    assert scores(squeezed)["label_signal"].value == pytest.approx(scores(sound)["label_signal"].value, abs=0.01)
    assert scores(squeezed)["mean_cosine"].note in squeezed.details["gates"]


def types(rng: np.random.Generator, n: int = 200, dim: int = 24, kinds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    codes = rng.integers(kinds, size=n)
    return 3 * rng.standard_normal((kinds, dim))[codes] + rng.standard_normal((n, dim)), codes.astype(str)


def test_what_was_planted_is_named(rng: np.random.Generator) -> None:
    vectors, labels = types(rng)
    n, dim = vectors.shape
    dominated = vectors + 500 * rng.standard_normal((n, 1)) * np.ones(dim)
    flat = vectors[:, :2] @ rng.standard_normal((2, dim))
    repeated = vectors.copy()
    repeated[:10] = repeated[10:20]
    expected = {
        "mean_cosine": 5 + 0.001 * vectors,
        "top_share": dominated,
        "effective_rank": flat,
        "duplicate_rows": repeated,
        "label_signal": vectors[rng.permutation(n)],
    }
    assert not suspects(evaluate(vectors, labels))
    for gate, planted in expected.items():
        found = evaluate(planted, labels)
        assert gate in suspects(found), gate
        assert scores(found)[gate].note


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_identical_vectors_are_collapsed_and_what_does_not_exist_is_undefined(value: float) -> None:
    found = evaluate(np.full((60, 8), value), np.repeat(["a", "b"], 30))
    assert "mean_cosine" in suspects(found)
    assert "same vector" in scores(found)["mean_cosine"].note
    assert scores(found)["mean_cosine_centred"].status == "undefined"
    assert scores(found)["effective_rank"].value == 1.0


def test_two_clear_types_are_simple_and_not_collapsed(rng: np.random.Generator) -> None:
    """Nearly all variance along one direction, as it should be: the types lie there."""
    codes = np.repeat([0, 1], 50)
    vectors = rng.standard_normal((100, 20)) + 200 * codes[:, None]
    assert collapse.measure(vectors.astype(np.float32)).top_share > collapse.TOP_SHARE
    assert not suspects(evaluate(vectors - vectors.mean(axis=0), codes.astype(str)))
    assert "top_share" in suspects(evaluate(vectors - vectors.mean(axis=0), np.tile(["a", "b"], 50)))  # other labels


def test_cells_that_are_repeated_in_the_data_may_repeat_their_vector(rng: np.random.Generator) -> None:
    vectors, labels = types(rng)
    counts = rng.poisson(2.0, (200, 30)).astype(np.float64)
    vectors[:10], counts[:10] = vectors[10:20], counts[10:20]
    labels[:10] = labels[10:20]
    found = evaluate(vectors, labels, sparse.csr_matrix(counts))
    assert scores(found)["duplicate_rows"].value == pytest.approx(0.05)
    assert not suspects(found)
    counts[:10, 0] += 1
    assert suspects(evaluate(vectors, labels, sparse.csr_matrix(counts))) == {"duplicate_rows"}


def test_too_few_cells_are_not_judged(rng: np.random.Generator) -> None:
    assert not suspects(evaluate(5 + 0.001 * rng.standard_normal((20, 6)), np.full(20, "a")))


def test_dimensions_that_are_dead_or_far_off_are_counted(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((100, 10)).astype(np.float32)
    vectors[:, 0], vectors[:, 1] = 0.5, 1e-9 * vectors[:, 1]
    vectors[:, 2] += 50
    spread = collapse.measure(vectors)
    assert spread.dead_dimensions == 2
    assert spread.outlier_dimensions == 2  # the constant one is as far from 0 as can be
    assert spread.cumulative[-1] == pytest.approx(1.0)


def test_a_hub_is_seen(rng: np.random.Generator) -> None:
    even = rng.uniform(size=(300, 2)).astype(np.float32)
    hubs = rng.standard_normal((300, 200)).astype(np.float32)
    assert collapse.hubness(find_neighbors(hubs, 15)) > collapse.hubness(find_neighbors(even, 15)) + 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 60))
def test_uniformity_is_that_of_all_pairs(seed: int, n: int) -> None:
    rows = collapse.unit(np.random.default_rng(seed).standard_normal((n, 5)))
    assert collapse.uniformity(rows) == pytest.approx(np.log(np.exp(-2 * pdist(rows) ** 2).mean()), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(1e-3, 1e3))
def test_the_unit_of_the_vectors_plays_no_part(seed: int, factor: float) -> None:
    vectors = np.random.default_rng(seed).standard_normal((50, 6)).astype(np.float32) + 1
    one, other = collapse.measure(vectors), collapse.measure((factor * vectors).astype(np.float32))
    for name in ("mean_cosine", "uniformity", "effective_rank", "participation_ratio", "relative_spread"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-3)


def test_large_sets_are_judged_by_a_draw_that_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "MAX_CELLS", 40)
    vectors, labels = types(np.random.default_rng(1))
    first, second = evaluate(vectors, labels), evaluate(vectors, labels)
    assert first.scores == second.scores
    assert first.scores[0].n_cells == 40


def test_the_table_and_the_pictures_have_what_was_promised(rng: np.random.Generator) -> None:
    found = evaluate(*types(rng))
    assert [(score.metric, score.family) for score in found.scores] == list(METRICS)
    histogram = found.details["cosine_histogram"]
    assert len(histogram["edges"]) == len(histogram["raw"]) + 1
    assert (sum(histogram["raw"]), sum(histogram["centred"])) == pytest.approx((1.0, 1.0))
    assert np.all(np.diff(found.details["spectrum"]) >= 0)


@pytest.mark.parametrize("name", ["human_pbmc_10x3k", "human_pbmc_kang"])
def test_real_cells_are_sound_all_of_them_or_of_two_types_or_of_one(name: str, shared: Path) -> None:
    """By the bundled model; these sets are the simplest, or the most alike, of all that were looked at."""
    import uce

    cells = ad.read_h5ad(shared / "data" / "cells" / f"{name}.h5ad")
    cells = cells[np.sort(np.random.default_rng(0).permutation(cells.n_obs)[:240])].copy()
    labels = cells.obs["cell_type"].to_numpy().astype(str)
    species = str(cells.obs["species"].iloc[0])
    vectors = uce.embed_counts(sparse.csr_matrix(cells.X), cells.var_names, model="uce-mini", species=species)
    names, counts = np.unique(labels, return_counts=True)
    for kinds in (len(names), 2, 1):
        kept = np.isin(labels, names[np.argsort(-counts)[:kinds]])
        assert not suspects(evaluate(vectors[kept], labels[kept])), kinds
    assert suspects(evaluate(1 + 0.001 * vectors, labels)) == {"mean_cosine"}
