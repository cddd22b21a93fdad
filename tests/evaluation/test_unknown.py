"""Cells of labels that training lacks: scores, thresholds, and labels withheld to see whether they are noticed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.held_out import held_out_of, hold_out
from uce.evaluation.probes import Votes, knn
from uce.evaluation.results import NotPossible
from uce.evaluation.splits import split_of
from uce.evaluation.tasks import unseen
from uce.evaluation.unknown import relative_distance, vote_scores
from uce.evaluation.withheld import SCORES, labels_to_withhold, mahalanobis, withhold

World = tuple[Context, Embedding]


def test_scores_of_votes_by_hand() -> None:
    votes = Votes(np.asarray(["a", "b", "c"]), np.asarray([[1.0, 0, 0], [0.5, 0.5, 0], [0.6, 0.3, 0.1]]))
    scores = vote_scores(votes)
    np.testing.assert_allclose(scores["doubt"], [0, 0.5, 0.4])
    np.testing.assert_allclose(scores["margin"], [0, 1, 0.7])
    np.testing.assert_allclose(scores["entropy"][:2], [0, np.log(2)])


def test_distance_is_relative_to_the_predicted_label() -> None:
    held, labels = np.concatenate([np.full(50, 1.0), np.full(50, 4.0)]), np.repeat(["tight", "loose"], 50)
    far = relative_distance(np.asarray([2.0, 2.0, 2.0]), np.asarray(["tight", "loose", "other"]), held, labels)
    np.testing.assert_allclose(far, [2, 0.5, 0.5])
    alone = relative_distance(np.asarray([2.0]), np.asarray(["tight"]), held[:0], labels[:0])
    assert alone.tolist() == [2.0]


def test_mahalanobis_knows_the_directions_of_noise() -> None:
    rng = np.random.default_rng(0)
    train = (rng.standard_normal((400, 2)) * [10, 0.1]).astype("f4")
    far = mahalanobis(train, np.full(400, "a"), np.asarray([[5, 0], [0, 5]], dtype=np.float32))
    assert far[1] > 100 * far[0]


def _with_a_sibling(make_world: Callable[..., World]) -> World:
    """Five distant types, of which type 0 gets a sibling close by."""
    context, embedding = make_world(cells=900, labels=5, donors=6, apart=9.0, donor=0.3)
    vectors, labels = embedding.vectors.copy(), context.cells.labels.astype("<U10")
    half = np.flatnonzero(labels == "type 0")[::2]
    labels[half] = "sibling"
    vectors[half, 0] += 1.5
    return replace(context, cells=replace(context.cells, labels=labels)), replace(embedding, vectors=vectors)


def test_a_distant_type_is_found_and_a_sibling_hardly(make_world: Callable[..., World]) -> None:
    world = _with_a_sibling(make_world)
    found = unseen.run(*world)
    lines = {line["label"]: line for line in found.details["labels"]}
    assert len(lines) == 6
    for distant in ("type 1", "type 2", "type 3", "type 4"):
        assert lines[distant]["auroc"] > 0.98
    assert lines["sibling"]["auroc"] < 0.75
    assert lines["sibling"]["called"]["type 0"] > 0.95
    values = {score.metric: score.value for score in found.scores}
    aurocs = sorted(line["auroc"] for line in lines.values())
    assert values["unseen_auroc"] == pytest.approx(np.mean(aurocs))
    assert values["unseen_auroc_worst5"] == pytest.approx(np.mean(aurocs[:5]))
    assert set(values) == {metric for metric, _ in unseen.METRICS}
    assert set(found.details["auroc_by_score"]) == set(SCORES)


def test_withholding_is_training_without_the_label(make_world: Callable[..., World]) -> None:
    context, embedding = _with_a_sibling(make_world)
    held, labels = held_out_of(context, embedding), context.cells.labels
    (one,) = withhold(held, labels, ["type 0"])
    start = 0
    for fold in held.folds:
        train = fold.train & (labels != "type 0")
        plain = knn(embedding.vectors[train], labels[train], labels[train], embedding.vectors[fold.test])
        here = slice(start, start := start + int(fold.test.sum()))
        assert (one.called[here] == plain.labels).mean() > 0.999
        np.testing.assert_allclose(one.scores["doubt"][here], 1 - plain.confidence, atol=1e-4)
    assert "type 0" not in one.called
    assert one.positive.sum() == (labels == "type 0").sum()


def test_training_cells_of_the_withheld_label_change_no_score(make_world: Callable[..., World]) -> None:
    context, embedding = _with_a_sibling(make_world)
    labels, split = context.cells.labels, split_of(context.cells, context.settings)
    elsewhere = np.random.default_rng(0).normal(size=embedding.vectors.shape).astype(np.float32)

    def moved(train: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where((train & (labels == "type 0"))[:, None], elsewhere, embedding.vectors)

    (here,) = withhold(hold_out(embedding.fitted_on, labels, split), labels, ["type 0"])
    (there,) = withhold(hold_out(moved, labels, split), labels, ["type 0"])
    for name in SCORES:
        np.testing.assert_allclose(here.scores[name], there.scores[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_which_labels_are_withheld() -> None:
    labels = np.repeat(["large", "small", "one donor", "middle"], [90, 49, 60, 70])
    groups = np.where(labels == "one donor", "d0", np.char.add("d", (np.arange(269) % 3).astype(str)))
    assert labels_to_withhold(labels, groups) == ["large", "middle"]
    many = np.repeat([f"t{i}" for i in range(25)], 50)
    assert len(labels_to_withhold(many, np.tile(["d0", "d1"], 625))) == 20


def test_two_labels_are_too_few(make_world: Callable[..., World]) -> None:
    with pytest.raises(NotPossible, match="three labels"):
        unseen.run(*make_world(cells=200, labels=2))
