"""A manifest is somebody's spreadsheet: read in its usual disguises, refused by line where it cannot be used."""

from pathlib import Path

import pytest

from uce.corpus.manifest import read_manifest
from uce.errors import InputError

HEADER = "dataset_id,path,species\n"
ROW = "one,cells/one.h5ad,human\n"


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + ROW).encode(),
        (HEADER + ROW).encode("utf-8-sig"),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + "\n" + ROW + "\n,,\n").encode(),
        ("# made by hand\n" + HEADER + ROW).encode(),
        b"dataset,role,file,species,cells\none,,cells/one.h5ad,Homo sapiens,12\n",
        b"dataset,path,file,species\none,where/it/came/from.rda,cells/one.h5ad,9606\n",
    ],
    ids=["plain", "byte order mark", "windows line ends", "blank lines", "comment", "training manifest", "both paths"],
)
def test_the_usual_forms_are_read(tmp_path: Path, content: bytes) -> None:
    rows, _ = read_manifest(written(tmp_path, content))
    assert [(row.name, row.path, row.species) for row in rows] == [("one", "cells/one.h5ad", "homo_sapiens")]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    _, unused = read_manifest(written(tmp_path, b"dataset_id,weights,path,species\none,2,a.h5ad,human\n"))
    assert unused == ["weights"]


def test_every_column_reaches_its_row(tmp_path: Path) -> None:
    text = (
        "dataset_id,path,species,split,collection,assay,tissue,layer,gene_column,donor_column,cell_type_column,"
        "batch_column,filter,weight,licence,sha256\n"
        f"a,https://x.org/A.H5,mouse,test,doi,10x,lung,counts,ids,who,type,run,tissue == 'lung',2.5,MIT,{'AB' * 32}\n"
    )
    (row,), unused = read_manifest(written(tmp_path, text.encode()))
    assert unused == []
    assert (row.split, row.study, row.weight, row.sha256) == ("test", "doi", 2.5, "ab" * 32)
    assert (row.layer, row.gene_column, row.donor_column, row.cell_type_column) == ("counts", "ids", "who", "type")
    assert row.is_address
    assert row.file(tmp_path) == tmp_path / "a.h5"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "line 1: no column dataset_id or dataset"),
        (HEADER.encode(), "no datasets in it"),
        (b"dataset_id,path,spieces\n" + ROW.encode(), "no column species among .* Did you mean spieces"),
        ((HEADER + ROW).replace(",", ";").encode(), "separated by semicolons"),
        ((HEADER + ROW).replace(",", "\t").encode(), "separated by tabs"),
        (b"dataset_id,path,species,path\n", "column path is there twice"),
        (HEADER.encode() + "zwölf,a.h5ad,human\n".encode("cp1252"), "Save it as CSV in UTF-8"),
        ((HEADER + 'a,"open,human\n').encode(), "not readable as CSV"),
        ((HEADER + ROW + "a,b\n").encode(), "line 3: 2 fields where the header has 3"),
        ((HEADER + ROW + ROW).encode(), "line 3: dataset one is listed on line 2"),
        ((HEADER + ROW + ROW.replace("one", "ONE", 1)).encode(), "line 3: dataset ONE is listed on line 2"),
        ((HEADER + "\n\n=cmd(),a.h5ad,human\n").encode(), "line 4: .*spreadsheet's formula"),
        ((HEADER + "a,@SUM(1),human\n").encode(), "line 2: .*spreadsheet's formula"),
        ((HEADER + ".hidden,a.h5ad,human\n").encode(), "line 2: dataset '.hidden'"),
        ((HEADER + "dot.,a.h5ad,human\n").encode(), "line 2: dataset 'dot.'"),
        ((HEADER + "a/b,a.h5ad,human\n").encode(), "line 2: dataset 'a/b'"),
        ((HEADER + "a,../a.h5ad,human\n").encode(), "line 2: path '../a.h5ad'"),
        ((HEADER + "a,x/../../a.h5ad,human\n").encode(), "line 2: path"),
        ((HEADER + "a,/etc/passwd,human\n").encode(), "line 2: path '/etc/passwd'"),
        ((HEADER + "a,~/a.h5ad,human\n").encode(), "line 2: path '~/a.h5ad'"),
        ((HEADER + "a,\\\\host\\a.h5ad,human\n").encode(), "line 2: path"),
        ((HEADER + "a,C:\\a.h5ad,human\n").encode(), "line 2: path 'C:"),
        ((HEADER + "a,http://x.org/a.h5ad,human\n").encode(), "line 2: path 'http"),
        ((HEADER + "a,file:///a.h5ad,human\n").encode(), "line 2: path 'file"),
        ((HEADER + "a,https://,human\n").encode(), "line 2: 'https://' is no address"),
        ((HEADER + "a,,human\n").encode(), "line 2: path ''"),
        ((HEADER + "a,a.h5ad,hooman\n").encode(), "line 2: species 'hooman' is not known"),
        ((HEADER.strip() + ",split\na,a.h5ad,human,tarin\n").encode(), "line 2: split 'tarin'.*Did you mean train"),
        ((HEADER.strip() + ",weight\na,a.h5ad,human,-1\n").encode(), "line 2: weight '-1'"),
        ((HEADER.strip() + ",weight\na,a.h5ad,human,nan\n").encode(), "line 2: weight 'nan'"),
        ((HEADER.strip() + ",sha256\na,a.h5ad,human,12ab\n").encode(), "line 2: sha256 '12ab'"),
        ((HEADER.strip() + ",filter\na,a.h5ad,human,tissue = 1\n").encode(), "line 2: filter 'tissue = 1'"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_line(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text) as error:
        read_manifest(written(tmp_path, content))
    assert "\n" not in str(error.value)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such manifest"):
        read_manifest(tmp_path / "none.csv")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.h5ad").write_text("x")
    (tmp_path / "data/one.h5ad").symlink_to(tmp_path / "secret.h5ad")
    (row,), _ = read_manifest(written(tmp_path, (HEADER + "one,one.h5ad,human\n").encode()))
    with pytest.raises(InputError, match="a link leads out of"):
        row.file(tmp_path / "data")


def test_the_manifest_of_the_bundled_model_is_taken_as_it_is() -> None:
    manifest = Path(__file__).resolve().parents[2] / "data_manifests/training_cells.csv"
    rows, _ = read_manifest(manifest)
    assert len(rows) == 16
    assert {row.split for row in rows} == {"train", "validation"}
    assert all(row.path.startswith("cells/") and row.sha256 and row.licence and row.assay for row in rows)
