"""`uce benchmark`: many data sets in one report, gone on with, and honest about those that could not be judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from uce.cli.main import main
from uce.config import read_config
from uce.errors import InputError, ModelError, UsageError
from uce.evaluation import suite
from uce.evaluation.suite import run_suite


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_cells: Callable[..., ad.AnnData], tiny_folder: Path) -> Path:
    """A folder with two data sets that can be judged and one of no known species, and a suite of the three."""
    folder = tmp_path_factory.mktemp("data")
    for number, name in enumerate(("one", "two")):
        adata = make_cells(160, 700, seed=number)
        adata.obs["donor"] = [f"d{i % 4}" for i in range(160)]
        adata.write_h5ad(folder / f"{name}.h5ad")
    strange = make_cells(60, 300, seed=5)
    strange.var_names = [f"PF3D7_{i:07d}" for i in range(strange.n_vars)]
    strange.write_h5ad(folder / "strange.h5ad")
    lines = [
        "name: two planted sets",
        f"model: {tiny_folder}",
        "baselines: [pca, mean-genes]",
        "tasks: [collapse, transfer]",
        "datasets:",
        "  - {name: one, file: one.h5ad, label_key: kind, batch_key: donor, group_key: donor, note: planted}",
        "  - {name: two, file: two.h5ad, label_key: kind, random_split: true}",
        "  - {name: strange, file: strange.h5ad, label_key: kind}",
    ]
    (folder / "suite.yaml").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished benchmark."""
    folder = tmp_path_factory.mktemp("out") / "benchmark"
    run_suite(data / "suite.yaml", folder, quiet=True)
    return folder


def test_one_report_over_all_and_one_for_each(done: Path) -> None:
    assert (done / "one" / "report.html").is_file()
    page = (done / "report.html").read_text()
    assert 'href="one/report.html"' in page
    assert "planted" in page
    table = pd.read_csv(done / "results.tsv", sep="\t")
    assert set(table["dataset"]) == {"one", "two"}
    assert set(table["seen"]) == {"unknown"}  # the model brings no training manifest
    own = json.loads((done / "one" / "results.json").read_text())["scores"]
    value = next(s["value"] for s in own if s["embedding"] == "pca" and s["metric"] == "knn_macro_f1")
    chosen = table.query("dataset == 'one' and embedding == 'pca' and metric == 'knn_macro_f1'")
    assert chosen["value"].item() == pytest.approx(value)
    mean = table.query("embedding == 'pca' and metric == 'knn_macro_f1'")["value"].mean()
    assert f"{mean:.3f}" in (done / "summary.md").read_text()


def test_a_set_that_cannot_be_judged_is_named_with_the_reason(done: Path) -> None:
    problems = json.loads((done / "problems.json").read_text())
    assert list(problems) == ["strange"]
    assert "species" in problems["strange"]
    assert "strange" in (done / "report.html").read_text()
    assert "Not judged: strange" in (done / "summary.md").read_text()


def test_the_command_says_what_could_not_be_judged(data: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(data / "suite.yaml"), "-o", str(done), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip().endswith("report.html")
    assert "not judged: strange" in captured.err
    assert main(["benchmark", str(data / "none.yaml"), "-o", str(done)]) == UsageError.exit_code
    assert InputError.exit_code == 3


def test_what_is_done_is_not_done_again_and_what_has_changed_is(
    data: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    real = suite.evaluate

    def counted(path: Path, **options: Any) -> Any:
        judged.append(Path(path).stem)
        return real(path, **options)

    monkeypatch.setattr(suite, "evaluate", counted)
    before = (done / "results.tsv").read_bytes()
    run_suite(data / "suite.yaml", done, quiet=True)
    assert judged == ["strange"]
    assert (done / "results.tsv").read_bytes() == before
    run_suite(data / "suite.yaml", done, overrides=["seed=1"], quiet=True)
    assert judged == ["strange", "one", "two", "strange"]


def test_mistakes_in_the_suite_are_said_before_any_work(data: Path, tmp_path: Path) -> None:
    text = (data / "suite.yaml").read_text()

    def refused(text: str, error: type[Exception], match: str) -> None:
        (data / "wrong.yaml").write_text(text)
        with pytest.raises(error, match=match):
            run_suite(data / "wrong.yaml", tmp_path / "out", quiet=True)
        assert not list(tmp_path.glob("out/*/results.json"))

    refused(text.replace("label_key", "labelkey"), UsageError, "unknown key datasets.*label_key")
    refused(text.replace("name: two,", "name: one,"), UsageError, "a name of its own")
    refused(text.replace("name: two,", "name: ../two,"), UsageError, "cannot be that of a folder")
    refused(text.replace("two.h5ad", "missing.h5ad"), UsageError, r"missing.h5ad: no such file.*data=FOLDER")
    refused(text.replace("[pca,", "[pcca,"), UsageError, "pcca.*pca")
    refused(text.split("datasets:")[0] + "datasets: []", UsageError, "one or more")
    refused(text.replace("model: ", "model: no-such-model/"), ModelError, "no-such-model")


def test_every_picture_says_which_row_is_best(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "Mean scores over data sets" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert np.isfinite(pd.read_csv(done / "results.tsv", sep="\t").query("status == 'ok'")["value"]).all()


def test_the_suite_that_comes_with_the_package_covers_every_trained_and_held_out_set() -> None:
    configs = Path(__file__).parents[2]
    shipped = read_config(suite.Suite, configs / "configs" / "benchmark_shared.yaml")
    listed = pd.read_csv(configs / "data_manifests" / "training_cells.csv")
    assert set(listed["dataset"]) <= {entry.name for entry in shipped.datasets}
    for entry in shipped.datasets:
        row = listed[listed["dataset"] == entry.name]
        assert row.empty or row["file"].item() == entry.file
