"""Annotation as a user has it: files in, files out, refusals in one line with their exit code."""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import uce
from uce.annotation import running
from uce.annotation.writing import COLUMNS
from uce.cli.main import main
from uce.errors import InputError, ModelError, OutputExistsError, UsageError
from uce.files import sha256_file
from uce.genes.collection import load_gene_table


@dataclass(frozen=True)
class Pair:
    """Files of a query, with vectors and without (`raw`), and of a reference with vectors."""

    query: Path
    raw: Path
    reference: Path
    folder: Path

    def run(self, output: Path, **options: object) -> ad.AnnData:
        done = uce.annotate_file(self.query, output, **self.options(**options))
        return ad.read_h5ad(done.path)

    def options(self, **more: object) -> dict[str, object]:
        usual = {"reference": self.reference, "label_key": "kind", "group_key": "donor"}
        return {**usual, "pictures": False, "pca": False, "quiet": True, **more}


@pytest.fixture(scope="module")
def pair(make_cells: Callable[..., ad.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    cells = make_cells(cells=200, genes=600, seed=4)
    raw = cells[:40].copy()
    uce.embed(cells, species="human", quiet=True)
    query, reference = cells[:40].copy(), cells[40:].copy()
    reference.obs["donor"] = pd.Categorical([f"donor {i % 4}" for i in range(160)])
    for name, part in (("query", query), ("raw", raw), ("reference", reference)):
        if name != "reference":
            part.obs["truth"] = part.obs.pop("kind").astype(str)
        part.write_h5ad(folder / f"{name}.h5ad")
    return Pair(*(folder / f"{name}.h5ad" for name in ("query", "raw", "reference")), folder)


@pytest.fixture(scope="module")
def done(pair: Pair) -> ad.AnnData:
    """Of the query without vectors."""
    return ad.read_h5ad(uce.annotate_file(pair.raw, pair.folder / "done.h5ad", **pair.options()).path)


def test_the_result_is_the_input_with_columns_vectors_and_a_record(pair: Pair, done: ad.AnnData) -> None:
    query = ad.read_h5ad(pair.raw)
    pd.testing.assert_frame_equal(done.obs[query.obs.columns], query.obs)
    assert (done.X != query.X).nnz == 0
    expected = [f"uce_{name}" for name in COLUMNS if name != "vote_share"]
    assert list(done.obs.columns[len(query.obs.columns) :]) == expected
    assert (done.obs["uce_best_label"].astype(str) == query.obs["truth"]).mean() > 0.95
    right_or_unknown = (done.obs["uce_label"].astype(str) == query.obs["truth"]) | done.obs["uce_unknown"]
    assert right_or_unknown.mean() > 0.95
    assert (done.obs["uce_label"] == "unknown").equals(done.obs["uce_unknown"])
    assert done.obsm["X_uce"].shape == (40, 256)
    assert done.uns["uce"]["X_uce"]["model_sha256"] == uce.load_model("uce-mini").sha256
    record = done.uns["uce_annotate"]
    assert (record["reference"], record["label_key"], record["calibrated"]) == ("reference.h5ad", "kind", True)
    assert set(record["summary"]["label"]) == {"kind 0", "kind 1", "kind 2"}


def test_numbers_are_in_their_range(done: ad.AnnData) -> None:
    for name in ("confidence", "margin", "unknown_score", "nn_agreement"):
        assert done.obs[f"uce_{name}"].between(0, 1).all()
    assert done.obs["uce_nn_distance"].between(0, 2).all()
    assert done.obs["uce_nn_distance_pct"].between(0, 100).all()


def test_the_inputs_stay_as_they_are(pair: Pair, tmp_path: Path) -> None:
    before = sha256_file(pair.query), sha256_file(pair.reference)
    pair.run(tmp_path / "out.h5ad")
    assert (sha256_file(pair.query), sha256_file(pair.reference)) == before


def test_the_same_twice(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    again = pair.run(tmp_path / "done.h5ad")
    pd.testing.assert_frame_equal(again.obs, done.obs)
    tables = [
        path.with_suffix(".summary.tsv").read_bytes() for path in (pair.folder / "done.h5ad", tmp_path / "done.h5ad")
    ]
    assert tables[0] == tables[1]


def test_a_notebook_gets_the_same_columns_and_leaves_the_reference_alone(pair: Pair, done: ad.AnnData) -> None:
    query, reference = ad.read_h5ad(pair.raw), ad.read_h5ad(pair.reference)
    columns, keys = list(reference.obs.columns), list(reference.obsm)
    uce.annotate(query, **_notebook(pair, reference))
    pd.testing.assert_frame_equal(query.obs, done.obs)
    assert "X_uce" in query.obsm
    assert (list(reference.obs.columns), list(reference.obsm)) == (columns, keys)


def _notebook(pair: Pair, reference: ad.AnnData) -> dict[str, object]:
    options = pair.options(reference=reference)
    del options["pictures"]
    return options


def test_genes_named_by_ids_and_in_another_order_give_the_same_labels(
    pair: Pair, done: ad.AnnData, tmp_path: Path
) -> None:
    table = load_gene_table("human")
    ids = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    query = ad.read_h5ad(pair.raw)
    query.var_names = [ids[name] for name in query.var_names]
    shuffled = query[:, np.random.default_rng(0).permutation(query.n_vars)].copy()
    shuffled.write_h5ad(tmp_path / "ids.h5ad")
    options = pair.options()
    other = uce.annotate_file(tmp_path / "ids.h5ad", tmp_path / "out.h5ad", **options)
    obs = ad.read_h5ad(other.path).obs
    assert (obs["uce_label"] == done.obs["uce_label"]).all()
    np.testing.assert_allclose(obs["uce_confidence"], done.obs["uce_confidence"], atol=1e-5)


def test_the_order_of_cells_does_not_matter(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    reference = ad.read_h5ad(pair.reference)
    reference[np.random.default_rng(1).permutation(160)].copy().write_h5ad(tmp_path / "mixed.h5ad")
    mixed = pair.run(tmp_path / "out.h5ad", reference=tmp_path / "mixed.h5ad")
    assert (mixed.obs["uce_label"] == done.obs["uce_label"]).all()
    np.testing.assert_allclose(mixed.obs["uce_confidence"], done.obs["uce_confidence"], atol=1e-6)


def test_without_a_group_there_is_a_vote_share_and_a_warning(pair: Pair, tmp_path: Path) -> None:
    found = pair.run(tmp_path / "out.h5ad", group_key=None)
    assert "uce_vote_share" in found.obs
    assert "uce_confidence" not in found.obs
    assert not found.obs["uce_unknown"].any()
    assert "--group-key" in found.uns["uce_annotate"]["warnings"][0]


def test_earlier_columns_are_refused_or_replaced_as_a_whole(pair: Pair, tmp_path: Path) -> None:
    first = tmp_path / "first.h5ad"
    pair.run(first, group_key=None)
    with pytest.raises(OutputExistsError, match=r"obs has uce_best_label.*--key-added"):
        uce.annotate_file(first, tmp_path / "second.h5ad", **pair.options())
    again = uce.annotate_file(first, tmp_path / "second.h5ad", **pair.options(overwrite=True))
    columns = ad.read_h5ad(again.path).obs.columns
    assert "uce_vote_share" not in columns
    assert "uce_confidence" in columns
    beside = uce.annotate_file(first, tmp_path / "third.h5ad", **pair.options(key_added="mine"))
    assert {"uce_label", "mine_label"} <= set(ad.read_h5ad(beside.path).obs.columns)


def test_vectors_of_one_model_need_no_counts(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    bare = ad.AnnData(np.full((40, 3), -1.5, np.float32), obs=done.obs[["truth"]], obsm={"X_uce": done.obsm["X_uce"]})
    bare.uns["uce"] = done.uns["uce"]
    bare.write_h5ad(tmp_path / "bare.h5ad")
    found = uce.annotate_file(tmp_path / "bare.h5ad", tmp_path / "out.h5ad", **pair.options(pca=True))
    np.testing.assert_array_equal(ad.read_h5ad(found.path).obs["uce_label"], done.obs["uce_label"])
    assert "negative" in found.facts["pca"]["skipped"]


def test_vectors_of_another_model_are_made_anew_or_refused(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    other = ad.read_h5ad(pair.folder / "done.h5ad")
    other.obs = other.obs[["truth"]]
    other.uns = {"uce": {"X_uce": {**other.uns["uce"]["X_uce"], "model_sha256": "0" * 64}}}
    other.obsm["X_uce"] = np.ones_like(other.obsm["X_uce"])
    other.write_h5ad(tmp_path / "other.h5ad")
    anew = uce.annotate_file(tmp_path / "other.h5ad", tmp_path / "anew.h5ad", **pair.options())
    assert (ad.read_h5ad(anew.path).obs["uce_label"] == done.obs["uce_label"]).all()
    other.X = -other.X
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(ModelError, match=r"other\.h5ad: its vectors \(model 000000000000.*cannot be embedded anew"):
        uce.annotate_file(tmp_path / "other.h5ad", tmp_path / "refused.h5ad", **pair.options())
    assert not (tmp_path / "refused.h5ad").exists()


def test_a_model_that_is_not_here_is_named(pair: Pair, tmp_path: Path) -> None:
    reference = ad.read_h5ad(pair.reference)
    reference.uns["uce"]["X_uce"]["model"] = "nowhere"
    reference.write_h5ad(tmp_path / "reference.h5ad")
    with pytest.raises(ModelError, match=r"nowhere.*give its folder with --model"):
        uce.annotate_file(pair.raw, tmp_path / "out.h5ad", **pair.options(reference=tmp_path / "reference.h5ad"))


@pytest.mark.parametrize("empty", ["", "Unknown", "nan"])
def test_cells_without_a_label_or_a_vector_are_left_out_and_counted(pair: Pair, tmp_path: Path, empty: str) -> None:
    reference = ad.read_h5ad(pair.reference)
    labels = reference.obs["kind"].astype(str)
    labels.iloc[:7] = empty
    reference.obs["kind"] = labels
    reference.obsm["X_uce"][10:13] = np.nan
    reference.write_h5ad(tmp_path / "reference.h5ad")
    found = pair.run(tmp_path / "out.h5ad", reference=tmp_path / "reference.h5ad")
    assert found.uns["uce_annotate"]["left_out"] == {"without a label": 7, "without a vector": 3}
    assert set(found.obs["uce_best_label"].astype(str)) <= {"kind 0", "kind 1", "kind 2"}


def test_a_label_map_renames_and_leaves_out(pair: Pair, tmp_path: Path) -> None:
    table = tmp_path / "map.csv"
    table.write_text("from,to\nKIND 0,first\nkind_1,\n")
    found = pair.run(tmp_path / "out.h5ad", label_map=table)
    assert set(found.obs["uce_best_label"].cat.categories) == {"first", "kind 2"}
    assert found.uns["uce_annotate"]["left_out"]["left out by the label map"] > 0
    with pytest.raises(InputError, match=r"names none of the labels of the reference \(kind 0, kind 1, kind 2\)"):
        pair.run(tmp_path / "not.h5ad", label_map={"B cell": "b"})


def test_a_query_of_one_cell(pair: Pair, tmp_path: Path) -> None:
    ad.read_h5ad(pair.query)[:1].copy().write_h5ad(tmp_path / "few.h5ad")
    options = pair.options(pca=True, pictures=True)
    found = uce.annotate_file(tmp_path / "few.h5ad", tmp_path / "out.h5ad", **options)
    obs = ad.read_h5ad(found.path).obs
    assert len(obs) == 1
    assert "uce_label" in obs
    assert found.report is not None
    assert found.report.is_file()


def test_a_query_of_no_cells_is_refused_before_the_work(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ad.read_h5ad(pair.query)[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    monkeypatch.setattr(running, "both_sides", lambda *_, **__: pytest.fail("the work was begun"))
    words = ["annotate", str(tmp_path / "none.h5ad"), "--reference", str(pair.reference), "--label-key", "kind"]
    assert main([*words, "-o", str(tmp_path / "out.h5ad")]) == InputError.exit_code
    assert capsys.readouterr().err == "error: none.h5ad: holds no cells, so there is nothing to label.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"none.h5ad"}


def test_quiet_says_nothing_but_where_the_result_is(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(pair, tmp_path / "out.h5ad", "--label-key", "kind", "--quiet")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [str(tmp_path / "out.h5ad"), str(tmp_path / "out.summary.tsv")]


def test_an_interrupt_does_not_promise_to_go_on(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "label_cells", interrupt)
    assert main(command(pair, tmp_path / "out.h5ad", "--label-key", "kind", "--quiet")) == 130
    assert capsys.readouterr().err.strip() == "interrupted. The same command starts from the beginning."
    assert not list(tmp_path.iterdir())


def test_a_species_whose_genes_fit_only_in_another_case_is_warned_of(pair: Pair, tmp_path: Path) -> None:
    found = uce.annotate_file(pair.raw, tmp_path / "out.h5ad", **pair.options(species="mouse", min_coverage=0.1))
    (said,) = [text for text in found.facts["warnings"] if "upper and lower case" in text]
    assert said.startswith("raw.h5ad: most names are genes of mus_musculus only when")
    assert "(--species)" in said


def test_a_species_that_stored_vectors_were_not_made_of_is_refused(pair: Pair, tmp_path: Path) -> None:
    for option, file in (("species", "query"), ("reference_species", "reference")):
        with pytest.raises(UsageError, match=rf"{file}\.h5ad: --{option.replace('_', '-')} mouse, but obsm\['X_uce'\]"):
            uce.annotate_file(pair.query, tmp_path / "out.h5ad", **pair.options(**{option: "mouse"}))
    pair.run(tmp_path / "out.h5ad", species="human", reference_species="homo_sapiens")


def test_a_cell_without_counts_gets_no_label(pair: Pair, tmp_path: Path) -> None:
    query = ad.read_h5ad(pair.raw)
    query.X.data[query.X.indptr[3] : query.X.indptr[4]] = 0
    query.write_h5ad(tmp_path / "query.h5ad")
    found = uce.annotate_file(tmp_path / "query.h5ad", tmp_path / "out.h5ad", **pair.options())
    row = ad.read_h5ad(found.path).obs.iloc[3]
    assert row["uce_label"] == "unknown"
    assert row["uce_unknown"]
    assert pd.isna(row["uce_best_label"])
    assert pd.isna(row["uce_confidence"])
    assert any("1 cells of the query have no vector" in text for text in found.facts["warnings"])


def test_a_zarr_query_becomes_an_h5ad(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, about its next default
        ad.read_h5ad(pair.query).write_zarr(tmp_path / "query.zarr")
    found = uce.annotate_file(tmp_path / "query.zarr", tmp_path / "out.h5ad", **pair.options())
    assert (ad.read_h5ad(found.path).obs["uce_label"] == done.obs["uce_label"]).all()


def command(pair: Pair, output: Path, *more: str) -> list[str]:
    words = ["annotate", str(pair.query), "--reference", str(pair.reference), "--no-pictures", "-o", str(output)]
    return [*words, *more]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--label-key", "knd"], 2, "obs has no column 'knd'. Did you mean kind?"),
        (["--label-key", "kind", "--group-key", "doner"], 2, "obs has no column 'doner'. Did you mean donor?"),
        (["--label-key", "kind", "--unknown", "2"], 2, "--unknown 2.0: must be auto, off, or a share"),
        (["--label-key", "kind", "--model", "nowhere"], 4, "nowhere"),
    ],
)
def test_refusals_of_the_command(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert main(command(pair, tmp_path / "out.h5ad", *words)) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out.h5ad").exists()


def test_the_command_says_what_it_did(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--label-key", "kind", "--group-key", "donor", "--json"]
    assert main(command(pair, tmp_path / "out.h5ad", *words)) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["calibrated"] is True
    assert {line["label"] for line in told["summary"]} == {"kind 0", "kind 1", "kind 2"}
    assert told["files"] == [str(tmp_path / "out.h5ad"), str(tmp_path / "out.summary.tsv")]
    assert told["pca"]["agreement"] > 0.9
    for word in ("held out", "confidence: the probability", "unknown:", "principal components"):
        assert word in err
    assert main(command(pair, tmp_path / "out.h5ad", *words)) == 5


@pytest.mark.parametrize("output", ["query.h5ad", "reference.h5ad", "labels.csv"])
def test_outputs_that_cannot_be_are_refused(pair: Pair, output: str) -> None:
    with pytest.raises(UsageError):
        uce.annotate_file(pair.query, pair.folder / output, **pair.options(overwrite=True))


def test_pictures_and_a_page_that_loads_nothing(pair: Pair, tmp_path: Path) -> None:
    found = uce.annotate_file(pair.query, tmp_path / "out.h5ad", **pair.options(pictures=True, pca=True))
    assert found.picture is not None
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    for text in ("kind 0", "How far to believe it", "Markers", "Principal components beside it"):
        assert text in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    titles = re.findall(r'alt="UMAP[^"]*" width="(\d+)".*?<b>(.*?)</b>', page)
    assert [title for _, title in titles] == ["The query among the reference.", "How sure."]
    assert all(int(width) < 400 for width, _ in titles)  # one panel a picture, as wide as a phone


def test_normalised_values_and_few_known_genes_are_warned_of(pair: Pair, tmp_path: Path) -> None:
    query = ad.read_h5ad(pair.raw)
    counts = query.X.toarray().astype(np.float64)
    query.X = sparse.csr_matrix(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)))
    loudest = set(np.argsort(-counts.sum(axis=0))[: query.n_vars // 2 - 10].tolist())
    query.var_names = [f"no gene {i}" if i in loudest else name for i, name in enumerate(query.var_names)]
    query.write_h5ad(tmp_path / "query.h5ad")
    options = pair.options(species="human", min_coverage=0.1)
    found = uce.annotate_file(tmp_path / "query.h5ad", tmp_path / "out.h5ad", **options)
    said = "\n".join(found.facts["warnings"])
    assert "query.h5ad: X holds log1p of normalised counts" in said
    assert "of the counts lie in genes that the model knows" in said


@pytest.mark.parametrize("word", ["unknown", "  "])
def test_a_label_map_cannot_make_a_label_of_nothing(pair: Pair, tmp_path: Path, word: str) -> None:
    found = pair.run(tmp_path / "out.h5ad", label_map={"kind 2": word})
    assert set(found.obs["uce_best_label"].cat.categories) == {"kind 0", "kind 1"}
    assert found.uns["uce_annotate"]["label_map"] == "given"


def test_a_file_that_labels_itself_is_noticed(pair: Pair, done: ad.AnnData, tmp_path: Path) -> None:
    found = uce.annotate_file(pair.reference, tmp_path / "out.h5ad", **pair.options())
    assert any(text.startswith("160 cells of the query have the vector of a") for text in found.facts["warnings"])
    assert not any("vote for themselves" in text for text in done.uns["uce_annotate"]["warnings"])
