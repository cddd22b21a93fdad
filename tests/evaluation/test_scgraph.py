"""Distances between cell types: what agrees with the data, and what only separates types."""

import anndata as ad
import numpy as np
import pytest

from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.scgraph import above_null, agreement, judge, judge_shuffled, label_distances, yardstick
from uce.evaluation.tasks.scgraph import METRICS, run


@pytest.fixture(scope="module")
def pbmc() -> ad.AnnData:
    import scanpy as sc

    return sc.datasets.pbmc68k_reduced()


def columns(pbmc: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    return pbmc.obs["bulk_labels"].to_numpy().astype(str), pbmc.obs["phase"].to_numpy().astype(str)


@pytest.mark.parametrize(
    ("key", "rank", "corr", "weighted"), [("X_pca", 0.932, 0.993, 0.985), ("X_umap", 0.652, 0.676, 0.470)]
)
def test_published_cells_have_the_values_of_the_package(
    pbmc: ad.AnnData, key: str, rank: float, corr: float, weighted: float
) -> None:
    labels, batches = columns(pbmc)
    data = yardstick(np.asarray(pbmc.X), labels, batches)
    assert data.batches == ("G1", "S")
    assert data.skipped == (("G2M", "17 cells, fewer than 100"),)
    found = judge(pbmc.obsm[key].astype(np.float32), labels, data)
    assert (found.rank, found.corr, found.weighted) == pytest.approx((rank, corr, weighted), abs=1e-3)


def test_the_oracle_is_caught(pbmc: ad.AnnData) -> None:
    """Types that are all equally far from each other say nothing, however well they are separated."""
    labels, batches = columns(pbmc)
    data = yardstick(np.asarray(pbmc.X), labels, batches)
    oracle = np.eye(10)[np.unique(labels, return_inverse=True)[1]].astype(np.float32)
    assert np.isnan(judge(oracle, labels, data).weighted)
    assert judge(oracle, labels, data).corr == pytest.approx(0.711, abs=1e-3)  # what the zeros of the diagonal give
    noisy = oracle + 0.01 * np.random.default_rng(0).standard_normal(oracle.shape).astype(np.float32)
    real = judge(pbmc.obsm["X_umap"].astype(np.float32), labels, data)
    found = judge(noisy, labels, data)
    assert found.weighted < real.weighted
    assert found.corr_offdiag < real.corr_offdiag


def planted(n: int = 900, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log counts of six types on a line, in two batches that are shifted by much more than types are, and the line."""
    rng = np.random.default_rng(seed)
    codes, batches = rng.integers(6, size=n), rng.choice(["x", "y"], n)
    position = np.array([0, 1, 3, 7, 8, 12])[codes].astype(float)
    pattern, shift = rng.normal(0, 0.3, 60), rng.normal(0, 5, 60)
    logs = position[:, None] * pattern + np.where(batches == "y", 1.0, 0.0)[:, None] * shift
    return logs + rng.normal(0, 0.5, logs.shape) + 20, np.array(list("abcdef"))[codes], batches, position


def test_distances_are_those_inside_batches() -> None:
    logs, labels, batches, position = planted()
    data = yardstick(logs, labels, batches)
    line = judge(np.stack([position, 0 * position], axis=1).astype(np.float32), labels, data)
    assert line.weighted > 0.99
    assert line.corr_offdiag > 0.99
    assert line.rank_offdiag > 0.9
    scrambled = judge(np.sin(7 * position)[:, None].astype(np.float32), labels, data)
    assert scrambled.weighted < 0.5


def test_labels_at_random_score_nothing_above_the_null() -> None:
    logs, labels, batches, position = planted()
    data, rng = yardstick(logs, labels, batches), np.random.default_rng(1)
    vectors = (position[:, None] + rng.standard_normal((len(labels), 10))).astype(np.float32)
    null = judge_shuffled(vectors, labels, data, rng, times=60)
    assert null.corr > 0.4  # the diagonal alone
    assert above_null(judge(vectors, labels, data).corr, null.corr) > 0.95
    dealt = [judge(vectors, rng.permutation(labels), data).corr for _ in range(60)]
    assert above_null(float(np.mean(dealt)), null.corr) == pytest.approx(0.0, abs=0.2)


def test_the_null_of_a_draw_is_that_of_all_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, labels, batches, position = planted()
    data, order = yardstick(logs, labels, batches), np.argsort(labels)  # as in a file that is sorted by label
    vectors = (position[:, None] + np.random.default_rng(1).standard_normal((len(labels), 10))).astype(np.float32)
    whole = judge_shuffled(vectors[order], labels[order], data, np.random.default_rng(2), times=60)
    monkeypatch.setattr("uce.evaluation.scgraph.NULL_CELLS", 300)
    drawn = judge_shuffled(vectors[order], labels[order], data, np.random.default_rng(3), times=60)
    assert drawn.corr == pytest.approx(whole.corr, abs=0.1)


def test_cosine_does_not_see_norms() -> None:
    rng = np.random.default_rng(4)
    vectors, labels = rng.standard_normal((60, 5)), np.repeat(["a", "b", "c"], 20)
    longer = vectors * rng.uniform(1, 100, (60, 1))
    names = ("a", "b", "c")
    assert label_distances(longer, labels, names, metric="cosine") == pytest.approx(
        label_distances(vectors, labels, names, metric="cosine")
    )
    assert label_distances(longer, labels, names) != pytest.approx(label_distances(vectors, labels, names), rel=0.05)


def test_squeezed_vectors_keep_their_score() -> None:
    """The reason why collapse is looked for by itself."""
    logs, labels, batches, position = planted()
    data = yardstick(logs, labels, batches)
    vectors = (position[:, None] + np.random.default_rng(1).standard_normal((len(labels), 4))).astype(np.float32)
    assert judge(5 + 0.001 * vectors, labels, data).weighted == pytest.approx(
        judge(vectors, labels, data).weighted, abs=1e-3
    )


def test_labels_that_share_no_batch_are_left_out_of_the_comparison() -> None:
    logs, labels, _, position = planted()
    batches = np.where(np.isin(labels, ["a", "b", "c"]), "x", "y")
    data = yardstick(logs, labels, batches)
    assert np.isnan(data.distances[0, 3])
    assert np.isfinite(data.distances[0, :3]).all()
    assert judge(position[:, None].astype(np.float32), labels, data).weighted > 0.99


def test_an_outlier_cell_does_not_move_a_centroid() -> None:
    vectors = np.zeros((63, 2), np.float32)
    labels = np.repeat(["a", "b", "c"], 21)
    vectors[21:42, 0], vectors[42:, 1] = 1, 1
    before = label_distances(vectors, labels, ("a", "b", "c"))
    vectors[0] = 1e6
    assert label_distances(vectors, labels, ("a", "b", "c")) == pytest.approx(before)


def test_a_constant_embedding_has_no_agreement() -> None:
    flat = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    found = agreement(flat, np.array([[0.0, 1, 0.5], [1, 0, 1], [0.5, 0.9, 0]]))
    assert np.isnan(found.weighted)
    assert np.isnan(found.corr_offdiag)


def evaluate(cells: Cells, vectors: np.ndarray) -> Findings:
    return run(Context(cells, Settings()), Embedding("X", vectors.astype(np.float32), "given"))


def as_cells(batches: bool = True, **changes: object) -> tuple[Cells, np.ndarray]:
    from scipy import sparse

    logs, labels, columns, position = planted()
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(np.exp(logs / 6)).astype(np.float64))
    facts = {"batches": columns if batches else None, "counts": counts, **changes}
    return Cells("cells", np.arange(len(labels)).astype(object), labels, **facts), position  # type: ignore[arg-type]


@pytest.mark.parametrize("batches", [True, False])
def test_the_task_reads_counts_and_gives_what_was_promised(batches: bool) -> None:
    cells, position = as_cells(batches)
    found = evaluate(cells, np.stack([position, position**2], axis=1))
    assert [(score.metric, score.family) for score in found.scores] == list(METRICS)
    assert [score.metric for score in found.scores if score.headline] == ["scgraph_weighted"]
    assert "PCA" in found.scores[0].note
    assert found.details["batches"] == (["x", "y"] if batches else ["all cells"])
    assert all(np.isfinite(score.value) and score.n_labels == 6 for score in found.scores)


def test_a_score_that_does_not_exist_is_undefined() -> None:
    cells, _ = as_cells()
    found = evaluate(cells, np.eye(6)[np.unique(cells.labels, return_inverse=True)[1]])
    weighted = found.scores[0]
    assert weighted.status == "undefined"
    assert np.isnan(weighted.value)
    assert weighted.note


def test_what_is_missing_is_said() -> None:
    cells, position = as_cells(counts=None)
    with pytest.raises(NotPossible, match="needs raw counts"):
        evaluate(cells, position[:, None])
    logs, labels, batches, _ = planted()
    with pytest.raises(NotPossible, match="three labels"):
        yardstick(logs, np.where(labels == "a", "a", "b"), batches)
    with pytest.raises(NotPossible, match="no batch has 100 cells"):
        yardstick(logs[:90], labels[:90], batches[:90])
    with pytest.raises(NotPossible, match="no batch has 100 cells"):
        yardstick(logs, labels, labels)


def test_the_same_call_gives_the_same_numbers() -> None:
    cells, position = as_cells()
    vectors = np.stack([position, position**0.5], axis=1)
    assert evaluate(cells, vectors).scores == evaluate(cells, vectors).scores
