"""The scIB table: golden values, planted truths, nothing dropped from a total, and no jax where it is not needed."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from uce.evaluation import scib, scib_quick
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.results import Findings, NotPossible, Score
from uce.evaluation.scib import BATCH, BIO, METRICS, Table, scib_table
from uce.evaluation.scib_process import Worker
from uce.evaluation.scib_worker import PARTS
from uce.evaluation.tasks import scib as task

pytest.importorskip("scib_metrics")

Floats = NDArray[np.float32]
N, DIM = 240, 8
SLOW = ["nmi_ari_cluster_labels_kmeans", "silhouette_label", "isolated_labels", "bras", "pcr_comparison"]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker(threads=1)
    yield one
    one.close()


# ---- golden values: pbmc68k_reduced, scib-metrics 0.5.10 -------------------------------------------------------------


@pytest.fixture(scope="module")
def pbmc() -> dict[str, Any]:
    """Vectors, labels and batches (the cell cycle stands in) of the 700 cells that come with scanpy."""
    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is in an old form
        adata = scanpy.datasets.pbmc68k_reduced()
    vectors = {key: np.ascontiguousarray(adata.obsm[key], np.float32) for key in ("X_pca", "X_umap")}
    return {**vectors, "labels": adata.obs["bulk_labels"].to_numpy(str), "batches": adata.obs["phase"].to_numpy(str)}


@pytest.fixture(scope="module")
def golden(worker: Worker, pbmc: dict[str, Any]) -> Table:
    x = pbmc["X_pca"]
    return scib_table(x, pbmc["labels"], pbmc["batches"], find_neighbors(x, 90), worker, before=x)


def values_of(table: Table | Findings) -> dict[str, float]:
    return {score.metric: score.value for score in table.scores}


def test_the_table_is_that_of_the_package(golden: Table) -> None:
    expected = {
        "isolated_labels": (0.554741, 1e-4),
        "leiden_nmi": (0.661, 0.02),
        "leiden_ari": (0.501, 0.03),
        "kmeans_nmi": (0.641, 1e-3),
        "kmeans_ari": (0.425, 1e-3),
        "silhouette_label": (0.550, 1e-3),
        "clisi": (0.9365, 1e-3),
        "bras": (0.890194, 1e-4),
        "ilisi": (0.2654, 1e-3),
        "kbet": (0.941, 0.01),
        "graph_connectivity": (0.634210, 1e-4),
        "pcr_comparison": (0, 1e-6),
    }
    found = values_of(golden)
    for metric, (value, tolerance) in expected.items():
        assert found[metric] == pytest.approx(value, abs=tolerance), metric
    assert [score.metric for score in golden.scores] == [metric for metric, _ in METRICS]
    assert {score.status for score in golden.scores} == {"ok"}


def test_totals_are_plain_means_without_leiden(golden: Table) -> None:
    found = values_of(golden)
    assert found["scib_bio"] == pytest.approx(np.mean([found[m] for m in BIO]))
    assert found["scib_batch"] == pytest.approx(np.mean([found[m] for m in BATCH]))
    assert found["scib_total"] == pytest.approx(0.6 * found["scib_bio"] + 0.4 * found["scib_batch"])
    assert not {"leiden_nmi", "leiden_ari"} & {*BIO, *BATCH}
    assert [s.metric for s in golden.scores if s.headline] == ["scib_bio", "scib_batch", "scib_total"]


def test_details_say_what_the_numbers_rest_on(golden: Table) -> None:
    details = golden.details
    assert len(details["isolated_labels"]) == 5
    assert details["kbet_skipped"] == ["CD4+/CD45RA+/CD25- Naive T"]
    assert details["effective_batches"] == pytest.approx(1 + 2 * values_of(golden)["ilisi"])
    assert details["implementation"]["clisi"] == "scib-metrics"
    assert details["implementation"]["bras"] == "numpy"
    assert details["version"].count(".") == 2
    note = {score.metric: score.note for score in golden.scores}
    assert "outside the totals" in note["leiden_ari"]
    assert "1 of 10 labels" in note["kbet"]
    assert "1.53 of 3 batches" in note["ilisi"]
    assert "by numpy" in note["bras"]


def test_quick_routines_give_the_numbers_of_the_package(worker: Worker, pbmc: dict[str, Any], golden: Table) -> None:
    """Columns of zeros change no distance, only whose routine is quick enough."""
    x = np.hstack([pbmc["X_pca"], np.zeros((700, 8200), np.float32)])
    labels, batches = (np.unique(pbmc[key], return_inverse=True)[1] for key in ("labels", "batches"))
    found = find_neighbors(pbmc["X_pca"], 90)
    arrays = {"vectors": x, "labels": labels, "batches": batches, "before": pbmc["X_umap"]}
    answer = worker.ask({**arrays, "indices": found.indices, "distances": found.distances}, SLOW)["parts"]
    assert {answer[part]["implementation"] for part in SLOW} == {"scikit-learn", "numpy"}
    expected = values_of(golden)
    for part in SLOW[:-1]:
        for metric, value in answer[part]["values"].items():
            assert value == pytest.approx(expected[metric], abs=1e-5), metric
    before, after = (scib_quick.batch_share(pbmc[key], batches) for key in ("X_umap", "X_pca"))
    assert answer["pcr_comparison"]["values"]["pcr_unclipped"] == pytest.approx((before - after) / before, abs=1e-6)


def test_pcr_keeps_what_the_package_cuts(worker: Worker, pbmc: dict[str, Any]) -> None:
    x, labels = pbmc["X_umap"], np.unique(pbmc["labels"], return_inverse=True)[1]
    batches = np.unique(pbmc["batches"], return_inverse=True)[1]
    found = find_neighbors(x, 90)
    arrays = {"vectors": x, "labels": labels, "batches": batches, "before": pbmc["X_pca"]}
    arrays |= {"indices": found.indices, "distances": found.distances}
    part = worker.ask(arrays, ["pcr_comparison"])["parts"]["pcr_comparison"]
    assert part["implementation"] == "scib-metrics"
    assert part["values"]["pcr_unclipped"] == pytest.approx(-0.245, abs=1e-3)
    assert part["values"]["pcr_comparison"] == 0


def test_golden_values_of_the_quick_routines(pbmc: dict[str, Any]) -> None:
    labels, batches = (np.unique(pbmc[key], return_inverse=True)[1] for key in ("labels", "batches"))
    assert scib_quick.bras(pbmc["X_pca"], labels, batches) == pytest.approx(0.890194, abs=2e-6)
    assert scib_quick.bras(pbmc["X_umap"], labels, batches) == pytest.approx(0.550590, abs=2e-6)
    widths = scib_quick.silhouettes(pbmc["X_pca"], labels)
    assert scib_quick.isolated_score(widths, labels, batches) == pytest.approx(0.554741, abs=2e-6)
    random = np.random.default_rng(0).normal(size=(700, 50))
    shares = [scib_quick.batch_share(x.astype(np.float32), batches) for x in (pbmc["X_pca"], random)]
    assert 1 - shares[1] / shares[0] == pytest.approx(0.88, abs=0.02)


# ---- the quick routines by their definitions -------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 40), dim=st.integers(1, 5), groups=st.integers(2, 4), seed=st.integers(0, 99))
def test_silhouettes_are_those_of_scikit_learn(n: int, dim: int, groups: int, seed: int) -> None:
    from sklearn.metrics import silhouette_samples

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)).astype(np.float32) + 100
    codes = np.unique(rng.integers(groups, size=n), return_inverse=True)[1]
    if 2 <= codes.max() + 1 < n:
        np.testing.assert_allclose(scib_quick.silhouettes(x, codes), silhouette_samples(x, codes), atol=2e-3)


def test_blocks_of_silhouettes_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), np.arange(50) % 3
    whole = scib_quick.silhouettes(x, codes)
    monkeypatch.setattr(scib_quick, "_BLOCK_BYTES", 4 * 50 * 7)
    np.testing.assert_allclose(scib_quick.silhouettes(x, codes), whole, atol=1e-6)


def bras_by_definition(x: Floats, labels: NDArray[np.int64], batches: NDArray[np.int64]) -> float:
    unit, scores = x / np.linalg.norm(x, axis=1, keepdims=True), []
    for label in np.unique(labels):
        u, b = unit[labels == label], batches[labels == label]
        if len(np.unique(b)) in (1, len(b)):
            continue
        far, of_label = 1 - u @ u.T, []
        for i in range(len(b)):
            same = (b == b[i]) & (np.arange(len(b)) != i)
            if not same.any():
                of_label.append(1.0)
                continue
            inside, outside = far[i, same].mean(), far[i, b != b[i]].mean()
            of_label.append(1 - abs(outside - inside) / max(inside, outside))
        scores.append(np.mean(of_label))
    return float(np.mean(scores)) if scores else float("nan")


@settings(max_examples=40, deadline=None)
@given(n=st.integers(4, 40), labels=st.integers(1, 3), batches=st.integers(1, 4), seed=st.integers(0, 99))
def test_bras_is_its_definition(n: int, labels: int, batches: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, of, b = rng.normal(size=(n, 4)).astype(np.float32), rng.integers(labels, size=n), rng.integers(batches, size=n)
    assert scib_quick.bras(x, of, b) == pytest.approx(bras_by_definition(x, of, b), abs=1e-4, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(12, 40), dim=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_share_between_batches_is_a_regression_of_all_components(n: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, batches = rng.normal(size=(n, dim)).astype(np.float32), np.arange(n) % 3
    components = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    coordinates, dummies = components.U * components.S, np.eye(3)[batches]
    residual = coordinates - dummies @ np.linalg.lstsq(dummies, coordinates)[0]
    share = 1 - np.square(residual).sum(axis=0) / np.square(coordinates).sum(axis=0)
    expected = (share * components.S**2).sum() / (components.S**2).sum()
    assert scib_quick.batch_share(x, batches) == pytest.approx(expected, abs=1e-4)


def test_isolated_labels_are_those_in_the_fewest_batches() -> None:
    labels, batches = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 0, 1, 1])
    assert scib_quick.isolated_labels(labels, batches).tolist() == [1, 2]
    assert scib_quick.isolated_labels(labels, np.zeros(6, int)).tolist() == [0, 1, 2]


# ---- planted truths --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def context(worker: Worker) -> Context:
    """Three labels and two batches, each label in each batch; with the process of the other tests."""
    own = Settings(threads=1)
    task._workers[own] = worker
    counts = np.random.default_rng(5).poisson(1.0, size=(N, 30)).astype(float)
    return with_components(Context(cells_of(np.arange(N) % 3, np.arange(N) // 3 % 2, counts), own))


def with_components(context: Context) -> Context:
    """The same, with components before integration that batches have a share in, in place of those of the counts."""
    task._before[context.cells] = planted(np.arange(N) // 3 % 2)[:, :5]
    return context


def cells_of(labels: NDArray[Any], batches: NDArray[Any] | None, counts: NDArray[np.float64] | None = None) -> Cells:
    from scipy.sparse import csr_matrix

    return Cells(
        "planted",
        np.array([f"c{i}" for i in range(len(labels))], dtype=object),
        np.array([f"kind/{code} µ" for code in labels]),
        None if batches is None else np.array([f"run {code}" for code in batches]),
        counts=None if counts is None else csr_matrix(counts),
        why_no_counts="there are none in this file",
    )


def noise(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(N, DIM)).astype(np.float32)


def planted(codes: NDArray[np.int64]) -> Floats:
    return (noise() + 10 * np.eye(DIM)[codes]).astype(np.float32)


@pytest.fixture(scope="module")
def by_label(context: Context) -> Findings:
    return task.run(context, Embedding("by label", planted(np.arange(N) % 3), "given"))


@pytest.fixture(scope="module")
def by_batch(context: Context) -> Findings:
    return task.run(context, Embedding("by batch", planted(np.arange(N) // 3 % 2), "given"))


@pytest.fixture(scope="module")
def random(context: Context) -> Findings:
    return task.run(context, Embedding("random", noise(3), "control"))


def test_labels_apart_or_batches_apart_swap_the_families(by_label: Findings, by_batch: Findings) -> None:
    good, bad = values_of(by_label), values_of(by_batch)
    assert good["scib_bio"] > 0.8 > 0.4 > bad["scib_bio"]
    assert good["scib_batch"] > 0.8 > 0.4 > bad["scib_batch"]
    assert good["scib_total"] > 0.8
    assert bad["pcr_comparison"] == pytest.approx(0, abs=0.1)
    assert good["ilisi"] > 0.9
    assert bad["ilisi"] < 0.01
    assert {score.status for score in (*by_label.scores, *by_batch.scores)} == {"ok"}


def test_noise_mixes_batches_and_keeps_no_biology(random: Findings, by_label: Findings) -> None:
    found = values_of(random)
    assert found["scib_batch"] > 0.8
    assert found["scib_bio"] < 0.4 < values_of(by_label)["scib_bio"]
    assert found["kmeans_ari"] < 0.1


def test_other_embeddings_change_no_number(
    context: Context, by_label: Findings, by_batch: Findings, random: Findings
) -> None:
    again = task.run(context, Embedding("once more", planted(np.arange(N) % 3), "given"))
    assert values_of(again) == values_of(by_label)


@pytest.mark.parametrize("seed", [3, 13])
def test_kbet_is_not_decided_by_rounding(worker: Worker, seed: int) -> None:
    labels, batches = np.arange(N) % 3, np.arange(N) // 3 % 2
    exact = noise(seed).astype(np.float64) + 10 * np.eye(DIM)[labels] + np.eye(DIM)[4 + batches]
    found = set()
    for rounding in np.arange(10) * 1e-7:
        x = (exact * (1 + rounding * np.random.default_rng(99).normal(size=exact.shape))).astype(np.float32)
        near = find_neighbors(x, 50)
        arrays = {"vectors": x, "labels": labels, "batches": batches, "indices": near.indices}
        answer = worker.ask({**arrays, "distances": near.distances}, ["kbet_per_label"])["parts"]["kbet_per_label"]
        found.add(round(answer["values"]["kbet"], 6))
    assert len(found) == 1


def test_the_scores_say_what_they_are_of(by_label: Findings) -> None:
    assert [(score.metric, score.family) for score in by_label.scores] == list(task.METRICS)
    assert {score.n_cells for score in by_label.scores} == {N}
    assert {score.n_labels for score in by_label.scores} == {3}
    assert all(score.seconds > 0 for score in by_label.scores if not score.headline)
    assert by_label.details["isolated_labels"] == ["kind/0 µ", "kind/1 µ", "kind/2 µ"]
    assert by_label.details["notes"] == []


def test_arrays_of_the_caller_stay_as_they_are() -> None:
    x, labels, batches = planted(np.arange(N) % 3), np.arange(N) % 3, np.arange(N) % 2
    found = find_neighbors(x, 90)
    arrays = [x, labels.astype(str), batches.astype(str), found.indices, found.distances]
    kept = [values.copy() for values in arrays]
    for values in arrays:
        values.setflags(write=False)
    scib_table(x, arrays[1], arrays[2], found, Canned(), before=x)
    assert all(np.array_equal(one, other) for one, other in zip(arrays, kept, strict=True))


# ---- cells that do not allow it --------------------------------------------------------------------------------------


def statuses(findings: Findings | Table) -> dict[str, tuple[str, str]]:
    return {score.metric: (score.status, score.note) for score in findings.scores}


def test_one_batch_leaves_biology(context: Context) -> None:
    alone = with_components(Context(cells_of(np.arange(N) % 3, np.zeros(N, int)), context.settings))
    findings = task.run(alone, Embedding("x", planted(np.arange(N) % 3), "given"))
    found = statuses(findings)
    assert {found[metric] for metric in BATCH} == {("undefined", "there is one batch only")}
    assert {found[metric][0] for metric in (*BIO, "scib_bio")} == {"ok"}
    assert found["scib_batch"][0] == found["scib_total"][0] == "undefined"
    assert "bras" in found["scib_batch"][1]
    assert np.isnan(values_of(findings)["scib_total"])


def test_without_batches_biology_is_left() -> None:
    found = statuses(scib_table(noise(), (np.arange(N) % 3).astype(str), None, find_neighbors(noise(), 90), Canned()))
    assert {found[metric][1] for metric in BATCH} == {"no batches were given"}
    assert found["scib_bio"][0] == "ok"
    assert found["scib_total"][0] == "undefined"


def test_one_label_leaves_batches(context: Context) -> None:
    alone = with_components(Context(cells_of(np.zeros(N, int), np.arange(N) % 2), context.settings))
    found = statuses(task.run(alone, Embedding("x", noise(), "given")))
    assert {found[metric] for metric in (*BIO, "leiden_nmi")} == {("undefined", "there is one label only")}
    assert {found[metric][0] for metric in (*BATCH, "scib_batch")} == {"ok"}
    assert found["scib_bio"][0] == found["scib_total"][0] == "undefined"


def test_without_counts_pcr_is_skipped_and_the_totals_say_so() -> None:
    context = Context(cells_of(np.arange(N) % 3, np.arange(N) % 2), Settings())
    before = task._before_integration(context)
    assert before == "needs raw counts: there are none in this file"
    table = scib_table(
        planted(np.arange(N) % 3),
        context.cells.labels,
        context.cells.batches,
        find_neighbors(noise(), 90),
        Canned(),
        before=before,
    )
    found = statuses(table)
    assert found["pcr_comparison"] == ("skipped", "needs raw counts: there are none in this file")
    assert found["scib_batch"][0] == "undefined"
    assert "pcr_comparison (skipped" in found["scib_batch"][1]
    assert found["scib_bio"][0] == "ok"


def test_components_of_the_counts_are_found_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(task.pca, "embed", lambda *arguments: calls.append(arguments) or noise())
    own = Context(cells_of(np.arange(N) % 3, None), Settings())
    assert task._before_integration(own) is task._before_integration(own)
    assert len(calls) == 1


def test_few_cells_are_not_judged() -> None:
    context = Context(cells_of(np.arange(199) % 3, np.arange(199) % 2), Settings())
    with pytest.raises(NotPossible, match=r"needs 200 cells .* there are 199"):
        task.run(context, Embedding("x", noise()[:199], "given"))


def test_small_labels_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.where(np.arange(N) < 9, 7, np.arange(N) % 3)
    canned = Canned()
    monkeypatch.setattr(task, "Worker", lambda threads: canned)
    x = noise()
    x[20:23] = x[30]
    findings = task.run(Context(cells_of(labels, np.arange(N) % 2), Settings(seed=77)), Embedding("x", x, "given"))
    assert findings.details["left_out"] == [{"label": "kind/7 µ", "cells": 9}]
    assert findings.details["notes"] == [
        "left out, as they have fewer than 10 cells: kind/7 µ (9)",
        f"3 of {N - 9} vectors are copies of another",
    ]
    assert {score.n_cells for score in findings.scores} == {N - 9}
    assert np.array_equal(canned.arrays["vectors"], x[9:])
    assert canned.arrays["indices"].shape == (N - 9, 90)
    assert canned.arrays["indices"].max() < N - 9


def test_a_missing_package_is_named_with_the_way_to_get_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scib, "find_spec", lambda name: None)
    with pytest.raises(NotPossible, match=r"pip install 'uce\[eval\]'"):
        task.run(context, Embedding("x", noise(), "given"))


# ---- failures are results --------------------------------------------------------------------------------------------


class Canned(Worker):
    """A process that answers what the test says: {part: values, or the text of an error}; 0.5 where it says nothing."""

    def __init__(self, said: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.said, self.arrays = said or {}, {}

    def ask(self, arrays: dict[str, NDArray[Any]], parts: list[str]) -> dict[str, Any]:
        self.arrays = arrays
        return {"version": "0.5.10", "parts": {part: self._of(part) for part in parts}}

    def _of(self, part: str) -> dict[str, Any]:
        said = self.said.get(part, dict.fromkeys(PARTS[part].columns.values(), 0.5))
        found = {"error": said} if isinstance(said, str) else {"values": said, "implementation": "scib-metrics"}
        return {**found, "seconds": 2.0}


def canned(said: dict[str, Any]) -> Table:
    labels, batches = (np.arange(N) % 3).astype(str), (np.arange(N) % 2).astype(str)
    return scib_table(noise(), labels, batches, find_neighbors(noise(), 90), Canned(said), before=noise())


@settings(max_examples=30, deadline=None)
@given(
    broken=st.sets(st.sampled_from([part for part in PARTS if not part.endswith("leiden")])),
    how=st.sampled_from(["ValueError: no", float("nan"), float("inf")]),
)
def test_a_total_with_a_missing_member_is_undefined_and_names_it(broken: set[str], how: Any) -> None:
    metrics = {part: list(PARTS[part].columns.values()) for part in broken}
    said = {part: how if isinstance(how, str) else dict.fromkeys(metrics[part], how) for part in broken}
    scores = {score.metric: score for score in canned(said).scores}
    for family, total in (("bio", "scib_bio"), ("batch", "scib_batch")):
        missing = [metric for part in broken if PARTS[part].family == family for metric in metrics[part]]
        assert scores[total].status == ("undefined" if missing else "ok")
        assert all(metric in scores[total].note for metric in missing)
        assert np.isnan(scores[total].value) if missing else scores[total].value == pytest.approx(0.5)
    assert scores["scib_total"].status == ("undefined" if broken else "ok")
    expected = "failed" if isinstance(how, str) else "undefined"
    assert all(scores[metric].status == expected for part in broken for metric in metrics[part])
    assert all(score.note for score in scores.values() if score.status != "ok")


def test_leiden_may_fail_without_touching_a_total() -> None:
    scores = {s.metric: s for s in canned({"nmi_ari_cluster_labels_leiden": "MemoryError: "}).scores}
    assert scores["leiden_ari"].status == "failed"
    assert scores["scib_total"].status == "ok"


def test_seconds_of_a_shared_routine_are_shared() -> None:
    scores: dict[str, Score] = {s.metric: s for s in canned({}).scores}
    assert scores["kmeans_ari"].seconds == scores["kmeans_nmi"].seconds == 1
    assert scores["bras"].seconds == 2


# ---- the process -----------------------------------------------------------------------------------------------------


def test_a_field_that_raises_leaves_the_others(worker: Worker) -> None:
    arrays = {"vectors": noise(), "labels": np.arange(N) % 3, "batches": np.arange(N) % 2}
    found = find_neighbors(noise(), 90)
    arrays |= {"indices": found.indices[:, :20], "distances": found.distances[:, :20]}
    parts = worker.ask(arrays, ["clisi_knn", "bras"])["parts"]
    assert "error" in parts["clisi_knn"]
    assert 0 < parts["bras"]["values"]["bras"] <= 1


def test_a_process_that_dies_is_told_and_replaced() -> None:
    worker = Worker(threads=1)
    arrays = {"vectors": noise()}  # labels are missing
    with pytest.raises(RuntimeError, match="ended with code 1: TypeError"):
        worker.ask(arrays, [])
    process = worker._running()
    assert process.poll() is None
    del worker
    assert process.poll() is not None


def test_jax_stays_where_it_is_needed(tmp_path: Path) -> None:
    script = tmp_path / "check.py"
    script.write_text(
        "import contextlib, importlib, io, pkgutil, sys\n"
        "import uce.evaluation\n"
        "for found in pkgutil.walk_packages(uce.evaluation.__path__, 'uce.evaluation.'):\n"
        "    importlib.import_module(found.name)\n"
        "from uce.cli.main import run\n"
        "sys.argv = ['uce', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    run()\n"
        "import numpy as np\n"
        "from uce.evaluation.cells import Cells\n"
        "from uce.evaluation.context import Context, Settings\n"
        "from uce.evaluation.embeddings import Embedding\n"
        "from uce.evaluation.results import NotPossible\n"
        "from uce.evaluation.tasks import TASKS\n"
        "n = 120\n"
        "texts = lambda k: np.array([f't{i % k}' for i in range(n)])\n"
        "cells = Cells('x', texts(n).astype(object), texts(3), texts(2), texts(10))\n"
        "context = Context(cells, Settings(bootstrap=10))\n"
        "x = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)\n"
        "for name, task in TASKS.items():\n"
        "    if name != 'scib' and task.of == 'embedding':\n"
        "        with contextlib.suppress(NotPossible):\n"
        "            task.run(context, Embedding('x', x, 'given'))\n"
        "assert 'uce.evaluation.tasks.scib' in sys.modules\n"
        "assert 'jax' not in sys.modules and 'scib_metrics' not in sys.modules\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=300)
