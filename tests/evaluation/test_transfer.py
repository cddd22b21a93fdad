"""Labels carried to donors that nothing was fitted on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import NotPossible, Score
from uce.evaluation.scores import classification_scores
from uce.evaluation.tasks import transfer

World = tuple[Context, Embedding]


def _scores(world: World) -> dict[str, Score]:
    return {score.metric: score for score in transfer.run(*world).scores}


def _with(context: Context, **columns: object) -> Context:
    return Context(replace(context.cells, **columns), context.settings)  # type: ignore[arg-type]


def test_plain_labels_are_found_and_every_number_is_there(make_world: Callable[..., World]) -> None:
    world = make_world(apart=8.0, dim=60)
    scores = _scores(world)
    assert set(scores) == {metric for metric, _ in transfer.METRICS}
    for metric in ("knn_macro_f1", "logistic_macro_f1", "centroid_macro_f1", "knn5_macro_f1", "knn_pca50_macro_f1"):
        assert scores[metric].value > 0.97
        assert scores[metric].status == "ok"
    assert scores["majority_macro_f1"].value < 0.15
    assert scores["random_macro_f1"].value == pytest.approx(0.25, abs=0.06)
    assert scores["knn_macro_f1"].low <= scores["knn_macro_f1"].value <= scores["knn_macro_f1"].high
    assert {metric for metric, score in scores.items() if score.headline} == {"knn_macro_f1", "logistic_macro_f1"}
    assert (scores["knn_macro_f1"].n_cells, scores["knn_macro_f1"].n_groups) == (600, 6)
    narrow = _scores(make_world(cells=200, dim=12))
    assert narrow["knn_pca50_macro_f1"].status == "skipped"


def test_labels_at_random_are_found_as_often_as_by_chance(make_world: Callable[..., World]) -> None:
    context, embedding = make_world(cells=1200, apart=8.0)
    shuffled = np.random.default_rng(0).permutation(context.cells.labels)
    scores = _scores((_with(context, labels=shuffled), embedding))
    for probe in ("knn", "logistic", "centroid"):
        assert scores[f"{probe}_macro_f1"].value == pytest.approx(0.25, abs=0.06)
        assert scores[f"{probe}_kappa"].value == pytest.approx(0, abs=0.06)


def test_a_split_that_leaks_donors_looks_better_and_is_not_what_is_reported(make_world: Callable[..., World]) -> None:
    # Cells of a label differ from donor to donor: who has seen the donor knows the answer.
    context, embedding = make_world(apart=1.0, own=2.0, random_split=True)
    leaky = _scores((_with(context, groups=None), embedding))["knn_macro_f1"]
    ours = transfer.run(context, embedding)
    score = next(s for s in ours.scores if s.metric == "knn_macro_f1")
    assert leaky.value > score.value + 0.3
    assert "RANDOM" in leaky.note
    assert "RANDOM" not in score.note
    assert not ours.details["watermark"]
    assert ours.details["split"] == "5 folds of held-out donors (6 donors)"


def test_what_is_fitted_sees_training_donors_only(make_world: Callable[..., World]) -> None:
    context, _ = make_world(cells=300)
    labels, groups, seen = context.cells.labels, context.cells.groups, []
    noise = np.random.default_rng(0).standard_normal((300, 4)).astype("f4")

    def refit(train: np.ndarray) -> np.ndarray:
        """Tells the label of every cell it was fitted on."""
        seen.append(train)
        return noise + 50 * np.eye(4, dtype="f4")[np.unique(labels, return_inverse=True)[1]] * train[:, None]

    cheat = Embedding("cheat", refit(np.ones(300, dtype=bool)), "baseline", refit=refit)
    assert _scores((context, cheat))["knn_macro_f1"].value < 0.45
    assert groups is not None
    assert len(seen) == 6
    for train in seen[1:]:
        assert not set(groups[train]) & set(groups[~train])
    open_book = _scores((Context(context.cells, context.settings), replace(cheat, refit=None)))
    assert open_book["knn_macro_f1"].value == 1


def test_scores_can_be_computed_again_from_the_predictions(make_world: Callable[..., World]) -> None:
    found = transfer.run(*make_world(apart=2.0))
    scores = {score.metric: score.value for score in found.scores}
    columns = found.predictions
    assert {len(column) for column in columns.values()} == {600}
    for probe in ("knn", "logistic", "centroid"):
        for name, value in classification_scores(columns["label"], columns[f"{probe}_label"]).items():
            assert scores[f"{probe}_{name}"] == pytest.approx(value)
        details = found.details["probes"][probe]
        assert np.asarray(details["confusion"]).sum() == 600
        assert np.trace(np.asarray(details["confusion"])) / 600 == pytest.approx(scores[f"{probe}_accuracy"])
        assert np.mean([line["f1"] for line in details["per_label"]]) == pytest.approx(scores[f"{probe}_macro_f1"])
        assert sum(line["cells"] for line in details["per_group"]) == 600


def test_the_order_of_cells_does_not_matter_and_a_second_run_is_equal(make_world: Callable[..., World]) -> None:
    context, embedding = make_world(apart=2.0, cells=400)
    again = make_world(apart=2.0, cells=400)
    found = transfer.run(context, embedding).scores
    assert found == transfer.run(*again).scores
    order = np.random.default_rng(0).permutation(400)
    mixed = Context(context.cells.take(order), context.settings), embedding.take(order)
    other = _scores(mixed)
    for score in found:
        if score.metric in ("knn_macro_f1", "centroid_macro_f1"):
            assert other[score.metric].value == pytest.approx(score.value, abs=0.005)


def test_labels_of_one_donor_are_left_out_and_counted(make_world: Callable[..., World]) -> None:
    context, embedding = make_world(apart=8.0)
    labels = np.where(context.cells.groups == "donor 0", "only here", context.cells.labels)
    found = transfer.run(_with(context, labels=labels), embedding)
    assert found.scores[0].n_cells == 500
    assert "100 cells are not judged: no training cell of another group has their label" in found.details["notes"]
    assert "only here" not in found.predictions["label"]
    assert found.scores[0].value > 0.97


def test_what_cannot_be_held_out_is_said(make_world: Callable[..., World]) -> None:
    context, embedding = make_world(cells=100)
    with pytest.raises(NotPossible, match="one donor only"):
        transfer.run(_with(context, groups=np.full(100, "d")), embedding)
    with pytest.raises(NotPossible):
        transfer.run(_with(context, labels=np.full(100, "T cell")), embedding)


def test_labels_of_real_blood_cells_are_found_in_other_donors(shared: object) -> None:
    import anndata as ad
    import scanpy as sc

    cells = ad.read_h5ad(f"{shared}/data/cells/human_skin_ctcl.h5ad")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.pca(cells, n_comps=20)
    text = {c: cells.obs[c].astype(str).to_numpy().astype(np.str_) for c in ("cell_type", "donor")}
    from uce.evaluation.cells import Cells
    from uce.evaluation.context import Settings

    world = Cells("skin", cells.obs_names.to_numpy(dtype=object), text["cell_type"], groups=text["donor"])
    vectors = np.ascontiguousarray(cells.obsm["X_pca"], dtype=np.float32)
    scores = _scores((Context(world, Settings(bootstrap=100)), Embedding("pca", vectors, "given")))
    assert scores["knn_macro_f1"].value > 0.7
    assert scores["majority_macro_f1"].value < 0.1


def test_cells_trained_on_are_left_out_beside_the_full_scores(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, embedding = make_world(apart=2.0)
    before = _scores((context, embedding))
    seen = np.random.default_rng(3).random(len(context.cells)) < 0.4
    monkeypatch.setattr(transfer, "trained_on", lambda *_: seen)
    found = transfer.run(context, embedding)
    scores = {score.metric: score for score in found.scores}
    assert {name: score for name, score in scores.items() if name in before} == before
    columns = found.predictions
    new = ~np.isin(columns["cell"], context.cells.names[seen])
    for probe in ("knn", "logistic"):
        score = scores[f"{probe}_macro_f1_not_trained_on"]
        again = classification_scores(columns["label"][new], columns[f"{probe}_label"][new])["macro_f1"]
        assert score.value == pytest.approx(again)
        assert (score.status, score.n_cells, score.headline) == ("ok", new.sum(), False)
        assert f"the model was trained on {seen.sum()} of 600 judged cells" in score.note
    monkeypatch.setattr(transfer, "trained_on", lambda *_: np.arange(600) >= 49)
    few = _scores((context, embedding))["knn_macro_f1_not_trained_on"]
    assert (few.status, few.n_cells) == ("undefined", 49)
    assert few.note.endswith("551 of 600 judged cells: fewer than 50 are left")
