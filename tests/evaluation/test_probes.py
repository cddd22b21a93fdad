"""Simple classifiers: golden values of real cells, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.evaluation.calibration import ece
from uce.evaluation.neighbors import Neighbors
from uce.evaluation.probes import PROBES, Votes, fit_logistic, knn, narrow, sample_by_label, vote
from uce.evaluation.scores import classification_scores


@pytest.fixture(scope="module")
def pbmc() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components, labels and pseudo-donors (row number mod 5) of scanpy's reduced PBMC set, which it brings along."""
    import scanpy as sc

    cells = sc.datasets.pbmc68k_reduced()
    labels = cells.obs["bulk_labels"].astype(str).to_numpy().astype(np.str_)
    return np.asarray(cells.obsm["X_pca"], np.float32), labels, (np.arange(700) % 5).astype(np.str_)


def _pooled(probe: str, vectors: np.ndarray, labels: np.ndarray, donors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    said, sure = np.empty_like(labels), np.empty(len(labels))
    for donor in np.unique(donors):
        train, test = donors != donor, donors == donor
        fit = fit_logistic(vectors[train], labels[train], donors[train], strengths=(1.0,)).votes
        votes = (
            fit(vectors[test])
            if probe == "logistic"
            else PROBES[probe](vectors[train], labels[train], donors[train], vectors[test])
        )
        said[test], sure[test] = votes.labels, votes.confidence
    return said, sure


@pytest.mark.parametrize(
    ("probe", "accuracy", "balanced", "macro_f1", "error"),
    [("knn", 0.803, 0.666, 0.644, 0.035), ("logistic", 0.783, 0.624, 0.627, 0.089)],
)
def test_golden_values_of_pbmc(
    pbmc: tuple[np.ndarray, ...], probe: str, accuracy: float, balanced: float, macro_f1: float, error: float
) -> None:
    said, sure = _pooled(probe, *pbmc)
    found = classification_scores(pbmc[1], said)
    assert found["accuracy"] == pytest.approx(accuracy, abs=0.005)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=0.005)
    assert found["macro_f1"] == pytest.approx(macro_f1, abs=0.005)
    assert ece(sure, said == pbmc[1]) == pytest.approx(error, abs=0.005)


def test_votes_are_scikit_learns(pbmc: tuple[np.ndarray, ...]) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    vectors, labels, donors = pbmc
    train = donors != "0"
    theirs = KNeighborsClassifier(15, weights="distance", metric="cosine").fit(vectors[train], labels[train])
    ours = knn(vectors[train], labels[train], donors[train], vectors[~train])
    assert ours.classes.tolist() == theirs.classes_.tolist()
    np.testing.assert_allclose(ours.probabilities, theirs.predict_proba(vectors[~train]), atol=1e-3)


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_every_probe_learns_what_is_plain_and_gives_probabilities(probe: str) -> None:
    rng = np.random.default_rng(1)
    labels = np.asarray(["a", "b", "c"])[rng.integers(3, size=240)]
    groups = rng.integers(5, size=240).astype(str)
    vectors = (np.eye(8)[np.searchsorted(["a", "b", "c"], labels)] * 6 + rng.standard_normal((240, 8))).astype("f4")
    votes = PROBES[probe](vectors[:160], labels[:160], groups[:160], vectors[160:])
    np.testing.assert_allclose(votes.probabilities.sum(axis=1), 1, atol=1e-6)
    assert (votes.labels == labels[160:]).mean() > 0.97
    order = rng.permutation(160)
    again = PROBES[probe](vectors[order], labels[order], groups[order], vectors[160:])
    np.testing.assert_allclose(again.probabilities, votes.probabilities, atol=2e-2)


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_one_label_in_training_is_certain(probe: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((12, 3)).astype("f4")
    votes = PROBES[probe](vectors, np.full(12, "a"), np.arange(12).astype(str), vectors[:2])
    assert votes.labels.tolist() == ["a", "a"]
    assert votes.confidence.tolist() == [1, 1]


def test_a_copy_of_a_training_cell_has_its_label() -> None:
    near = Neighbors(np.asarray([[2, 0, 1]]), np.asarray([[0.0, 0.1, 0.1]], dtype=np.float32))
    votes = vote(near, np.asarray(["a", "a", "b"]))
    assert votes.labels.tolist() == ["b"]
    assert votes.confidence[0] > 0.999


def test_closer_neighbours_weigh_more() -> None:
    near = Neighbors(np.asarray([[0, 1, 2]]), np.asarray([[0.1, 0.4, 0.4]], dtype=np.float32))
    votes = vote(near, np.asarray(["b", "a", "a"]))
    np.testing.assert_allclose(votes.probabilities, [[1 / 3, 2 / 3]], atol=1e-6)


def test_the_penalty_is_chosen_on_other_groups() -> None:
    rng = np.random.default_rng(3)
    donors = rng.integers(6, size=300)
    labels = np.asarray(["a", "b"])[rng.integers(2, size=300)]
    signal = np.where(labels == "a", 0.8, -0.8)[:, None] + rng.standard_normal((300, 1))
    # Forty directions in which each donor's labels differ by chance: a weak penalty learns them by heart.
    chance = rng.standard_normal((6, 2, 40))[donors, (labels == "a").astype(int)] * 2
    vectors = np.hstack([signal, chance]).astype("f4")
    fitted = fit_logistic(vectors, labels, donors.astype(str))
    assert fitted.strength <= 0.1
    by_heart = fit_logistic(vectors, labels, donors.astype(str), strengths=(10.0,))
    assert by_heart.temperature > 1.2 > fitted.temperature
    alone = fit_logistic(vectors, labels, np.full(300, "one donor"))
    assert np.isnan(alone.temperature)


@pytest.mark.parametrize("labels", ["aabcdefgh", "abcdefgh", "aab"])
def test_labels_of_a_single_cell_each_can_be_learned(labels: str) -> None:
    vectors = np.eye(12, dtype="f4")[[ord(label) - ord("a") for label in labels]]
    fitted = fit_logistic(vectors, np.asarray(list(labels)), np.arange(len(labels)).astype(str))
    assert np.isfinite(fitted.votes(vectors).probabilities).all()


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=200), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_a_sample_keeps_the_shares_of_labels(labels: list[str], most: int) -> None:
    texts = np.asarray(labels)
    rows = sample_by_label(texts, most)
    assert len(rows) == min(most, len(texts)) == len(set(rows.tolist()))
    for label in set(labels):
        assert abs((texts[rows] == label).sum() - (texts == label).sum() * len(rows) / len(texts)) < 2


def test_components_are_those_of_the_training_cells() -> None:
    rng = np.random.default_rng(0)
    vectors, train = rng.standard_normal((200, 60)).astype("f4"), np.arange(200) < 150
    spoiled = vectors.copy()
    spoiled[~train] *= 100
    assert narrow(vectors, train).shape == (200, 50)
    np.testing.assert_allclose(narrow(vectors, train)[train], narrow(spoiled, train)[train], atol=1e-5)
    assert narrow(vectors[:, :50], train).shape == (200, 50)


def test_votes_among_more_classes() -> None:
    votes = Votes(np.asarray(["b", "d"]), np.asarray([[0.25, 0.75]]))
    assert votes.over(np.asarray(["a", "b", "c", "d"])).tolist() == [[0, 0.25, 0, 0.75]]
