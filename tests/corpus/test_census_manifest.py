"""A manifest from a listing of CELLxGENE Discover; the listing here is made up, in the form that is published."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from uce.corpus.expressions import parse_expression
from uce.corpus.manifest import DatasetRow, read_manifest

H5AD = "https://datasets.example.org/{}.h5ad"


def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "census_manifest.py"
    spec = importlib.util.spec_from_file_location("census_manifest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(name: str, **facts: object) -> dict[str, object]:
    """One dataset of the listing, with facts replaced; words become terms of an ontology."""
    usual: dict[str, object] = {
        "organism": ["Homo sapiens"],
        "tissue": ["lung"],
        "disease": ["normal"],
        "assay": ["10x 3' v3"],
        "is_primary_data": [True],
        "cell_count": 4000,
        "collection_id": "c0",
        "collection_doi": None,
        "assets": [
            {"filetype": "RDS", "filesize": 9, "url": "https://datasets.example.org/x.rds"},
            {"filetype": "H5AD", "filesize": 5_000_000, "url": H5AD.format(name)},
        ],
    }
    facets = ("organism", "tissue", "disease", "assay")
    chosen = usual | facts
    terms = {
        facet: [{"label": label, "ontology_term_id": "X:1"} for label in chosen[facet]]  # type: ignore[attr-defined]
        for facet in facets
    }
    return {"dataset_id": name, "title": "of a lung", **chosen, **terms}


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    datasets = [
        listed("plain", collection_doi="10.1000/x"),
        listed("mixed", disease=["normal", 'so-called "flu"'], tissue=["lung", "liver"], cell_count=3000),
        listed("mouse", organism=["Mus musculus"]),
        listed("two", organism=["Homo sapiens", "Mus musculus"]),
        listed("copies", is_primary_data=[False]),
        listed("part", is_primary_data=[True, False], cell_count=9000, assay=["10x 3' v3", "Smart-seq2"]),
        listed("no_file", assets=[]),
        listed("small", cell_count=10),
    ]
    path = tmp_path / "listing.json"
    path.write_text(json.dumps(datasets))
    return path


def rows(listing: Path, *options: str) -> dict[str, DatasetRow]:
    out = listing.parent / "manifest.csv"
    out.unlink(missing_ok=True)
    assert script().main(["-o", str(out), "--from", str(listing), *options]) == 0
    return {row.name: row for row in read_manifest(out)[0]}


def test_datasets_that_can_be_built_become_rows(listing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(listing)
    assert list(found) == ["small", "mixed", "mouse", "plain", "part"]
    plain = found["plain"]
    assert (plain.path, plain.is_address, plain.species) == (H5AD.format("plain"), True, "homo_sapiens")
    assert (plain.study, plain.split, plain.licence) == ("10.1000/x", "", "CC-BY-4.0")
    assert (plain.assay, plain.tissue, plain.filter) == ("10x 3' v3", "lung", "")
    assert (found["mixed"].study, found["mixed"].tissue, found["part"].assay) == ("c0", "", "")
    said = capsys.readouterr()
    assert "5 of 8 datasets, 20,010 cells, 0.0 GB to fetch" in said.out
    assert "Not verified" in said.err


def test_a_filter_chooses_datasets_and_the_cells_of_mixed_ones(listing: Path) -> None:
    found = rows(listing, "--organism", "homo sapiens", "--disease", "Normal", "--min-cells", "100")
    assert list(found) == ["mixed", "plain", "part"]
    assert found["mixed"].filter == '(disease == "normal")'
    assert found["plain"].filter == ""
    quoted = rows(listing, "--disease", 'so-called "flu"', "--tissue", "lung")["mixed"]
    parse_expression(quoted.filter)
    assert quoted.filter == """(tissue == "lung") and (disease == 'so-called "flu"')"""
    assert quoted.tissue == "lung"
    assert rows(listing, "--assay", "10x 3' v3")["part"].filter == """(assay == "10x 3' v3")"""


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("[]", (), "none of 0 datasets fits"),
        ("{}", (), "not a list of datasets"),
        ("<html>", (), "cannot be read as described"),
        ('[{"assets": [{}]}]', (), "cannot be read as described"),
        ('[{"tissue": [{"label": "lung"}]}]', ("--tissue", "lungs"), "tissue lung."),
    ],
)
def test_what_cannot_be_used_is_told_and_nothing_written(
    content: str, options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "listing.json").write_text(content)
    out = tmp_path / "manifest.csv"
    with pytest.raises(SystemExit, match="2"):
        script().main(["-o", str(out), "--from", str(tmp_path / "listing.json"), *options])
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_manifest_is_not_overwritten_and_the_help_says_what_was_not_tried(
    listing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script().main(["-o", str(listing), "--from", str(listing)])
    assert "exists. Choose another -o" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        script().main(["--help"])
    assert "NOT VERIFIED" in capsys.readouterr().out
