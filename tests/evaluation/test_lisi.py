"""Batches that are mixed, or apart, within labels: what CiLISI must say about them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.lisi import cilisi, lisi, perplexity_weights
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.tasks.cilisi import METRICS, run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def evaluate(vectors: np.ndarray, labels: np.ndarray, batches: np.ndarray | None, groups: object = None) -> Findings:
    names = np.arange(len(labels)).astype(object)
    cells = Cells("cells", names, labels, batches, groups)  # type: ignore[arg-type]
    return run(Context(cells, Settings()), Embedding("X", vectors.astype(np.float32), "given"))


def values(findings: Findings) -> dict[str, float]:
    return {score.metric: score.value for score in findings.scores}


@pytest.mark.parametrize(("key", "expected", "means"), [("X_pca", 0.3816, 0.4098), ("X_umap", 0.3992, 0.4137)])
def test_published_cells_have_the_values_of_another_implementation(key: str, expected: float, means: float) -> None:
    import scanpy as sc

    pbmc = sc.datasets.pbmc68k_reduced()
    labels, batches = (pbmc.obs[name].to_numpy().astype(str) for name in ("bulk_labels", "phase"))
    found = evaluate(np.asarray(pbmc.obsm[key]), labels, batches)
    assert values(found)["cilisi"] == pytest.approx(expected, abs=2e-4)
    assert values(found)["cilisi_means"] == pytest.approx(means, abs=2e-4)
    assert found.details["skipped"] == [{"label": "CD4+/CD45RA+/CD25- Naive T", "reason": "8 cells, fewer than 10"}]


def types(rng: np.random.Generator, cells: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two labels far apart, and batches of unequal size dealt at random."""
    labels = np.repeat(["one", "two"], cells // 2)
    batches = rng.choice(["a", "a", "b", "c"], size=cells)
    return rng.standard_normal((cells, 8)) + 20 * (labels == "two")[:, None], labels, batches


def test_batches_dealt_at_random_reach_the_ceiling_and_batches_apart_get_nothing(rng: np.random.Generator) -> None:
    vectors, labels, batches = types(rng)
    mixed = values(evaluate(vectors, labels, batches))
    assert mixed["cilisi"] == pytest.approx(mixed["cilisi_ceiling"], abs=0.06)
    assert mixed["cilisi_ceiling"] < 0.95  # batches of unequal size cannot reach 1
    apart = vectors + 500 * (batches == "b")[:, None] + 1000 * (batches == "c")[:, None]
    assert values(evaluate(apart, labels, batches))["cilisi"] == pytest.approx(0.0, abs=0.1)
    assert values(evaluate(apart, labels, batches))["cilisi"] < 0.2 * mixed["cilisi"]
    assert values(evaluate(apart, labels, batches))["cilisi_ceiling"] == pytest.approx(
        mixed["cilisi_ceiling"], abs=0.06
    )


def test_batches_that_are_far_apart_and_large_get_zero(rng: np.random.Generator) -> None:
    batches = np.repeat(["a", "b"], 200)
    vectors = rng.standard_normal((400, 4)) + 100 * (batches == "b")[:, None]
    assert values(evaluate(vectors, np.full(400, "one"), batches))["cilisi"] == pytest.approx(0.0, abs=1e-6)


def test_mixing_of_labels_is_no_mixing_of_batches(rng: np.random.Generator) -> None:
    """Labels laid on top of each other change which batches are near only for a metric that knows no labels."""
    labels, batches = np.repeat(["one", "two"], 150), np.tile(np.repeat(["a", "b"], 75), 2)
    side = np.where((labels == "one") == (batches == "a"), 0.0, 30.0)
    vectors = rng.standard_normal((300, 4)) + side[:, None]  # everywhere both batches, but never within a label
    assert lisi(find_neighbors(vectors.astype(np.float32), 90), batches).mean() > 1.7
    assert values(evaluate(vectors, labels, batches))["cilisi"] < 0.05


def test_labels_that_cannot_be_judged_are_named(rng: np.random.Generator) -> None:
    labels = np.array(["many"] * 40 + ["few"] * 9 + ["lonely"] * 20)
    batches = np.array(["a", "b"] * 20 + ["a", "b", "a"] * 3 + ["a"] * 20)
    found = evaluate(rng.standard_normal((69, 3)), labels, batches)
    assert [one["label"] for one in found.details["labels"]] == ["many"]
    reasons = {one["label"]: one["reason"] for one in found.details["skipped"]}
    assert reasons == {"few": "9 cells, fewer than 10", "lonely": "all cells are of one batch (a)"}


@pytest.mark.parametrize("batches", [None, np.full(30, "only")])
def test_one_batch_is_skipped_with_the_way_out(batches: np.ndarray | None, rng: np.random.Generator) -> None:
    with pytest.raises(NotPossible, match="--batch-key"):
        evaluate(rng.standard_normal((30, 3)), np.full(30, "one"), batches)


def test_no_label_of_two_batches_is_skipped(rng: np.random.Generator) -> None:
    batches = np.repeat(["a", "b"], 15)
    with pytest.raises(NotPossible, match="no label has 10 cells"):
        evaluate(rng.standard_normal((30, 3)), batches, batches)


def test_groups_give_an_interval_around_the_value(rng: np.random.Generator) -> None:
    vectors, labels, batches = types(rng)
    vectors = vectors + 50 * ((labels == "two") & (batches == "a"))[:, None]  # less mixed in this label
    donors = np.where(
        labels == "one", rng.choice(["d1", "d2", "d3"], 300), rng.choice(["d4", "d5", "d6", "d7", "d8"], 300)
    )
    mixed_order = rng.permutation(300)
    found = evaluate(vectors[mixed_order], labels[mixed_order], batches[mixed_order], donors[mixed_order])
    one, two = (label["cilisi"] for label in found.details["labels"])
    own = found.details["groups"]
    assert np.mean([own["d1"], own["d2"], own["d3"]]) == pytest.approx(one, abs=0.05)
    assert np.mean([own[f"d{i}"] for i in range(4, 9)]) == pytest.approx(two, abs=0.05)
    score = found.scores[0]
    assert score.low < score.value < score.high
    assert score.n_groups == 8
    without = evaluate(vectors, labels, batches).scores[0]
    assert np.isnan(without.low)
    assert "no interval" in without.note


def test_the_table_has_what_was_promised(rng: np.random.Generator) -> None:
    found = evaluate(*types(rng))
    assert [(score.metric, score.family) for score in found.scores] == list(METRICS)
    assert found.scores[0].headline
    assert [one["cells"] for one in found.details["labels"]] == [150, 150]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), perplexity=st.floats(1.5, 9.0), unit=st.floats(1e-6, 1e6))
def test_weights_have_the_perplexity_and_no_unit(seed: int, perplexity: float, unit: float) -> None:
    distances = np.sort(np.random.default_rng(seed).gamma(2.0, 1.0, (6, 30)), axis=1)
    weights = perplexity_weights(distances, perplexity)
    assert np.exp(-(weights * np.log(weights + 1e-300)).sum(axis=1)) == pytest.approx(perplexity, rel=1e-4)
    assert perplexity_weights(unit * distances, perplexity) == pytest.approx(weights, abs=1e-4)


def test_neighbours_equally_far_weigh_the_same() -> None:
    assert perplexity_weights(np.full((2, 5), 3.0), 2.0) == pytest.approx(np.full((2, 5), 0.2))
    assert perplexity_weights(np.zeros((2, 5)), 2.0) == pytest.approx(np.full((2, 5), 0.2))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), kinds=st.integers(2, 5))
def test_lisi_lies_between_one_and_the_number_of_batches(seed: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, batches = rng.standard_normal((60, 3)).astype(np.float32), rng.integers(kinds, size=60).astype(str)
    scores = lisi(find_neighbors(vectors, 30), batches)
    assert (scores >= 1 - 1e-9).all()
    assert (scores <= len(np.unique(batches)) + 1e-9).all()


def test_labels_of_many_cells_and_batches_are_judged_each_by_its_own_batches(rng: np.random.Generator) -> None:
    """A label in two of three batches can still be mixed perfectly."""
    labels = np.repeat(["everywhere", "in two"], 240)
    batches = np.concatenate([np.tile(["a", "b", "c"], 80), np.tile(["a", "b"], 120)])
    mixing = cilisi(rng.standard_normal((480, 5)).astype(np.float32), labels, batches, rng)
    assert [one.scores.mean() for one in mixing.labels] == pytest.approx(
        [one.ceiling for one in mixing.labels], abs=0.08
    )
    assert min(one.ceiling for one in mixing.labels) > 0.8
