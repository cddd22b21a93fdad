"""Controls: what they are, and that one on the wrong side is told in words."""

from dataclasses import replace

import numpy as np
import pytest

from uce.evaluation.cells import Cells
from uce.evaluation.controls import check_controls, make_controls
from uce.evaluation.embeddings import Embedding, Kind
from uce.evaluation.results import Family, Row, Score, Status

# Numbers as a sound evaluation gives them: 10 labels, 4 batches, 1,000 cells.
SOUND: dict[str, dict[str, float]] = {
    "scib_bio": {"uce": 0.62, "pca": 0.55, "oracle": 0.95, "random": 0.2, "shuffled": 0.2, "batch-onehot": 0.2},
    "scib_batch": {"uce": 0.5, "pca": 0.46, "oracle": 0.7, "random": 0.6, "shuffled": 0.6, "batch-onehot": 0.2},
    "cilisi": {"uce": 0.4, "pca": 0.3, "oracle": 0.6, "random": 0.6, "shuffled": 0.6, "batch-onehot": 0.0},
    "scgraph_weighted": {"uce": 0.6, "pca": 0.98, "oracle": -0.39, "random": 0.32, "shuffled": 0.3},
    "knn_macro_f1": {"uce": 0.7, "pca": 0.65, "oracle": 1.0, "random": 0.07, "shuffled": 0.08, "batch-onehot": 0.1},
}
FAMILIES: dict[str, Family] = {"scib_bio": "bio", "scib_batch": "batch", "cilisi": "batch", "knn_macro_f1": "transfer"}
CONTROLS = ("oracle", "random", "shuffled", "batch-onehot")


def cells(n: int = 300) -> Cells:
    rng = np.random.default_rng(0)
    return Cells(
        "planted",
        np.arange(n).astype(str).astype(object),
        np.array(["T", "B", "NK"])[rng.integers(3, size=n)],
        batches=np.array(["one", "two"])[rng.integers(2, size=n)],
    )


def rows(changed: dict[tuple[str, str], float] | None = None, *, status: Status = "ok") -> list[Row]:
    """The sound numbers, some of them changed."""
    changed = changed or {}
    found = []
    for metric, values in SOUND.items():
        for name, value in values.items():
            kind: Kind = "control" if name in CONTROLS else "baseline" if name == "pca" else "own"
            given = changed.get((name, metric), value)
            score = Score(metric, given, FAMILIES.get(metric, "structure"), status=status, n_cells=1000, n_labels=10)
            found.append(Row(name, kind, "task", score))
    return found


def made(first: Embedding | None = None, *, seed: int = 0) -> dict[str, Embedding]:
    return {control.name: control for control in make_controls(cells(), first, seed=seed)}


def given() -> Embedding:
    vectors = np.random.default_rng(1).normal(size=(300, 7)).astype(np.float32)
    return Embedding("X_uce", vectors, "given", transductive=True, refit=lambda train: vectors)


# What they are


def test_there_are_four_controls_of_the_judged_cells() -> None:
    controls = made(given())
    assert set(controls) == set(CONTROLS)
    for control in controls.values():
        assert control.kind == "control"
        assert control.vectors.dtype == np.float32
        assert len(control.vectors) == 300
        assert control.title
        assert control.refit is None


def test_shuffled_has_the_same_rows_at_other_cells() -> None:
    first = given()
    shuffled = made(first)["shuffled"].vectors
    np.testing.assert_array_equal(np.sort(shuffled[:, 0]), np.sort(first.vectors[:, 0]))
    assert (shuffled == first.vectors).all(axis=1).mean() < 0.05


@pytest.mark.parametrize(("name", "column"), [("oracle", "labels"), ("batch-onehot", "batches")])
def test_one_hot_vectors_are_the_column_and_a_little_noise(name: str, column: str) -> None:
    vectors = made()[name].vectors
    names, codes = np.unique(getattr(cells(), column), return_inverse=True)
    assert vectors.shape == (300, len(names))
    np.testing.assert_array_equal(vectors.argmax(axis=1), codes)
    noise = vectors - np.eye(len(names))[codes]
    assert 0.008 < noise.std() < 0.012


def test_random_numbers_know_nothing() -> None:
    vectors = made()["random"].vectors
    labels = cells().labels
    means = np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])
    assert np.abs(means).max() < 0.5
    assert 0.95 < vectors.std() < 1.05


def test_controls_are_the_same_for_a_seed_and_others_for_another() -> None:
    first, again, other = made(given()), made(given()), made(given(), seed=1)
    for name, control in first.items():
        np.testing.assert_array_equal(control.vectors, again[name].vectors)
        assert not np.array_equal(control.vectors, other[name].vectors)


def test_without_batches_or_an_embedding_there_are_fewer() -> None:
    names = {control.name for control in make_controls(replace(cells(), batches=None), None, seed=0)}
    assert names == {"oracle", "random"}


def test_the_numbers_of_a_control_do_not_depend_on_the_other_controls() -> None:
    with_all, without = made(given()), made(None)
    for name in without:
        np.testing.assert_array_equal(with_all[name].vectors, without[name].vectors)


def test_shuffled_rows_of_an_embedding_that_lacks_cells_lack_the_same() -> None:
    first = given()
    holes = first.vectors.copy()
    holes[:5] = np.nan
    shuffled = made(replace(first, vectors=holes, refit=None).finite())["shuffled"]
    assert shuffled.rows is not None
    assert len(shuffled.rows) == len(shuffled.vectors) == 295
    assert shuffled.left_out == 5


# Which side they land on


def test_nothing_is_said_of_a_sound_evaluation() -> None:
    assert check_controls(rows()) == ()


@pytest.mark.parametrize(
    ("control", "metric", "value", "rival"),
    [
        ("oracle", "scib_bio", 0.5, "uce"),
        ("oracle", "knn_macro_f1", 0.6, "uce"),
        ("oracle", "scgraph_weighted", 0.99, "pca"),
        ("batch-onehot", "cilisi", 0.9, "pca"),
        ("batch-onehot", "scib_batch", 0.9, "pca"),
        ("shuffled", "knn_macro_f1", 0.4, "chance is 0.100"),
        ("random", "knn_macro_f1", 0.4, "chance is 0.100"),
    ],
)
def test_a_control_on_the_wrong_side_is_named_with_its_number_and_its_rival(
    control: str, metric: str, value: float, rival: str
) -> None:
    (text,) = check_controls(rows({(control, metric): value}))
    assert control in text
    assert metric in text
    assert f"{value:.3f}" in text
    assert rival in text


def test_a_tie_is_not_the_wrong_side() -> None:
    assert check_controls(rows({("uce", "knn_macro_f1"): 1.0, ("uce", "cilisi"): 0.0})) == ()


def test_numbers_that_do_not_exist_are_not_compared() -> None:
    missing = rows({(name, metric): float("nan") for metric, values in SOUND.items() for name in values})
    assert check_controls(missing) == ()
    assert check_controls(rows({("oracle", "scib_bio"): 0.1}, status="failed")) == ()
    assert check_controls([]) == ()


def test_few_cells_are_given_more_play() -> None:
    few = [replace(row, score=replace(row.score, n_cells=40)) for row in rows({("random", "knn_macro_f1"): 0.3})]
    assert check_controls(few) == ()
    assert len(check_controls(rows({("random", "knn_macro_f1"): 0.3}))) == 1
