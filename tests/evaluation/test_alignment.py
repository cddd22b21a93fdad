"""Rows in the wrong order, and columns with the wrong names, are noticed before anything is measured."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from uce.evaluation.alignment import alignment, check_alignment, check_columns, name_evidence, swapped
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.neighbors import find_neighbors


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def as_cells(labels: np.ndarray, batches: np.ndarray | None = None) -> Cells:
    return Cells("cells", np.arange(len(labels)).astype(object), labels.astype(str), batches)


def verdict(vectors: np.ndarray, labels: np.ndarray) -> str:
    return check_alignment(Context(as_cells(labels), Settings()), Embedding("X_mine", vectors.astype("f4"), "given"))


def some_types(rng: np.random.Generator, n: int = 300, apart: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    codes = rng.integers(4, size=n)
    return apart * rng.standard_normal((4, 6))[codes] + rng.standard_normal((n, 6)), np.array(list("abcd"))[codes]


def test_shuffled_rows_are_refused_in_words(rng: np.random.Generator) -> None:
    vectors, labels = some_types(rng)
    assert verdict(vectors, labels) == ""
    words = verdict(vectors[rng.permutation(len(vectors))], labels)
    assert "unaligned with labels" in words
    assert "X_mine is no better than shuffled rows" in words
    assert "another order" in words
    assert "without any signal" in words


def test_weak_signal_is_enough(rng: np.random.Generator) -> None:
    assert verdict(*some_types(rng, apart=0.7)) == ""


def test_rows_moved_by_some_places_are_refused(rng: np.random.Generator) -> None:
    vectors, labels = some_types(rng)
    assert verdict(np.roll(vectors, 7, axis=0), labels)


def test_random_vectors_are_refused_and_rarely_pass(rng: np.random.Generator) -> None:
    labels = some_types(rng)[1]
    passed = [verdict(rng.standard_normal((len(labels), 20)), labels) == "" for _ in range(40)]
    assert sum(passed) <= 1


@pytest.mark.parametrize(
    "labels",
    [np.full(40, "one"), np.arange(40).astype(str), np.array(["a", "b"])],
    ids=["one label", "a label each", "two cells"],
)
def test_where_shuffling_changes_nothing_nothing_is_said(labels: np.ndarray, rng: np.random.Generator) -> None:
    assert verdict(rng.standard_normal((len(labels), 5)), labels) == ""


def test_few_cells_are_judged_by_fewer_neighbours(rng: np.random.Generator) -> None:
    labels = np.repeat(["a", "b", "c"], 10)
    vectors = rng.standard_normal((30, 4)) + 8 * np.eye(4)[np.repeat([0, 1, 2], 10)]
    found = alignment(find_neighbors(vectors.astype("f4"), 29), labels, rng)
    assert found.k == 10
    assert found.aligned
    assert found.chance_corrected == pytest.approx((found.agreement - found.shuffled) / (1 - found.shuffled))


def test_shuffled_means_what_a_shuffle_gives(rng: np.random.Generator) -> None:
    vectors, labels = some_types(rng)
    found = alignment(find_neighbors(vectors.astype("f4"), 15), labels, rng)
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    assert found.shuffled == pytest.approx(np.square(shares).sum(), abs=0.01)


TYPES = np.array(["CD14+ monocyte", "B cell", "T cell", "NK cell"])
DONORS = np.array(["donor1", "donor2", "donor3"])


def labelled(rng: np.random.Generator, n: int = 240) -> tuple[Cells, Embedding]:
    codes, donors = rng.integers(4, size=n), rng.integers(3, size=n)
    vectors = 5 * rng.standard_normal((4, 6))[codes] + rng.standard_normal((n, 6))
    return as_cells(TYPES[codes], DONORS[donors]), Embedding("X", vectors.astype("f4"), "given")


def exchange(cells: Cells) -> Cells:
    assert cells.batches is not None
    return dataclasses.replace(cells, labels=cells.batches, batches=cells.labels)


@pytest.mark.parametrize("with_vectors", [True, False])
def test_exchanged_columns_are_noticed(with_vectors: bool, rng: np.random.Generator) -> None:
    cells, embedding = labelled(rng)
    judged_by = embedding if with_vectors else None
    assert check_columns(cells, judged_by) == ()
    (warning,) = check_columns(exchange(cells), judged_by)
    assert "swapped" in warning
    assert "'B cell'" in warning
    assert "'donor1'" in warning


def test_a_strong_batch_effect_alone_is_no_exchange(rng: np.random.Generator) -> None:
    cells, embedding = labelled(rng)
    assert cells.batches is not None
    shifted = embedding.vectors + 100 * np.eye(6, dtype="f4")[np.unique(cells.batches, return_inverse=True)[1]]
    assert check_columns(cells, Embedding("X", shifted, "given")) == ()
    anonymous = as_cells(np.char.add("x", cells.labels.astype("U1")), np.char.add("y", cells.batches))
    assert check_columns(anonymous, Embedding("X", shifted, "given")) == ()


def test_names_alone_must_be_clear_and_vectors_can_decide() -> None:
    assert swapped(names=1.0, data=0.0)
    assert not swapped(names=1.0, data=-0.6)
    assert not swapped(names=0.4, data=0.0)
    assert swapped(names=0.4, data=0.5)
    assert not swapped(names=0.0, data=1.0)


def test_rows_without_a_vector_are_left_out(rng: np.random.Generator) -> None:
    cells, embedding = labelled(rng)
    vectors = embedding.vectors.copy()
    vectors[:20] = np.nan
    assert len(check_columns(exchange(cells), Embedding("X", vectors, "given"))) == 1


@pytest.mark.parametrize("change", [{"batches": None}, {"batches": np.full(240, "one")}])
def test_one_batch_needs_no_warning(change: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    cells, embedding = labelled(rng)
    assert check_columns(dataclasses.replace(cells, **change), embedding) == ()  # type: ignore[arg-type]


def test_batches_that_are_labels_are_pointed_out(rng: np.random.Generator) -> None:
    cells, embedding = labelled(rng)
    (warning,) = check_columns(dataclasses.replace(cells, batches=cells.labels), embedding)
    assert "one label" in warning


def test_names_point_one_way() -> None:
    assert name_evidence(TYPES, DONORS) == -name_evidence(DONORS, TYPES) == -2.0
    assert name_evidence(np.array(["0", "1"]), np.array(["2", "3"])) == 0.0


SETS = [
    ("cele_embryo_packer", "batch"),
    ("dmel_gut_fca", "batch"),
    ("human_brain_darmanis", "batch"),
    ("human_lung_tumour_zilionis", "donor"),
    ("human_mixed_pollen", "batch"),
    ("human_pbmc_kang", "batch"),
    ("human_skin_ctcl", "donor"),
    ("mouse_marrow_progenitors", "batch"),
    ("tadh_body_sebepedros", "batch"),
]


@pytest.fixture(scope="module", params=SETS, ids=[name for name, _ in SETS])
def real(request: pytest.FixtureRequest, shared: Path) -> tuple[Cells, Embedding]:
    """300 real cells, with the components of their counts."""
    import anndata as ad

    from uce.evaluation.cells import log_cp10k

    name, batch = request.param
    data = ad.read_h5ad(shared / "data" / "cells" / f"{name}.h5ad")
    data = data[np.sort(np.random.default_rng(0).permutation(data.n_obs)[:300])]
    logs = log_cp10k(data.X.astype(np.float64)).toarray()
    logs = logs[:, np.argsort(-logs.var(axis=0))[:1000]]
    left, size, _ = np.linalg.svd(logs - logs.mean(axis=0), full_matrices=False)
    labels, batches = (data.obs[key].to_numpy().astype(str) for key in ("cell_type", batch))
    return as_cells(labels, batches), Embedding("pca", (left[:, :30] * size[:30]).astype("f4"), "baseline")


def test_real_columns_are_believed_and_exchanged_ones_are_not(real: tuple[Cells, Embedding]) -> None:
    cells, embedding = real
    assert check_columns(cells, embedding) == ()
    assert len(check_columns(exchange(cells), embedding)) == 1


def test_real_cells_are_aligned_until_shuffled(real: tuple[Cells, Embedding]) -> None:
    cells, embedding = real
    assert verdict(embedding.vectors, cells.labels) == ""
    dealt = np.random.default_rng(1).permutation(len(cells))
    assert verdict(embedding.vectors[dealt], cells.labels)
