"""Spoiled counts: what spoiling does to them, what is said of vectors that follow or do not, and which checks fire."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from uce import engines
from uce.engines import Settings as Computing
from uce.evaluation import bench as benches
from uce.evaluation import invariance
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.reading import Columns, read_cells
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.robustness import Reference, compare, largest_difference, noise_floor, place
from uce.evaluation.spoiling import add_soup, chosen, exchange_genes, keep_genes, thin
from uce.evaluation.tasks import robustness as task
from uce.model.checkpoint import Model

MakeCells = Callable[..., AnnData]
RNG = np.random.default_rng


def counts_of(seed: int, cells: int = 30, genes: int = 50) -> csr_matrix:
    drawn = random_array(
        (cells, genes), density=0.3, rng=RNG(seed), data_sampler=lambda size: RNG(seed).integers(1, 40, size)
    )
    return csr_matrix(drawn.astype(np.float64))


# What spoiling does


@given(st.integers(0, 10_000), st.floats(0.02, 0.98))
def test_thinning_takes_counts_away_and_adds_none(seed: int, share: float) -> None:
    counts = counts_of(seed)
    thinned = thin(counts, share, RNG(seed))
    assert ((counts - thinned).data >= 0).all()
    assert (thinned.data > 0).all()
    assert (thinned.data == np.rint(thinned.data)).all()
    expected, spread = share * counts.sum(), np.sqrt(share * (1 - share) * counts.sum())
    assert abs(thinned.sum() - expected) < 6 * spread


@given(st.integers(0, 10_000))
def test_a_panel_keeps_its_genes_and_no_others(seed: int) -> None:
    counts, genes = counts_of(seed), RNG(seed).permutation(50)[:20]
    kept = keep_genes(counts, chosen(genes, 50)).toarray()
    assert np.array_equal(kept[:, genes], counts.toarray()[:, genes])
    assert kept.sum() == counts[:, genes].sum()


@given(st.integers(0, 10_000))
def test_exchanged_names_keep_every_count_of_a_cell(seed: int) -> None:
    counts, places = counts_of(seed), RNG(seed).permutation(50)
    moved = exchange_genes(counts, places)
    assert np.array_equal(moved.toarray()[:, places], counts.toarray())
    assert moved.has_sorted_indices


def test_soup_keeps_the_depth_and_pulls_cells_towards_their_sum() -> None:
    counts = csr_matrix(np.repeat([[900.0, 0, 100], [0, 900, 100]], 50, axis=0))
    soup = add_soup(counts, 0.1, RNG(1)).toarray()
    assert soup.sum(axis=1).mean() == pytest.approx(1000, rel=0.01)
    assert soup[:50, 1].mean() == pytest.approx(0.1 * 1000 * 0.45, rel=0.1)
    assert soup[:50, 0].mean() == pytest.approx(810 + 45, rel=0.02)


# What is said of vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planted(cells: int = 90, dim: int = 8, *, groups: int = 3, seed: int = 0) -> Reference:
    """Three labels far apart, each in every group."""
    labels = np.arange(cells) % 3
    vectors = unit(3 * np.eye(dim)[labels] + 0.3 * RNG(seed).normal(size=(cells, dim)))
    return Reference(
        vectors, np.array([f"type {i}" for i in labels]), np.array([f"donor {i // 3 % groups}" for i in range(cells)])
    )


def test_nothing_done_is_nothing_changed() -> None:
    reference = planted()
    before = place(reference.vectors, reference)
    found = compare(before, before, reference)
    assert found == pytest.approx({"cosine": 1, "overlap": 1, "accuracy": 1, "lost": 0}, abs=1e-6)


def test_labels_come_from_other_groups_alone() -> None:
    reference = planted()
    groups = reference.groups
    assert groups is not None
    assert not (groups[reference.nearest(reference.vectors)] == groups[:, None]).any()
    # A place of its own for every label of every donor: among cells of the same donor each would find its label.
    places = np.unique(np.char.add(groups, reference.labels), return_inverse=True)[1]
    leaky = replace(reference, vectors=unit(np.eye(9)[places] + 0.01 * RNG(1).normal(size=(90, 9))))
    within, across = replace(leaky, groups=None), leaky
    found = [compare(one, one, ref)["accuracy"] for ref in (within, across) for one in [place(ref.vectors, ref)]]
    assert found[0] == 1
    assert found[1] < 0.6


def test_random_vectors_score_as_chance_and_lost_cells_as_wrong() -> None:
    reference = planted(300)
    before = place(reference.vectors, reference)
    lost = reference.vectors.copy()
    lost[:100] = np.nan
    found = compare(place(lost, reference), before, reference)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["lost"] == pytest.approx(1 / 3)
    assert found["cosine"] == pytest.approx(1, abs=1e-6)
    noise = compare(place(unit(RNG(5).normal(size=(300, 8))), reference), before, reference)
    assert noise["accuracy"] < 0.5
    assert noise["overlap"] < 0.2


def test_a_label_that_no_other_group_has_is_not_asked_for() -> None:
    reference = planted(groups=3)
    labels = reference.labels.astype("<U20").copy()
    labels[np.flatnonzero(reference.groups == "donor 0")[:3]] = "only here"
    special = replace(reference, labels=labels)
    assert special.asked.sum() == len(labels) - 3
    before = place(special.vectors, special)
    assert compare(before, before, special)["accuracy"] == 1
    one = replace(reference, labels=np.full(90, "same"))
    assert np.isnan(compare(before, before, one)["accuracy"])


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_the_noise_floor_is_the_share_of_noise_that_was_planted(spread: float) -> None:
    reference = planted(300, groups=1)
    reference = replace(reference, groups=None)
    draws = [place(unit(reference.vectors + spread * RNG(i).normal(size=(300, 8))), reference) for i in range(4)]
    floor = noise_floor(draws, reference)
    # Noise of s in each of 8 dimensions: a unit vector keeps about 1 / (1 + 8 s^2) of its cosine between two draws.
    assert floor["cosine_mean"] == pytest.approx(1 / (1 + 8 * spread**2), rel=0.1)
    assert floor["cosine_p1"] < floor["cosine_mean"]
    assert floor["share"] == pytest.approx((1 - floor["cosine_mean"]) / (1 - floor["between_cells"]))
    unit_draw = draws[0].vectors.astype(np.float64)
    pairs = (unit_draw @ unit_draw.T)[np.triu_indices(300, 1)]
    assert floor["between_cells"] == pytest.approx(pairs.mean())
    assert (floor["label_flips"] > 0.02) == (spread > 0.1)
    assert (floor["macro_f1"] > 0.005) == (spread > 0.1)


def test_a_missing_vector_on_one_side_is_the_largest_difference() -> None:
    one = np.array([[1.0, np.nan]], dtype=np.float32)
    assert largest_difference(one, one) == 0
    assert largest_difference(one, np.array([[1.0, 2.0]], dtype=np.float32)) == np.inf


# The task, on a small model


@pytest.fixture(scope="module")
def context(make_cells: MakeCells, tiny_model: Model) -> Context:
    adata = make_cells(cells=160, genes=1500, seed=3)
    adata.obs["donor"] = [f"d{i % 4}" for i in range(160)]
    computing = Computing(torch.device("cpu"), "fp32")
    judged = read_cells(
        adata,
        Columns("kind", group="donor"),
        model=tiny_model,
        computing=computing,
    )
    return Context(judged.cells, Settings(robustness_cells=90))


def judge(context: Context) -> Findings:
    return task.run(context, Embedding("tiny", np.zeros((len(context.cells), 2), np.float32), "own"))


@pytest.fixture(scope="module")
def findings(context: Context) -> Findings:
    return judge(context)


def test_every_metric_is_there_once_with_a_value_or_a_reason(findings: Findings) -> None:
    assert [score.metric for score in findings.scores] == [metric for metric, _ in task.METRICS]
    for score in findings.scores:
        assert np.isfinite(score.value) == (score.status in ("ok", "suspect"))
        assert score.note or score.status == "ok"
    scores = {score.metric: score for score in findings.scores}
    assert scores["without_variable_genes_accuracy"].status == "skipped"
    assert "more than 2,000 known genes" in scores["without_variable_genes_accuracy"].note
    assert [score.metric for score in findings.scores if score.headline] == [
        "thinning_25_accuracy",
        "panel_1000_accuracy",
    ]


def test_less_is_left_where_more_is_taken(findings: Findings, context: Context) -> None:
    curves = findings.details["curves"]
    for name in ("thinning", "dropout"):
        kept = [point["counts_kept"] for point in curves[name]]
        assert kept == sorted(kept, reverse=True)
        means = [point["mean_genes_cosine"] for point in curves[name]]
        assert means[0] > means[-1]
    assert curves["thinning"][0]["cosine"] == pytest.approx(1, abs=1e-6)
    assert [point["level"] for point in curves["panel"]] == [
        len(context.cells.need_reader().match.resolution.rows),
        1000,
        500,
    ]


def test_a_sound_model_passes_its_checks(findings: Findings) -> None:
    checks = {check["name"]: check for check in findings.details["checks"]}
    assert checks["column_shuffle_max_difference"]["value"] == 0
    assert checks["company_max_difference"]["passed"]
    assert checks["permuted_genes_accuracy"]["passed"]
    assert checks["counts_times_10_cosine"]["passed"] is None
    assert not [score.metric for score in findings.scores if score.status == "suspect"]


def test_the_same_call_gives_the_same_numbers(findings: Findings, context: Context) -> None:
    again = judge(Context(context.cells, context.settings))
    assert [score.value for score in again.scores] == pytest.approx(
        [score.value for score in findings.scores], nan_ok=True
    )


def test_a_model_that_looks_at_other_cells_or_at_the_order_of_columns_is_suspect(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = engines.embed_cells

    def sees_company(counts: csr_matrix, reader: engines.Reader, **options: int) -> object:
        block = honest(counts, reader, **options)
        return replace(block, vectors=unit(block.vectors - 0.01 * block.vectors.mean(axis=0)))

    def sees_columns(counts: csr_matrix, reader: engines.Reader, **options: int) -> object:
        block = honest(counts, reader, **options)
        return replace(block, vectors=unit(block.vectors + 0.01 * counts[:, : block.vectors.shape[1]].toarray()))

    for broken, metric in ((sees_company, "company_max_difference"), (sees_columns, "column_shuffle_max_difference")):
        for module in (benches, invariance):
            monkeypatch.setattr(module, "embed_cells", broken)
        scores = {score.metric: score for score in judge(context).scores}
        assert scores[metric].status == "suspect"


def test_a_model_that_ignores_gene_names_is_suspect(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sorts the counts of a cell, and so tells cells by their depth alone, which here gives their kind away."""
    kinds = {kind: i for i, kind in enumerate(sorted(set(context.cells.labels.tolist())))}
    depth = np.array([1 + 3 * kinds[label] for label in context.cells.labels.tolist()])
    counts = csr_matrix(context.cells.need_counts().multiply(depth[:, None]))
    cells = replace(context.cells, counts=counts)
    honest = engines.embed_cells

    def nameless(counts: csr_matrix, reader: engines.Reader, **options: int) -> object:
        angle = np.log(np.asarray(counts.sum(axis=1)).ravel() / np.diff(counts.indptr))
        block = honest(counts, reader, **options)
        return replace(block, vectors=np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32))

    for module in (benches, invariance):
        monkeypatch.setattr(module, "embed_cells", nameless)
    scores = {score.metric: score for score in judge(Context(cells, context.settings)).scores}
    assert scores["unspoiled_accuracy"].value > 0.9
    assert scores["permuted_genes_accuracy"].status == "suspect"


def test_without_counts_model_or_cells_it_is_not_possible(context: Context) -> None:
    cells = context.cells
    for changed, words in (
        (replace(cells, counts=None, why_no_counts="they were logs"), "they were logs"),
        (replace(cells, reader=None, why_no_reader="no model asked for"), "no model asked for"),
        (cells.take(np.arange(12)), "30 or more"),
    ):
        with pytest.raises(NotPossible, match=words):
            judge(Context(changed, context.settings))
