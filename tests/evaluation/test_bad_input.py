"""What a user may get wrong with `uce eval`: one clear line and an exit code, or a row that says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import uce
from uce.cli.main import main
from uce.errors import InputError, UsageError
from uce.evaluation.embeddings import as_vectors
from uce.evaluation.report.write import _why_tie
from uce.evaluation.results import EvalResult, NotPossible
from uce.evaluation.saving import report_folder


@pytest.fixture(scope="module")
def adata(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Three kinds of cells from six donors, with embeddings of every sort in obsm."""
    made = make_cells(150, 600, seed=3)
    random = np.random.default_rng(1)
    made.obs["donor"] = [f"d{i}" for i in random.integers(6, size=150)]
    made.obs["one"] = "T"
    made.obs["own"] = [f"x{i}" for i in range(150)]
    centres = random.normal(size=(3, 8)) * 4
    good = (centres[made.obs["kind"].cat.codes] + random.normal(size=(150, 8))).astype(np.float32)
    made.obsm["X_good"] = good
    made.obsm["random"] = -good
    holes = good.copy()
    holes[-20:, 0] = np.nan
    made.obsm["X_holes"] = holes
    made.obsm["X_nothing"] = np.full((150, 4), np.nan, np.float32)
    made.obsm["X_complex"] = good.astype(np.complex64)
    made.obsm["X_mixed_up"] = good[random.permutation(150)]
    return made


@pytest.fixture(scope="module")
def source(adata: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "in.h5ad"
    adata.write_h5ad(path)
    return path


def judge(adata: ad.AnnData, *keys: str, **options: Any) -> EvalResult:
    given = {"label_key": "kind", "batch_key": "donor", "group_key": "donor", "baselines": (), "tasks": ("transfer",)}
    return uce.evaluate(adata, embeddings=keys, quiet=True, **(given | options))


def run(source: Path, *options: str) -> int:
    given = ["--batch-key", "donor", "--group-key", "donor", "--baselines", "none", "--quiet"]
    asked = [] if "--tasks" in options else ["--tasks", "collapse,transfer"]
    label = [] if "--label-key" in options else ["--label-key", "kind"]
    return main(["eval", str(source), *given, *asked, *label, *options])


def test_holes_in_the_first_embedding_do_not_shift_the_labels(adata: ad.AnnData) -> None:
    result = judge(adata, "X_holes")
    assert result.value("X_holes", "knn_macro_f1") > 0.95
    assert not result.banners


def test_an_embedding_named_like_a_control_is_a_row_of_its_own(adata: ad.AnnData) -> None:
    result = judge(adata, "random")
    assert result.value("obsm/random", "knn_macro_f1") > 0.95
    assert result.value("random", "knn_macro_f1") < 0.6
    assert not result.banners


def test_one_label_is_said_and_labels_that_name_cells_are_refused(adata: ad.AnnData) -> None:
    result = judge(adata, "X_good", label_key="one")
    assert result.banners == ("all cells have the label 'T': nothing about labels can be judged here",)
    assert {row.score.status for row in result.rows if row.score.metric == "knn_macro_f1"} == {"skipped"}
    with pytest.raises(InputError, match="every cell has a label of its own in obs column 'own'"):
        judge(adata, "X_good", label_key="own")


def test_vectors_that_are_no_numbers_or_too_large_are_no_vectors() -> None:
    with pytest.raises(NotPossible, match="complex"):
        as_vectors(np.ones((2, 2), complex), 2, "x")
    given = np.array([[1e300, 1], [1e20, 1], [1, -1]])
    np.testing.assert_array_equal(as_vectors(given, 3, "x"), [[np.inf, 1], [np.inf, 1], [1, -1]])
    assert given[1, 0] == 1e20


def test_the_command_says_each_trouble_once(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = "X_good,X_nothing,X_complex,X_mixed_up"
    assert run(source, "--embeddings", keys, "-o", str(tmp_path / "r")) == InputError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "not judged: X_nothing: no cell has a finite vector" or "X_complex" in lines[0]
    assert sorted(line.split(":")[1].strip() for line in lines[:2]) == ["X_complex", "X_nothing"]
    assert lines[2].startswith("suspect: X_mixed_up, label_signal, knn_macro_f1, ")
    assert len([line for line in lines if "unaligned" in line]) == 1
    assert (tmp_path / "r" / "report.html").is_file()


def test_the_command_says_what_looks_wrong(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--embeddings", "X_good", "--label-key", "one", "-o", str(tmp_path / "r")) == 0
    assert "warning: all cells have the label 'T'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "none"], "--tasks: name one question or more"),
        (["--label-map", "map.csv"], "--label-map is of no use without --cross"),
        (["--label-key", "kin"], "Did you mean kind?"),
    ],
)
def test_options_that_cannot_be_are_refused_and_leave_nothing(
    options: list[str], words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, "--embeddings", "X_good", *options, "-o", str(tmp_path / "r")) == UsageError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "transfer"], "--tasks is of no use with --cross"),
        (["--random-split"], "--random-split is of no use with --cross"),
        (["--species", "a,b,c"], "--species a,b,c: one for both files, or two"),
    ],
)
def test_options_that_cross_does_not_have_are_refused(
    options: list[str], words: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", "--cross", str(source), str(source), "--label-key", "kind", "-o", "r"]
    assert main([*given, *options]) == UsageError.exit_code
    assert words in capsys.readouterr().err


def test_a_key_that_holds_no_vectors_is_refused_between_two_files(
    adata: ad.AnnData, tiny_folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"label_key": "kind", "model": tiny_folder, "quiet": True, "output": tmp_path / "r"}
    with pytest.raises(InputError, match="complex numbers"):
        uce.evaluate_cross(adata, adata, embeddings=["X_complex"], **options)
    assert not (tmp_path / "r").exists()


def test_the_folder_of_a_report(tmp_path: Path) -> None:
    store = tmp_path / "cells.zarr"
    store.mkdir()
    with pytest.raises(UsageError, match="output and input are one"), report_folder(store, store, overwrite=True):
        pass
    with pytest.raises(InputError), report_folder(tmp_path / "new", overwrite=False):  # made for nothing
        raise InputError("planted")
    assert not (tmp_path / "new").exists()
    stopped = tmp_path / "stopped"  # killed between the numbers and the page
    (stopped / ".pieces").mkdir(parents=True)
    (stopped / "results.json").write_text("{}")
    with report_folder(stopped, overwrite=False) as folder:
        assert folder == stopped


def test_predictions_of_an_earlier_report_do_not_stay(adata: ad.AnnData, tmp_path: Path) -> None:
    judge(adata, "X_good", output=tmp_path)
    assert (tmp_path / "predictions.tsv.gz").is_file()
    judge(adata, "X_good", output=tmp_path, tasks=("collapse",), overwrite=True)
    assert not (tmp_path / "predictions.tsv.gz").exists()


def test_a_tie_with_an_interval_beside_zero_says_why() -> None:
    tie = {"verdict": "tie", "low": 0.1, "high": 0.3, "p_holm": 0.2, "by": "group"}
    assert "corrected" in _why_tie(tie)
    assert "noise" in _why_tie(tie | {"p_holm": 0.01})
    assert "donors" in _why_tie(tie | {"by": "cell", "p_holm": float("nan")})
    assert _why_tie(tie | {"low": -0.1}) == _why_tie(tie | {"verdict": "better"}) == ""


def test_records_of_others_are_not_taken_for_ours(adata: ad.AnnData) -> None:
    for junk in ("junk", {"X_good": "junk"}, [1, 2]):
        other = adata.copy()
        other.uns["uce"] = junk
        assert judge(other, "X_good").value("X_good", "knn_macro_f1") > 0.95


def test_numbers_of_a_suite_are_looked_at_before_any_work(source: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(f"name: x\ndatasets: [{{name: a, file: {source}}}]\n")
    for wrong in ("seeds=0", "max_cells=10"):
        assert main(["benchmark", str(tmp_path / "suite.yaml"), wrong, "-o", str(tmp_path / "r")]) == 2
    (tmp_path / "suite.yaml").write_text("name: x\ndatasets: [{name: a, file: nosuch.h5ad}]\n")
    assert main(["benchmark", str(tmp_path / "suite.yaml"), "-o", str(tmp_path / "r")]) == 2
    assert not (tmp_path / "r").exists()
