"""`uce eval` and `uce.evaluate` as a user meets them: the report, the statuses, resuming, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import uce
from uce.cli.main import main
from uce.errors import InputError, OutputExistsError, UsageError
from uce.evaluation import runner
from uce.evaluation.baselines import BASELINES
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import EvalResult, Findings, NotPossible, Score
from uce.evaluation.tasks import TASKS

if TYPE_CHECKING:
    from uce.model.checkpoint import Model

QUICK = ("collapse", "cilisi", "transfer")


@pytest.fixture(scope="module")
def adata(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Three kinds of cells from eight donors, with a good embedding, a shuffled one and a broken one in obsm."""
    made = make_cells(240, 900, seed=3)
    random = np.random.default_rng(1)
    made.obs["donor"] = [f"d{i}" for i in random.integers(8, size=240)]
    made.obs["lane"] = [f"lane{i}" for i in random.integers(2, size=240)]
    centres = random.normal(size=(3, 8)) * 4
    good = centres[made.obs["kind"].cat.codes] + random.normal(size=(240, 8))
    made.obsm["X_good"] = good.astype(np.float32)
    made.obsm["X_mixed_up"] = good[random.permutation(240)].astype(np.float32)
    holes = good.astype(np.float32)
    holes[::10, 0] = np.nan
    made.obsm["X_holes"] = holes
    made.obsm["X_nothing"] = np.full((240, 4), np.nan, np.float32)
    return made


def judge(adata: ad.AnnData, **options: Any) -> EvalResult:
    given = {"label_key": "kind", "batch_key": "lane", "group_key": "donor", "baselines": ("pca",), "tasks": QUICK}
    return uce.evaluate(adata, **(given | {"quiet": True} | options))


def scores(result: EvalResult, embedding: str) -> dict[str, Score]:
    return {row.score.metric: row.score for row in result.rows if row.embedding == embedding}


@pytest.fixture(scope="module")
def result(adata: ad.AnnData) -> EvalResult:
    return judge(adata, embeddings=["X_good", "X_mixed_up", "X_holes", "X_nothing"])


def test_a_good_embedding_is_told_from_one_whose_rows_are_mixed_up(result: EvalResult) -> None:
    good, mixed = scores(result, "X_good"), scores(result, "X_mixed_up")
    assert good["knn_macro_f1"].status == "ok"
    assert good["knn_macro_f1"].value > 0.95
    assert mixed["knn_macro_f1"].status == "suspect"
    assert "unaligned" in mixed["knn_macro_f1"].note
    assert any("X_mixed_up" in banner for banner in result.banners)
    assert {row.embedding for row in result.troubled} >= {"X_mixed_up"}
    assert "X_mixed_up" not in {row["other"] for row in result.comparisons}


def test_cells_without_a_finite_vector_are_left_out_and_counted(result: EvalResult) -> None:
    described = {entry["name"]: entry for entry in result.embeddings}
    assert described["X_holes"]["left_out"] == 24
    assert described["X_holes"]["cells"] == 216
    assert scores(result, "X_holes")["knn_macro_f1"].n_cells == 216
    nothing = scores(result, "X_nothing")["knn_macro_f1"]
    assert nothing.status == "skipped"
    assert "no cell has a finite vector" in nothing.note
    assert np.isnan(nothing.value)


def test_another_embedding_changes_no_other_number(adata: ad.AnnData, result: EvalResult) -> None:
    alone = judge(adata, embeddings=["X_good"])
    for name in ("X_good", "pca"):
        for metric, score in scores(alone, name).items():
            assert replace(score, seconds=0) == replace(scores(result, name)[metric], seconds=0) or np.isnan(
                score.value
            )


def test_the_data_is_not_changed(adata: ad.AnnData) -> None:
    before = adata.copy()
    judge(adata, embeddings=["X_good"], baselines=("pca", "hvg"))
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())
    assert list(adata.obs) == list(before.obs)
    assert adata.obs.equals(before.obs)
    assert set(adata.obsm) == set(before.obsm)
    for key in before.obsm:
        np.testing.assert_array_equal(adata.obsm[key], before.obsm[key])
    assert dict(adata.uns) == dict(before.uns)


def test_controls_are_always_there_and_land_where_they_should(result: EvalResult) -> None:
    controls = {row.embedding for row in result.rows if row.kind == "control"}
    assert len(controls) == 4
    assert scores(result, "oracle")["knn_macro_f1"].value == 1.0
    assert scores(result, "random")["knn_macro_f1"].value < 0.5
    assert not [banner for banner in result.banners if "control" in banner.lower()]


def test_a_task_that_breaks_takes_no_other_with_it(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    from uce.evaluation.tasks import cilisi

    def broken(context: Context, embedding: Embedding) -> Findings:
        if embedding.name == "X_good":
            raise ZeroDivisionError("planted")
        raise NotPossible("planted reason")

    monkeypatch.setattr(cilisi, "run", broken)
    result = judge(adata, embeddings=["X_good"])
    good, pca = scores(result, "X_good"), scores(result, "pca")
    assert (good["cilisi"].status, good["cilisi"].note) == ("failed", "ZeroDivisionError: planted")
    assert (pca["cilisi"].status, pca["cilisi"].note) == ("skipped", "planted reason")
    assert np.isnan(good["cilisi"].value)
    assert good["knn_macro_f1"].status == "ok"


def test_a_baseline_that_breaks_is_a_row_that_says_so(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    from uce.evaluation.baselines import hvg

    def broken(*_: object) -> None:
        raise MemoryError("planted")

    monkeypatch.setattr(hvg, "embed", broken)
    result = judge(adata, embeddings=["X_good"], baselines=("hvg", "scvi"))
    assert scores(result, "hvg")["knn_macro_f1"].status == "failed"
    scvi = scores(result, "scvi")["knn_macro_f1"]
    assert scvi.status == "skipped"
    assert "uce[scvi]" in scvi.note


def test_one_batch_and_one_label_are_answers_not_errors(adata: ad.AnnData) -> None:
    alike = adata.copy()
    alike.obs["lane"] = "one"
    one = scores(judge(alike, embeddings=["X_good"]), "X_good")
    assert one["cilisi"].status in ("undefined", "skipped")
    assert one["knn_macro_f1"].status == "ok"
    alike.obs["kind"] = "the only one"
    only = scores(judge(alike, embeddings=["X_good"]), "X_good")
    assert {score.status for metric, score in only.items() if "macro_f1" in metric} <= {"undefined", "skipped"}


def test_equal_runs_write_equal_tables(adata: ad.AnnData, tmp_path: Path) -> None:
    for name in ("a", "b"):
        judge(adata, embeddings=["X_good"], output=tmp_path / name, max_cells=100, seeds=2)
    tables = [(tmp_path / name / "results.tsv").read_bytes() for name in ("a", "b")]
    assert tables[0] == tables[1]
    assert (tmp_path / "a" / "predictions.tsv.gz").read_bytes() == (tmp_path / "b" / "predictions.tsv.gz").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "predictions.tsv.gz", "report.html", "results.json", "results.tsv",
    ]  # fmt: skip
    content = json.loads((tmp_path / "a" / "results.json").read_text())
    drawn = next(s for s in content["scores"] if s["metric"] == "knn_macro_f1" and s["embedding"] == "X_good")
    assert len(drawn["by_subsample"]) == 2
    assert drawn["value"] == pytest.approx(np.mean(drawn["by_subsample"]))


def test_an_evaluation_that_was_stopped_goes_on(
    adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uce.evaluation.tasks import transfer

    asked: list[str] = []
    real = transfer.run

    def stopped(context: Context, embedding: Embedding) -> Findings:
        if embedding.name == "pca":
            raise KeyboardInterrupt
        return counted(context, embedding)

    def counted(context: Context, embedding: Embedding) -> Findings:
        asked.append(embedding.name)
        return real(context, embedding)

    monkeypatch.setattr(transfer, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        judge(adata, embeddings=["X_good"], output=tmp_path / "r")
    monkeypatch.setattr(transfer, "run", counted)
    judge(adata, embeddings=["X_good"], output=tmp_path / "r")
    assert asked.count("X_good") == 1
    judge(adata, embeddings=["X_good"], output=tmp_path / "whole")
    assert (tmp_path / "r" / "results.tsv").read_bytes() == (tmp_path / "whole" / "results.tsv").read_bytes()


def test_our_model_is_judged_with_copies_of_its_untrained_self(adata: ad.AnnData, tiny_model: "Model") -> None:
    result = judge(
        adata, model=tiny_model, baselines=("untrained", "mean-genes"), tasks=("collapse", "transfer"), seeds=2
    )
    kinds = {entry["name"]: entry["kind"] for entry in result.embeddings}
    assert kinds["tiny"] == "own"
    assert len(scores(result, "untrained")["knn_macro_f1"].by_subsample) == 2
    assert scores(result, "tiny")["knn_macro_f1"].by_subsample == ()
    assert [row["other"] for row in result.comparisons] == ["untrained", "mean-genes"]


def test_what_is_not_there_is_refused_with_the_nearest_name(adata: ad.AnnData, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"baseline 'pcaa' is not known.*pca"):
        judge(adata, baselines=("pcaa",))
    with pytest.raises(UsageError, match=r"task 'transfr' is not known.*transfer"):
        judge(adata, tasks=("transfr",))
    with pytest.raises(UsageError, match=r"obs has no column 'kin'.*kind"):
        judge(adata, label_key="kin", embeddings=["X_good"])
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="exists"):
        judge(adata, embeddings=["X_good"], output=tmp_path)


def test_labels_and_batches_given_the_wrong_way_round_are_noticed(adata: ad.AnnData) -> None:
    swapped = adata.copy()
    swapped.obs["cell_type"] = swapped.obs["kind"].map(
        {f"kind {i}": n for i, n in enumerate(["T cell", "B cell", "NK"])}
    )
    result = judge(swapped, label_key="donor", batch_key="cell_type", group_key=None, embeddings=["X_good"])
    assert any("wrong way round" in banner or "swapped" in banner for banner in result.banners)


def test_the_command_writes_a_report_and_its_exit_code_tells(
    adata: ad.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adata.write_h5ad(tmp_path / "in.h5ad")
    options = ["--label-key", "kind", "--batch-key", "lane", "--group-key", "donor", "--tasks", "collapse,transfer"]
    options += ["--baselines", "none", "--quiet", "--embeddings"]
    assert main(["eval", str(tmp_path / "in.h5ad"), *options, "X_good", "-o", str(tmp_path / "good")]) == 0
    assert (tmp_path / "good" / "report.html").is_file()
    code = main(["eval", str(tmp_path / "in.h5ad"), *options, "X_mixed_up", "-o", str(tmp_path / "mixed")])
    assert code == InputError.exit_code
    assert "suspect: X_mixed_up" in capsys.readouterr().err
    assert main(["eval", *options, "X_good", "-o", str(tmp_path / "none")]) == UsageError.exit_code


def test_every_task_and_baseline_can_be_found() -> None:
    for task in TASKS.values():
        assert callable(task.run)
        assert task.metrics
    for baseline in BASELINES.values():
        assert callable(baseline.embed)
    names = [metric for task in TASKS.values() for metric, _ in task.metrics]
    assert len(names) == len(set(names))


def test_jax_is_imported_by_no_other_task(adata: ad.AnnData, tmp_path: Path) -> None:
    import subprocess
    import sys

    adata.write_h5ad(tmp_path / "in.h5ad")
    script = (
        "import sys, uce; uce.evaluate(sys.argv[1], label_key='kind', batch_key='lane', group_key='donor',"
        " embeddings=['X_good'], baselines=('pca', 'harmony'), tasks=[], quiet=True);"
        " print('jax' in sys.modules)"
    ).replace("tasks=[]", f"tasks={[name for name in TASKS if name not in ('scib', 'robustness')]}")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "in.h5ad")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert runner.__doc__
